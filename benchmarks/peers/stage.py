"""One subject's turn: it runs, clients are opened, payloads go through, and it is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks.peers.process import Running
from benchmarks.peers.runs import Plan, Values
from benchmarks.peers.sockets import READY, Marks, Member, Publisher
from server.load.delays import Delays
from server.load.sockets import AnySocket, hang_up

STRAGGLERS = 5.0
"""Seconds that payloads may still take when no more are sent."""
SUBSCRIBED = 0.2
"""Seconds for a server that says nothing when a listener is in the room."""
MISSED = 0.02
"""Seconds that an offer may be behind its own pace; what is more is not made up for."""


Notes = dict[str, tuple[Values, list[str]]]
"""The numbers of each workload, and what makes them worth little."""


class Stage:
    """A subject that runs, and what is wanted of it."""

    def __init__(self, running: Running, plan: Plan, wanted: set[str], notes: Notes) -> None:
        self.running, self.plan, self.wanted, self.notes = running, plan, wanted, notes

    async def open(self, make: Callable[[int], AnySocket], count: int) -> list[AnySocket]:
        """Open clients to the end of their scripts. Raises Broken, OSError or TimeoutError."""
        return await self.running.target.open_many(make, count, READY)

    def note(self, workload: str, values: Values, problems: list[str]) -> None:
        """Add what was found."""
        self.notes[workload] = (values, problems)


class Room:
    """The listeners of a subject's one room, and a publisher."""

    def __init__(self, stage: Stage, publisher: Publisher) -> None:
        self.stage, self.publisher = stage, publisher
        self.tally = Marks(stage.running.subject.pings)
        self.expected = 0
        """Payloads that should have come by now, over all listeners."""

    async def fill(self, count: int) -> None:
        """Have so many listeners; they all hear of a first payload before this returns."""
        script, tally = self.stage.running.subject.listen, self.tally
        wanted = count - len(tally.listeners)
        for each in await self.stage.open(lambda _: Member(script, tally), wanted):
            each.ledger.following = self.publisher.published + 1
            tally.listeners.append(each)

        await asyncio.sleep(SUBSCRIBED)
        self.publish()
        await self.settle()
        self.tally.delays = Delays()

    def publish(self, size: int = 0) -> None:
        """Publish one payload."""
        self.expected += len(self.tally.listeners)
        subject = self.stage.running.subject
        self.publisher.publish(size or self.stage.plan.size, subject.publication)

    async def settle(self) -> None:
        """Wait until everything published has come, but not for ever; the ledgers know the rest."""
        try:
            async with asyncio.timeout(STRAGGLERS):
                await self.tally.reach(self.expected)
        except TimeoutError:
            pass

    async def pace(self, rate: float, seconds: float, size: int = 0) -> None:
        """Publish at a steady pace."""
        began = time.monotonic()
        for number in range(max(1, round(rate * seconds))):
            await asyncio.sleep(began + number / rate - time.monotonic())
            self.publish(size)

    async def flood(self, rate: float, seconds: float, window: int) -> None:
        """Offer more than can be delivered, but never more than a window ahead of the listeners."""
        count, due = len(self.tally.listeners), time.monotonic()
        deadline = due + seconds
        while (now := time.monotonic()) < deadline:
            due = max(due, now - MISSED)
            if due > now:
                await asyncio.sleep(due - now)

            await self.tally.reach(self.expected + (1 - window) * count)
            await self.publisher.drained()
            self.publish()
            due += 1 / rate

    def problems(self) -> list[str]:
        """Say what is wrong with what the listeners got, and with the publisher's connection."""
        self.tally.published = self.publisher.published
        late = {"lost": f"lost, or not there within {STRAGGLERS:g} s"}
        found = self.tally.audit().items()
        cut = ["the publisher was cut off"] if self.publisher.troubles else []
        return [f"{count} {late.get(what, what)}" for what, count in found if count] + cut

    def leave(self) -> None:
        """Cut all connections."""
        hang_up([self.publisher, *self.tally.listeners])


async def open_room(stage: Stage, count: int) -> Room:
    """Open a publisher and listeners. Raises Broken, OSError or TimeoutError."""
    subject = stage.running.subject
    opened = await stage.open(lambda _: Publisher(subject.publisher, subject.pings), 1)
    room = Room(stage, opened[0])
    await room.fill(count)
    return room
