"""The quiet tenant: rooms of listeners, a steady publisher and a few speakers, in this process."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import msgspec

from server.load.delays import Delays
from server.load.frames import Chunk
from server.load.rooms import Listener, Publisher, Room
from server.load.sockets import hang_up
from server.load.speak import SLICES, Beat, Speaker, talk
from server.load.target import Target
from server.load.usage import Process

ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 11))
"""Where it comes from: one address may have so many connections, and so many a second."""
PAUSE = 0.06
"""Seconds between two connects: nobody is to be refused."""
FOR_EVER = 3600.0
DISTURBED = 0.0001
"""Seconds off their cores, of server and client together, from which on a message tells nothing."""


class Plan(msgspec.Struct, frozen=True):
    """How much of everything."""

    rooms: int = 4
    listeners: int = 25
    """Listeners of each room."""
    rate: float = 20.0
    """Messages a second to each room."""
    speakers: int = 5


class Heard:
    """What a window brought, without the messages during which something else had a core."""

    def __init__(
        self,
        looks: Sequence[tuple[int, float]],
        arrivals: Sequence[tuple[int, int]],
        speech: Delays,
    ) -> None:
        """Take what was waited so far at the publish of each message, and after the last one."""
        self.speech = speech
        """Delays of the transcripts."""
        peaceful = [
            after[1] - before[1] <= DISTURBED for before, after in itertools.pairwise(looks)
        ]
        begins = [at for at, _ in looks]
        self.delays = Delays(
            delay for stamp, delay in arrivals if peaceful[bisect.bisect(begins, stamp) - 1]
        )
        """Delays of the other messages."""
        self.left_out = 100 * (1 - sum(peaceful) / len(peaceful))
        """Per cent of the messages that are left out."""


class TimedRoom(Room):
    """A room that keeps each arrival: when it was published, and how long it took."""

    def __init__(self, name: str) -> None:
        super().__init__(name, timed=False)
        self.arrivals: list[tuple[int, int]] = []

    def count(self, chunk: Chunk, before: int, listener: Listener) -> None:
        """Add what a listener got."""
        super().count(chunk, before, listener)
        self.arrivals += [(stamp, listener.came_at - stamp) for stamp in chunk.stamps]


class Quiet:
    """The quiet tenant on one server."""

    def __init__(self, target: Target, server: Process, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._processes = (server, Process(os.getpid()))
        self._rooms = [TimedRoom(f"quiet-{number}") for number in range(plan.rooms)]
        self._beats = [Beat() for _ in range(SLICES)]
        self._speakers: list[Speaker] = []
        self._publisher: Publisher
        self._talking: asyncio.Task[None]

    async def begin(self) -> None:
        """Connect, and begin to talk. Raises Broken, OSError or TimeoutError."""
        number, plan = 0, self._plan
        for room in self._rooms:
            for _ in range(plan.listeners):
                listener = await self._target.open(partial(Listener, room), number)
                await listener.event("joined")
                room.listeners.append(listener)
                number += 1
                await asyncio.sleep(PAUSE)

        self._publisher = await self._target.open(Publisher, number)
        for each in range(plan.speakers):
            beat = self._beats[each % SLICES]
            name = f"talk-{each}"
            make = partial(Speaker, name, "echo", beat)
            speaker = await self._target.open(make, number + each)
            speaker.send({"type": "join", "room": name})
            await speaker.event("joined")
            await speaker.event("speech", lambda event: event["state"] == "ready")
            self._speakers.append(speaker)
            await asyncio.sleep(PAUSE)

        self._talking = asyncio.ensure_future(talk(self._speakers, FOR_EVER, beats=self._beats))

    async def measure(self, seconds: float) -> Heard:
        """Publish for so long; return what was measured. Raises Broken or TimeoutError."""
        for beat in self._beats:
            beat.delays = Delays()

        for room in self._rooms:
            room.arrivals.clear()

        looks: list[tuple[int, float]] = []
        pause = 1 / self._plan.rate / len(self._rooms)
        began = time.monotonic()
        for number in range(round(seconds / pause)):
            await asyncio.sleep(began + number * pause - time.monotonic())
            looks.append((time.monotonic_ns(), self._waited()))
            self._publisher.publish(self._rooms[number % len(self._rooms)])

        await self._publisher.settle()
        for room in self._rooms:
            await room.complete()

        looks.append((time.monotonic_ns(), self._waited()))
        arrivals = [each for room in self._rooms for each in room.arrivals]
        return Heard(looks, arrivals, Delays.merged(beat.delays for beat in self._beats))

    def _waited(self) -> float:
        """Return for how long something else had the cores of the server and of this process."""
        return sum(process.waited() for process in self._processes)

    def end(self) -> Counter[str]:
        """Hang up; return what was wrong with what came."""
        self._talking.cancel()
        found: Counter[str] = sum((room.audit() for room in self._rooms), Counter())
        for speaker in self._speakers:
            speaker.ledger.audit(found)
            found.update(speaker.troubles)

        hang_up([self._publisher, *self._speakers])
        hang_up([each for room in self._rooms for each in room.listeners])
        return +found
