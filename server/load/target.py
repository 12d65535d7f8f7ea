"""The server under load, and what this machine allows: files and ports for the connections."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from server.load.sockets import WITHIN, AnySocket, Socket

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.Protocol)
HOST = "127.0.0.1"
AT_ONCE = 100
"""Connections opened at a time, within the backlog of a listening socket."""
PER_ADDRESS = 25_000
"""Connections from one address: Linux has some 28,000 ports for them, and others need some."""
RESERVED_FILES = 64
"""Files that a run needs besides its connections."""
FOUND_WITHIN = 10.0
"""Seconds a server may take to answer."""


class Target:
    """A server, found once so that no connection asks for its address again."""

    def __init__(self, port: int, host: str = HOST, path: str = "", tls: bool = False) -> None:
        """Raises OSError when nobody answers."""
        self.token = ""
        """What all connections bring; nothing if it is empty."""
        self.sources: Sequence[str] = ()
        """Addresses of this machine to come from, in turns; without them what it takes."""
        with socket.create_connection((host, port), FOUND_WITHIN) as probe:
            self._address, self._port = probe.getpeername()[:2]

        self._path, where = path, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._head = f"Host: {where}"
        self.http = f"http{'s' * tls}://{where}{path}"
        """The address for HTTP, without a slash at the end."""
        self._tls = ssl.create_default_context() if tls else None
        self._name = host if tls else None

    async def open(self, make: Callable[[], AnySocket], number: int = 0) -> AnySocket:
        """Open a connection, which is one of this `number` at least.

        Raises Broken, OSError or TimeoutError.
        """
        async with asyncio.timeout(WITHIN):
            opened = await self.connect(make, number)
            try:
                opened.transport.write(self._request(opened))
                await opened.until(lambda: opened.opened)
            except BaseException:
                opened.cut()
                raise

        return opened

    async def connect(self, make: Callable[[], AnyProtocol], number: int = 0) -> AnyProtocol:
        """Open a connection and say nothing on it. Raises OSError."""
        _, connected = await asyncio.get_running_loop().create_connection(
            make,
            self._address,
            self._port,
            ssl=self._tls,
            server_hostname=self._name,
            local_addr=self._source(number),
        )
        return connected

    async def open_many(
        self,
        make: Callable[[int], AnySocket],
        count: int,
        ready: str,
        go_on: Callable[[int], bool] = lambda opened: True,
    ) -> list[AnySocket]:
        """Open connections, and wait for the event `ready` on each; ask whether to `go_on`.

        Raises Broken, OSError or TimeoutError.
        """

        async def one(number: int) -> AnySocket:
            opened = await self.open(lambda: make(number), number)
            await opened.event(ready)
            return opened

        sockets: list[AnySocket] = []
        while len(sockets) < count and go_on(len(sockets)):
            batch = range(len(sockets), min(count, len(sockets) + AT_ONCE))
            sockets += await asyncio.gather(*[one(number) for number in batch])

        return sockets

    def _request(self, opened: Socket) -> bytes:
        return (
            f"GET {self._path}{opened.path} HTTP/1.1\r\n{self._head}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: cm9vbWNhc3Qgcm9vbWNhcw==\r\nSec-WebSocket-Version: 13\r\n"
            f"{opened.head}{self._bearer()}\r\n"
        ).encode()

    def _bearer(self) -> str:
        return f"Authorization: Bearer {self.token}\r\n" if self.token else ""

    def _source(self, number: int) -> tuple[str, int] | None:
        """Return the address to come from: on this machine there are more than one."""
        if self.sources:
            return self.sources[number % len(self.sources)], 0

        if number < PER_ADDRESS or not self._address.startswith("127."):
            return None

        return f"127.0.0.{1 + number // PER_ADDRESS}", 0


def allow_files(connections: int) -> int:
    """Allow this process the files for so many connections; return how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections + RESERVED_FILES:
        soft = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return connections if soft == resource.RLIM_INFINITY else soft - RESERVED_FILES
