"""The clients of a subject: they follow its script into the room, then scan what comes."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence

from benchmarks.peers.marker import Pings, payload, scan
from server.load.frames import Chunk, pack
from server.load.rooms import Listener, Room
from server.load.sockets import close_all

ANYTHING = re.compile(b"")
REMEMBERED = 4096
"""Bytes without a mark that a client remembers."""
IDLER_BUFFER = 65_536
"""Bytes that the kernel is to hold for a client that does not read; it takes twice as many."""
AT_ONCE = 50
"""Connections closed at a time."""
READY = "ready"
"""The event that a script has come to its end."""


class Script:
    """How a client gets to where it wants to be."""

    def __init__(
        self, path: str, *steps: tuple[bytes, re.Pattern[bytes]], subprotocol: str = ""
    ) -> None:
        self.path, self.subprotocol = path, subprotocol
        self.steps = steps
        """What is sent once it is a WebSocket, and what must come before the next is sent."""


class Marks(Room):
    """What the listeners of one room got together, found by its marks."""

    def __init__(self, pings: tuple[Pings, ...]) -> None:
        super().__init__("")
        self._pings = pings

    def read(self, data: bytes) -> Chunk:
        """Scan a chunk, unless the listener before got the very same."""
        if data != self._chunk.data:
            self._chunk = scan(data, self._pings)

        return self._chunk


class Member(Listener):
    """A client of a subject."""

    def __init__(self, script: Script, room: Room) -> None:
        super().__init__(room)
        self.path = script.path
        if script.subprotocol:
            self.head = f"Sec-WebSocket-Protocol: {script.subprotocol}\r\n"

        self._said = b""
        self._steps = iter(script.steps)
        self._expected: re.Pattern[bytes] | None = ANYTHING

    def read(self, data: bytes) -> Chunk:
        """Follow the script to its end, then look for marks."""
        chunk = Chunk(data)
        while self._expected is not None:
            found = self._expected.search(data, chunk.size)
            if found is None:
                return chunk

            chunk.size = found.end()
            self._go_on()

        return self.room.read(data)

    def take(self, chunk: Chunk) -> None:
        """Check and count the payloads, and answer pings."""
        if chunk.offsets:
            before = self.ledger.following
            self.ledger.note(chunk)
            self.room.count(chunk, before, self)
        else:
            self._said = (self._said + chunk.data[: chunk.size])[-REMEMBERED:]

        for opcode, answer in chunk.others:
            self.transport.write(pack(opcode, answer))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note an end that we asked for; close frames are not looked for."""
        if self.leaving and exc is None:
            self.ending = "closed"

        super().connection_lost(exc)

    async def told(self, pattern: re.Pattern[bytes], within: float) -> re.Match[bytes]:
        """Wait until the server has said something. Raises TimeoutError or Broken."""
        async with asyncio.timeout(within):
            await self.until(lambda: pattern.search(self._said) is not None)

        found = pattern.search(self._said)
        assert found is not None
        return found

    def _go_on(self) -> None:
        sent, self._expected = next(self._steps, (b"", None))
        if sent:
            self.transport.write(sent)

        if self._expected is None:
            self.hear(READY, {})


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
        """Publish the next number and the present time. Raises Broken."""
        self.published += 1
        self.write(wrap(payload(self.published, time.monotonic_ns(), size)))


async def close_members(members: Sequence[Member]) -> int:
    """Close clients as the protocol has it, some at a time; return how many the server did not."""
    parts = [members[start : start + AT_ONCE] for start in range(0, len(members), AT_ONCE)]
    return sum([await close_all(part) for part in parts])
