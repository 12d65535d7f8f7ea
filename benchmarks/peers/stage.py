"""One subject's turn: it runs, clients are opened, payloads go through, and it is checked."""

from __future__ import annotations

import asyncio
import time

from benchmarks.peers.process import Running
from benchmarks.peers.runs import Plan, Values
from benchmarks.peers.sockets import Marks, Member, Publisher, open_members
from server.load.sockets import hang_up, open_one

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

    @property
    def port(self) -> int:
        """Where the subject listens."""
        return self.running.port

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
        subject, before = self.stage.running.subject, len(self.tally.listeners)
        await open_members(
            self.stage.port, lambda: Member(subject.listen, self.tally), count - before
        )
        for each in self.tally.listeners[before:]:
            each.ledger.following = self.publisher.published + 1

        await asyncio.sleep(SUBSCRIBED)
        self.publish()
        await self.settle()
        self.tally.delays.clear()

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
        found = self.tally.problems(self.publisher.published)
        cut = ["the publisher was cut off"] if self.publisher.trouble else []
        late = f"lost, or not there within {STRAGGLERS:g} s"
        return [text.replace("lost", late) for text in found] + cut

    def leave(self) -> None:
        """Cut all connections."""
        hang_up([self.publisher, *self.tally.listeners])


async def open_room(stage: Stage, count: int) -> Room:
    """Open a publisher and listeners. Raises Broken, OSError, TimeoutError or a group of them."""
    subject = stage.running.subject
    publisher = await open_one(stage.port, lambda: Publisher(subject.publisher, subject.pings))
    room = Room(stage, publisher)
    await room.fill(count)
    return room
