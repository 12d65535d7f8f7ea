"""The clients of a subject: they follow its script into the room, then scan what comes."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from benchmarks.peers.marker import Pings, payload, scan
from server.load.frames import Chunk, pack
from server.load.sockets import REQUEST, Listener, Tally, open_one

Script = tuple[tuple[bytes, "re.Pattern[bytes]"], ...]
"""What is sent, and what must come before the next is sent or the client counts as open."""

UPGRADED = re.compile(rb"\AHTTP/1\.1 101 .*?\r\n\r\n", re.DOTALL)
REMEMBERED = 4096
"""Bytes without a mark that a client remembers."""
IDLER_BUFFER = 65_536
"""Bytes that the kernel is to hold for a client that does not read; it takes twice as many."""
AT_ONCE = 50
"""Connections opened, or closed, at a time."""

AnyMember = TypeVar("AnyMember", bound="Member")


def upgrade(path: str, subprotocol: str = "") -> bytes:
    """Make the request that becomes a WebSocket."""
    request = REQUEST.format(path=path)
    if subprotocol:
        request = f"{request[:-2]}Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"

    return request.encode()


class Marks(Tally):
    """What the listeners of one room got together, found by its marks."""

    def __init__(self, pings: tuple[Pings, ...]) -> None:
        super().__init__()
        self._pings = pings

    def read(self, data: bytes) -> Chunk:
        """Scan a chunk, unless the listener before got the very same."""
        if data != self._last.data:
            self._last = scan(data, self._pings)

        return self._last


class Member(Listener):
    """A client of a subject."""

    def __init__(self, script: Script, tally: Tally) -> None:
        super().__init__("", tally)
        self.leaving = False
        """Whether it is we who end the connection."""
        self._script = iter(script)
        self._expected: re.Pattern[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the script."""
        self.transport = cast(asyncio.Transport, transport)
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Follow the script, then take what is whole and keep the beginning of the next mark."""
        self.came_at = time.monotonic_ns()
        if self._rest:
            data = self._rest + data

        if self._expected is not None:
            data = self._follow(data)
            if self._expected is not None:
                self._rest = data
                return

        chunk = self.read(data)
        self._rest = data[chunk.size :]
        self.take(chunk)

    def take(self, chunk: Chunk) -> None:
        """Check and count the payloads, and answer pings."""
        if chunk.offsets:
            self.ledger.note(chunk)
            self._tally.count(chunk, self.came_at)
        else:
            before = self.latest.get("said", {"all": b""})["all"]
            self._note("said", {"all": (before + chunk.data)[-REMEMBERED:]})

        for opcode, answer in chunk.others:
            self.transport.write(pack(opcode, answer))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count an end that was not asked for."""
        self.trouble += not self.leaving
        super().connection_lost(exc)

    async def close(self) -> None:
        """Close as the protocol has it, and wait for the end. Raises TimeoutError."""
        self.leaving = True
        await super().close()

    async def hear(self, pattern: re.Pattern[bytes], within: float) -> re.Match[bytes]:
        """Wait until the server has said something. Raises TimeoutError or Broken."""
        async with asyncio.timeout(within):
            heard = await self.event("said", lambda said: bool(pattern.search(said["all"])))

        found = pattern.search(heard["all"])
        assert found is not None
        return found

    def _follow(self, data: bytes) -> bytes:
        while self._expected is not None:
            found = self._expected.search(data)
            if found is None:
                if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 101"):
                    self._answer(data)
                    self.transport.abort()

                return data

            data = data[found.end() :]
            self._go_on()

        return data

    def _go_on(self) -> None:
        sent, self._expected = next(self._script, (b"", None))
        if sent:
            self.transport.write(sent)

        if self._expected is None and not self.opened.done():
            self.opened.set_result(None)


class Idler(Member):
    """A client that will stop reading, and whose kernel does not read on in its stead."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Fix the size of the kernel's buffer, which grows otherwise."""
        kernel: socket.socket = transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, IDLER_BUFFER)
        super().connection_made(transport)


class Publisher(Member):
    """A client that publishes, and knows how often it did."""

    def __init__(self, script: Script, pings: tuple[Pings, ...]) -> None:
        super().__init__(script, Marks(pings))
        self.published = 0

    def publish(self, size: int, wrap: Callable[[bytes], bytes]) -> None:
        """Publish the next number and the present time."""
        self.published += 1
        self.transport.write(wrap(payload(self.published, time.monotonic_ns(), size)))


async def open_members(port: int, make: Callable[[], AnyMember], count: int) -> list[AnyMember]:
    """Open clients, some at a time. Raises a group of Broken, OSError or TimeoutError."""
    members: list[AnyMember] = []

    async def open_next() -> None:
        members.append(await open_one(port, make))

    await _repeat(count, open_next)
    return members


async def close_members(members: list[Member]) -> None:
    """Close clients as the protocol has it, some at a time. Raises a group of TimeoutError."""
    left = iter(members)
    await _repeat(len(members), lambda: next(left).close())


async def _repeat(count: int, work: Callable[[], Awaitable[None]]) -> None:
    async def some(times: int) -> None:
        for _ in range(times):
            await work()

    async with asyncio.TaskGroup() as tasks:
        for place in range(min(AT_ONCE, count)):
            tasks.create_task(some(len(range(place, count, AT_ONCE))))
