"""The load client: raw asyncio protocols that do no more than it takes to count right.

Listeners of a room share a `Tally`; it counts, stamps and checks for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec

from server.load.frames import BINARY, CLOSE, PING, PONG, TEXT, Chunk, Ledger, pack, parse

HOST = "127.0.0.1"
WITHIN = 30.0
"""Seconds that anything may take; what takes longer counts as lost."""
AT_ONCE = 100
"""Connections opened at a time, within the backlog of a listening socket."""
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: cm9vbWNhc3Qgcm9vbWNhcw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NORMAL = 1000

AnySocket = TypeVar("AnySocket", bound="Socket")


class Broken(Exception):
    """The server did something that no measurement should go on after."""


class Socket(asyncio.Protocol):
    """One WebSocket client."""

    def __init__(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.latest: dict[str, dict[str, Any]] = {}
        """The newest event of each type."""
        self.trouble = 0
        """Errors and gaps that the server told of, and an ending that was not a normal one."""
        self.came_at = 0
        """Nanoseconds at which the newest bytes came."""
        self.transport: asyncio.Transport
        self._request = REQUEST.format(path=path).encode()
        self._rest = b""
        self._news = loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the whole frames, and keep the beginning of the next."""
        self.came_at = time.monotonic_ns()
        if self._rest:
            data = self._rest + data

        if not self.opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return

            self._answer(head)

        chunk = self.read(data)
        self._rest = data[chunk.size :]
        self.take(chunk)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits for the end, or for something that will not come."""
        for future in (self.opened, self._news):
            if not future.done():
                future.set_exception(Broken("the server hung up"))
                future.exception()  # seen: nobody need be waiting

        self.ended.set_result(None)

    def pause_writing(self) -> None:
        """The kernel's buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It is not any more."""
        self._writable.set()

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came."""
        return parse(data)

    def take(self, chunk: Chunk) -> None:
        """Act on the frames."""
        for opcode, payload in chunk.others:
            if opcode == PING:
                self.transport.write(pack(PONG, payload))
            elif opcode == CLOSE:
                self.trouble += payload[:2] not in (b"", NORMAL.to_bytes(2, "big"))
                self.transport.close()
            elif opcode == TEXT:
                event = msgspec.json.decode(payload)
                self._note(event["type"], event)
            else:
                self._note("binary", {})

    def send(self, command: dict[str, object]) -> None:
        """Send a command."""
        self.transport.write(pack(TEXT, msgspec.json.encode(command)))

    def send_audio(self, data: bytes) -> None:
        """Send one frame of audio."""
        self.transport.write(pack(BINARY, data))

    async def drained(self) -> None:
        """Wait while the kernel's buffer is full."""
        await self._writable.wait()

    async def event(
        self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda event: True
    ) -> dict[str, Any]:
        """Wait until the newest event of a type fits. Raises Broken or TimeoutError."""
        async with asyncio.timeout(WITHIN):
            while kind not in self.latest or not fits(self.latest[kind]):
                if self.ended.done():
                    raise Broken(f"the server hung up before an event {kind!r}")

                await self._news
                self._news = asyncio.get_running_loop().create_future()

        return self.latest[kind]

    async def close(self) -> None:
        """Close as the protocol has it, and wait for the end. Raises TimeoutError."""
        self.transport.write(pack(CLOSE, NORMAL.to_bytes(2, "big")))
        async with asyncio.timeout(WITHIN):
            await self.ended

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"HTTP/1.1 101 "):
            self.opened.set_result(None)
        else:
            line = head.partition(b"\r\n")[0].decode(errors="replace")
            self.opened.set_exception(Broken(f"no upgrade: {line}"))

    def _note(self, kind: str, event: dict[str, Any]) -> None:
        self.trouble += kind in ("error", "gap")
        self.latest[kind] = event
        if not self._news.done():
            self._news.set_result(None)


class Tally:
    """What the listeners of one room got together."""

    def __init__(self, *, timed: bool = True) -> None:
        self.listeners: list[Listener] = []
        self.received = 0
        """Events of the room that came, over all listeners."""
        self.came_at = 0
        """Nanoseconds at which the newest of them came."""
        self.delays: list[int] = []
        """Nanoseconds from publish to arrival, one for each delivery of a message."""
        self.timed = timed
        """Whether delays are wanted."""
        self._last = Chunk(b"")
        self._goal = 0
        self._reached: asyncio.Future[None] | None = None

    def read(self, data: bytes) -> Chunk:
        """Parse a chunk, unless the listener before got the very same."""
        if data != self._last.data:
            self._last = parse(data)

        return self._last

    def count(self, chunk: Chunk, came_at: int) -> None:
        """Add what one listener got."""
        self.received += len(chunk.offsets)
        self.came_at = came_at
        if self.timed:
            self.delays.extend([came_at - stamp for stamp in chunk.stamps])

        if self._reached is not None and self.received >= self._goal and not self._reached.done():
            self._reached.set_result(None)

    async def reach(self, total: int) -> None:
        """Wait until so many events have come. Raises TimeoutError."""
        if self.received >= total:
            return

        self._goal, self._reached = total, asyncio.get_running_loop().create_future()
        async with asyncio.timeout(WITHIN):
            await self._reached

    def problems(self, published: int) -> list[str]:
        """Say what is wrong, given how many events with an offset the room was sent."""
        counts = {
            "lost": sum(each.ledger.lost(published) for each in self.listeners),
            "out of order": sum(each.ledger.late for each in self.listeners),
            "delivered twice": sum(each.ledger.twice for each in self.listeners),
            "interrupted": sum(each.trouble for each in self.listeners),
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


class Listener(Socket):
    """A listener of one room."""

    def __init__(self, path: str, tally: Tally) -> None:
        super().__init__(path)
        self.ledger = Ledger(1)
        self._tally = tally
        tally.listeners.append(self)

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came."""
        return self._tally.read(data)

    def take(self, chunk: Chunk) -> None:
        """Check and count the events of the room."""
        if chunk.offsets:
            self.ledger.note(chunk)
            self._tally.count(chunk, self.came_at)

        if chunk.others:
            super().take(chunk)


async def open_one(port: int, make: Callable[[], AnySocket]) -> AnySocket:
    """Open a connection. Raises Broken, OSError or TimeoutError."""
    async with asyncio.timeout(WITHIN):
        _, socket = await asyncio.get_running_loop().create_connection(make, HOST, port)
        await socket.opened

    return socket


async def open_many(
    port: int, make: Callable[[int], AnySocket], count: int, ready: str
) -> list[AnySocket]:
    """Open connections, and wait for the event `ready` on each of them."""

    async def one(number: int) -> AnySocket:
        socket = await open_one(port, lambda: make(number))
        await socket.event(ready)
        return socket

    sockets: list[AnySocket] = []
    while len(sockets) < count:
        batch = range(len(sockets), min(count, len(sockets) + AT_ONCE))
        sockets += await asyncio.gather(*[one(number) for number in batch])

    return sockets


async def open_listeners(port: int, room: str, count: int, tally: Tally) -> None:
    """Fill a room with listeners of the tally."""
    path = f"/v1/rooms/{room}/listen"
    await open_many(port, lambda _: Listener(path, tally), count, "joined")


def hang_up(sockets: Sequence[Socket]) -> None:
    """Cut connections that are not needed any more."""
    for socket in sockets:
        socket.transport.abort()
