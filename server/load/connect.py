"""Connections that come and stay: how fast, and what one weighs.

The time of a connection goes from the start of its TCP connection to the event `joined`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import msgspec

from server.load.delays import Delays
from server.load.report import plural
from server.load.rooms import Listener, Room
from server.load.sockets import Broken, close_all, reason
from server.load.stage import Stage
from server.load.usage import measured

KEPT = 0.95
"""Share of the rate asked for below which it was not kept."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    promise: ClassVar[str] = "all connections were opened, joined and closed"
    connections: int = 1000
    at_once: int = 50
    """Connections that are being opened at a time, at most."""
    rate: float = 0.0
    """Connections begun in a second, at most; 0 for as many as the server takes."""
    hold: float = 0.0
    """Seconds for which all stay."""

    def __str__(self) -> str:
        """Say it in words."""
        pace = f", {self.rate:g} a second" if self.rate else ""
        return f"{plural(self.connections, 'listener')}, {self.at_once} at a time{pace}"


class Opening:
    """The connections of one run."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.failures: Counter[str] = Counter()
        self.delays = Delays()
        self.room: Room = stage.rooms(1)[0]
        self._stage, self._plan = stage, plan
        self._began = time.monotonic()

    async def run(self) -> None:
        """Open them all."""
        numbers = iter(range(self._plan.connections))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._plan.at_once):
                tasks.create_task(self._work(numbers))

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            when = self._began + (number / self._plan.rate if self._plan.rate else 0.0)
            if not await self._stage.until(when):
                return

            try:
                await self._open(number)
            except (Broken, OSError) as error:
                self.failures[reason(error)] += 1

    async def _open(self, number: int) -> None:
        began = time.monotonic_ns()
        listener = await self._stage.target.open(lambda: Listener(self.room), number)
        try:
            await listener.event("joined")
        except BaseException:
            listener.cut()
            raise

        self.delays.append(listener.came_at - began)
        self.room.listeners.append(listener)
        self._stage.doing = f"{len(self.room.listeners):,} open"


async def run(stage: Stage, plan: Plan) -> None:
    """Measure."""
    before, report = stage.resident(), stage.report
    opening = Opening(stage, plan)
    with measured(stage.process) as usage:
        await opening.run()

    joined, listeners = len(opening.delays), opening.room.listeners
    report.add("connects_per_second", joined / usage.wall, "connects", "/s", f"{joined:,} in all")
    report.add_usage(usage, joined, "connect")
    await stage.weigh(before, joined, "connection")
    report.add_delays("joined", opening.delays, "connect to joined")
    stage.doing = f"holding {joined:,} connections"
    await stage.until(time.monotonic() + plan.hold)
    report.add_counts("failures", "failed", opening.failures)
    stage.doing = "closing"
    unclosed = await close_all(listeners)
    report.fail(opening.failures)
    report.fail(opening.room.audit())
    report.fail({"did not close as asked": unclosed})
    if plan.rate and joined < KEPT * plan.rate * usage.wall and not stage.stopped:
        report.notes.append(f"the rate was not kept: {plan.at_once} at a time did not get further")
