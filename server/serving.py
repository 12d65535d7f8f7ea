"""The process: uvicorn with a drain that runs before it cuts anything."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import sys
from types import FrameType
from typing import Any

import msgspec
import uvicorn

from server.app import create_app
from server.node import Node
from server.settings import BadSettings, Settings
from server.websocket import HardenedWebSocket

log = logging.getLogger("roomcast.server")

HEAD_BYTES = 16 * 1024
"""Bytes of request head that are read before the request is refused."""
CLOSE_FRAMES = 0.2
"""Seconds for the last close frames to leave before the sockets are closed."""


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains its node at the first signal and stops at the second."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and remember the loop for the signal handler."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, cut the rest at the second; stop if not started yet."""
        if self._loop is None or not self.started:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain_or_cut)

    def _drain_or_cut(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self._draining.cancel()

    async def _drain(self) -> None:
        drain = self._node.settings.drain
        log.info("draining: %d connections", len(self._node.manager.actors))
        try:
            await self._node.manager.drain(drain.window, drain.within)
            await asyncio.sleep(CLOSE_FRAMES)
        finally:
            self._node.manager.cut()
            self.should_exit = True


class StartFailed(Exception):
    """The app did not start; its own error is in the log."""


def serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve on listening sockets until a signal. Raises BadSettings or StartFailed."""
    configure_logging()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="h11",
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws=HardenedWebSocket,
        ws_max_size=2 * max(settings.limits.audio_bytes, settings.limits.text_bytes),
        ws_per_message_deflate=False,
        ws_ping_interval=settings.server.ping_interval,
        ws_ping_timeout=settings.server.ping_timeout,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    log.info("listening on %s", ", ".join(map(url_of, sockets)))
    try:
        DrainingServer(config, app.state.node).run(sockets)
    except SystemExit:  # uvicorn's way to say so
        raise StartFailed from None


def listen(settings: Settings) -> list[socket.socket]:
    """Listen on the address, all of those that its name has. Raises OSError."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    port = settings.server.port
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
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

        sock.bind(address)
        sock.listen()
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
    if not settings.dev:
        raise BadSettings(
            "no tenant is configured, so nobody could connect; --dev (dev = true) opens one"
            " without tokens, for your own machine"
        )

    if not is_loopback(host) and not settings.server.expose_dev:
        raise BadSettings(
            f"dev mode has no tokens, and {host or 'the empty host'} is not a loopback address;"
            " use --host 127.0.0.1, or --expose (server.expose_dev) if that is what you want"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address; a name other than localhost may lie."""
    if host.lower() == "localhost":
        return True

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class JsonFormatter(logging.Formatter):
    """One JSON object a line: no text can forge another line or colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)

        return msgspec.json.encode(line).decode()


def configure_logging() -> None:
    """Log to standard error: plain lines for a terminal, JSON otherwise."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(plain if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("roomcast").setLevel(logging.INFO)
    # It warns of each malformed request, so anyone could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
