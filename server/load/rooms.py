"""Rooms of listeners. Those of one room share a `Room`, which counts and checks for all of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from server.load.delays import Delays
from server.load.frames import STAMP_DIGITS, TEXT, Chunk, Ledger, pack, parse
from server.load.sockets import WITHIN, Broken, Socket
from server.load.target import Target

SIZE = 128
"""Bytes of a published value."""


class Room:
    """What the listeners of one room got together."""

    def __init__(self, name: str, *, timed: bool = True) -> None:
        self.name = name
        self.timed = timed
        """Whether delays are wanted."""
        self.listeners: list[Listener] = []
        self.published = 0
        """Events with an offset that the room was sent."""
        self.received = 0
        """Events of the room that came, over all listeners."""
        self.came_at = 0
        """Nanoseconds at which the newest of them came."""
        self.delays = Delays()
        """From publish to arrival, one for each delivery of a message."""
        self.last = Delays()
        """From publish to the arrival at the last listener, one for each message."""
        self._chunk = Chunk(b"")
        self._places: Counter[int] = Counter()
        """How many listeners wait for an offset; empty if nobody asks for the last of them."""
        self._behind = 0
        """The least of these offsets."""
        self._stamps: dict[int, int] = {}
        """When the messages were published that some listeners still wait for."""
        self._goal = 0
        self._reached: asyncio.Future[None] | None = None
        self._broken = ""

    def follow(self) -> None:
        """From here on, note when a message has come to the last listener."""
        self._places = Counter(each.ledger.following for each in self.listeners)
        self._behind = min(self._places)

    async def fill(self, target: Target, count: int) -> None:
        """Open listeners. Raises Broken, OSError or TimeoutError."""
        self.listeners += await target.open_many(lambda _: Listener(self), count, "joined")

    def read(self, data: bytes) -> Chunk:
        """Parse a chunk, unless the listener before got the very same."""
        if data != self._chunk.data:
            chunk = self._chunk = parse(data)
            if self._places and len(chunk.stamps) == len(chunk.offsets):
                news = zip(chunk.offsets, chunk.stamps, strict=True)
                self._stamps |= {at: stamp for at, stamp in news if at >= self._behind}

        return self._chunk

    def count(self, chunk: Chunk, before: int, listener: Listener) -> None:
        """Add what a listener got that was waiting for the offset `before`."""
        came_at = self.came_at = listener.came_at
        self.received += len(chunk.offsets)
        if self.timed:
            self.delays.add([came_at - stamp for stamp in chunk.stamps])

        if self._places:
            self._move(before, listener.ledger.following)

        if self._reached is not None and self.received >= self._goal and not self._reached.done():
            self._reached.set_result(None)

    async def reach(self, total: int) -> None:
        """Wait until so many events have come. Raises Broken or TimeoutError."""
        if self.received >= total:
            return

        if self._broken:
            raise Broken(self._broken)

        self._goal, self._reached = total, asyncio.get_running_loop().create_future()
        async with asyncio.timeout(WITHIN):
            await self._reached

    async def complete(self) -> None:
        """Wait until everybody has everything. Raises Broken or TimeoutError."""
        await self.reach(self.published * len(self.listeners))

    def interrupt(self, ending: str) -> None:
        """Note that a listener was sent away: nobody need wait for what it should get."""
        self._broken = f"a listener was sent away: {ending}"
        if self._reached is not None and not self._reached.done():
            self._reached.set_exception(Broken(self._broken))

    def audit(self) -> Counter[str]:
        """Count what is wrong with what the listeners got."""
        found: Counter[str] = Counter()
        for listener in self.listeners:
            listener.ledger.audit(found, self.published)
            found.update(listener.troubles)

        return found

    def _move(self, before: int, after: int) -> None:
        """Move a listener; what everybody has now has come to the last."""
        places = self._places
        places[after] += 1
        places[before] -= 1
        if places[before]:
            return

        del places[before]
        if before == self._behind:
            self._behind = min(places)
            done = [self._stamps.pop(at, 0) for at in range(before, self._behind)]
            self.last.add([self.came_at - stamp for stamp in done if stamp])


class Listener(Socket):
    """A listener of one room."""

    def __init__(self, room: Room) -> None:
        super().__init__(f"/v1/rooms/{room.name}/listen")
        self.ledger = Ledger(1)
        self.received = 0
        """Events of the room that came."""
        self.room = room

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came."""
        return self.room.read(data)

    def take(self, chunk: Chunk) -> None:
        """Check and count the events of the room; what was first told of it comes before them."""
        if chunk.others:
            super().take(chunk)

        if chunk.offsets:
            before = self.ledger.following
            self.ledger.note(chunk)
            self.received += len(chunk.offsets)
            self.room.count(chunk, before, self)

    def hear(self, kind: str, event: dict[str, Any]) -> None:
        """Begin where the room is."""
        if kind == "joined":
            self.ledger = Ledger(event["offset"] + 1)

        super().hear(kind, event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the room, unless it was we who went."""
        super().connection_lost(exc)
        if self.opened and not self.leaving:
            self.room.interrupt(self.ending)


class Publisher(Socket):
    """A connection that publishes."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__("/v1/connect")
        self.size = size
        self._fill = "x" * (size - STAMP_DIGITS)

    def publish(self, room: Room, times: int = 1) -> None:
        """Publish the present time, padded to the size. Raises Broken."""
        data = f"{time.monotonic_ns():0{STAMP_DIGITS}d}{self._fill}"
        text = f'{{"type":"publish","room":"{room.name}","data":"{data}"}}'
        self.write(pack(TEXT, text.encode()) * times)
        room.published += times

    async def settle(self) -> None:
        """Wait until everything published was carried out. Raises Broken or TimeoutError."""
        mark = time.monotonic_ns()
        self.send({"type": "ping", "id": str(mark)})
        await self.event("ack", lambda event: event["id"] == str(mark))
        if self.troubles:
            raise Broken(f"a publish failed: {self.troubles[0]}")
