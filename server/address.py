"""Where the server listens, and whether a tenant without tokens may be there."""

from __future__ import annotations

import errno
import socket
from typing import Any

from server.loopback import is_loopback
from server.settings import BadSettings, Settings

BACKLOG = 2048
"""Connections that may wait to be accepted."""
SEND_BUFFER = 128 * 1024
"""Bytes the kernel may hold for a peer; more would hide a slow one from its mailbox."""
RECEIVE_BUFFER = 128 * 1024
"""Bytes of a speaker that the kernel may hold: 4 s of 16 kHz audio while an engine is busy."""
UNACKNOWLEDGED = 20_000
"""Milliseconds a peer's kernel may leave data unacknowledged; then the link counts as dead."""
FOR_CONNECTIONS = [
    (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED),
]
"""Options that connections inherit from the socket that accepts them, at no cost."""


def listen(settings: Settings, port: int | None = None) -> list[socket.socket]:
    """Listen on the address, all of those that its name has, be it on another port.

    Raises OSError.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    port = settings.server.port if port is None else port
    for family, address in _resolve(settings.server.host.strip("[]")):
        try:
            sockets.append(_listen(family, (address[0], port, *address[2:])))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for each in sockets:
                    each.close()

                raise

            missing = error
        else:
            port = sockets[0].getsockname()[1]

    if missing is not None and not sockets:
        raise missing

    return sockets


def _resolve(host: str) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        raise OSError(errno.EINVAL, "not the name of a host") from None

    return [(family, address) for family, _, _, _, address in found]


def _listen(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in FOR_CONNECTIONS:
            sock.setsockopt(level, option, value)

        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise

    return sock


def url_of(sock: socket.socket) -> str:
    """Return the address of a listening socket as a browser on this machine takes it."""
    host, port = sock.getsockname()[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def check_exposure(settings: Settings) -> None:
    """Refuse to open a tenant without tokens to the network, or to start with no tenant at all.

    Raises BadSettings.
    """
    host = settings.server.host
    if not (settings.dev or settings.tenants or settings.tenants_directory):
        raise BadSettings(
            "no tenant is configured, so nobody could connect; name some in tenants or"
            " tenants_directory, or let --dev (dev = true) open one without tokens, for your own"
            " machine"
        )

    if settings.dev and not is_loopback(host) and not settings.server.expose_dev:
        raise BadSettings(
            f"dev mode has no tokens, and {host or 'the empty host'} is not a loopback address;"
            " use --host 127.0.0.1, or --expose (server.expose_dev) if that is what you want"
        )
