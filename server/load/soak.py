"""Listeners that come, hear something and go, again and again, and what they leave behind."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import msgspec

from server.load.delays import Delays
from server.load.gauges import BACK_WITHIN, GAUGES, read_gauges
from server.load.report import plural
from server.load.rooms import Listener, Publisher
from server.load.sockets import WITHIN, Broken, reason
from server.load.stage import Stage
from server.load.usage import measured

CUT_EVERY = 10
"""One of so many listeners goes without a close frame, as clients do whose network is gone."""
LOOK_EVERY = 0.2
"""Seconds between two looks at gauges that are not back yet."""


class Plan(msgspec.Struct, frozen=True):
    """How much to do."""

    promise: ClassVar[str] = (
        "all listeners joined, heard something and left, and nothing stays behind"
    )
    cycles: int = 1000
    at_once: int = 50
    """Listeners that are there at a time."""
    rooms: int = 4
    rate: float = 50.0
    """Publishes to each room in a second."""

    @property
    def connections(self) -> int:
        """Connections at a time."""
        return self.at_once + 1

    def __str__(self) -> str:
        """Say it in words."""
        rooms, cycles = plural(self.rooms, "room"), plural(self.cycles, "cycle")
        return f"{cycles}, {self.at_once} at a time, {rooms} with {self.rate:g} messages/s each"


class Soak:
    """The cycles of one run."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.done = 0
        self.found: Counter[str] = Counter()
        """What went wrong."""
        self.joined = Delays()
        self.rooms = stage.rooms(plan.rooms)
        self._stage, self._plan = stage, plan

    async def run(self) -> None:
        """Do all cycles, while messages are published. Raises Broken or TimeoutError in a group."""
        publisher = await self._stage.target.open(Publisher)
        numbers = iter(range(self._plan.cycles))
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publish(publisher))
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._plan.at_once):
                    workers.create_task(self._work(numbers))

            publishing.cancel()

        if not await publisher.close():
            self.found["did not close as asked"] += 1

    async def _publish(self, publisher: Publisher) -> None:
        began, pause = time.monotonic(), 1 / (self._plan.rate * len(self.rooms))
        for number in itertools.count():
            await asyncio.sleep(began + number * pause - time.monotonic())
            await publisher.drained()
            if publisher.troubles:
                raise Broken(f"a publish failed: {publisher.troubles[0]}")

            publisher.publish(self.rooms[number % len(self.rooms)])

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if self._stage.stopped:
                return

            try:
                await self._cycle(number)
            except (Broken, OSError) as error:
                self.found[reason(error)] += 1

    async def _cycle(self, number: int) -> None:
        began = time.monotonic_ns()
        listener = await self._stage.target.open(
            lambda: Listener(self.rooms[number % len(self.rooms)])
        )
        try:
            await listener.event("joined")
            self.joined.append(listener.came_at - began)
            async with asyncio.timeout(WITHIN):
                await listener.until(lambda: listener.received > 0)

            if number % CUT_EVERY and not await listener.close():
                self.found["did not close as asked"] += 1
        finally:
            listener.cut()
            listener.ledger.audit(self.found)
            self.found.update(listener.troubles)

        self.done += 1
        self._stage.doing = f"{self.done:,} of {plural(self._plan.cycles, 'cycle')} done"


async def run(stage: Stage, plan: Plan) -> None:
    """Do the cycles. Raises Broken, OSError or TimeoutError, perhaps in a group."""
    report, url = stage.report, stage.target.http
    gauges, resident = await asyncio.to_thread(read_gauges, url), stage.resident()
    soak = Soak(stage, plan)
    try:
        with measured(stage.process) as usage:
            await soak.run()
    finally:
        report.add(
            "cycles_per_second", soak.done / usage.wall, "cycles", "/s", f"{soak.done:,} in all"
        )
        report.numbers["cycles"] = soak.done
        report.add_usage(usage, soak.done, "cycle")
        report.add_delays("joined", soak.joined, "connect to joined")
        report.add_delays(
            "delay", Delays.merged(each.delays for each in soak.rooms), "publish to arrival"
        )
        report.fail(soak.found)

    stage.doing = "waiting for the gauges"
    await compare(stage, gauges)
    if resident:
        grown = stage.resident() - resident
        report.add("server_mb_grown", grown / 1e6, "server memory", "MB", "more than before")


async def compare(stage: Stage, before: Counter[str]) -> None:
    """See that nothing is left; the server has a moment to notice who is gone."""
    deadline = time.monotonic() + BACK_WITHIN
    after = await asyncio.to_thread(read_gauges, stage.target.http)
    while after - before and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_EVERY)
        after = await asyncio.to_thread(read_gauges, stage.target.http)

    for name in GAUGES:
        words = name.replace("_", " ")
        stage.report.add(f"{name}_left", after[name], words, "", f"left; {before[name]} before")

    left = (after - before).items()
    stage.report.fail({f"{name.replace('_', ' ')} left behind": count for name, count in left})
