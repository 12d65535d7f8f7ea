"""Rooms of listeners and one publisher: how many deliveries there are, and how long they take.

The time of a delivery goes from just before the publish is written to its arrival.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar

import msgspec

from server.load.delays import Delays
from server.load.pace import saturated, steadily
from server.load.report import plural
from server.load.rooms import Listener, Publisher, Room
from server.load.sockets import Broken, close_all
from server.load.stage import Stage
from server.load.usage import Usage, measured


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    promise: ClassVar[str] = "every message came to every listener, once and in order"
    rooms: int = 1
    listeners: int = 100
    """Listeners of each room, with those that stall."""
    size: int = 128
    """Bytes of a published value."""
    rate: float = 20.0
    """Publishes to each room in a second; 0 for as many as the listeners keep up with."""
    seconds: float = 10.0
    stalled: float = 0.0
    """Share of the listeners that stop reading."""

    @property
    def stalling(self) -> int:
        """Listeners of each room that stop reading."""
        return math.floor(self.listeners * self.stalled)

    @property
    def connections(self) -> int:
        """All connections."""
        return self.rooms * self.listeners + 1

    def __str__(self) -> str:
        """Say it in words."""
        pace = f"{self.rate:g} a second" if self.rate else "as many as they follow"
        rooms = f"{plural(self.rooms, 'room')} of {plural(self.listeners, 'listener')}"
        return f"{rooms}, messages of {self.size:,} bytes, {pace}"


async def run(stage: Stage, plan: Plan) -> None:
    """Measure. Raises Broken, OSError or TimeoutError."""
    rooms = stage.rooms(plan.rooms)
    publisher = await stage.target.open(lambda: Publisher(plan.size))
    before = stage.resident()
    listeners = await _fill(stage, plan, rooms)
    stalled = [each for each in listeners if not each.room.timed]
    await stage.weigh(before, len(listeners), "listener")
    try:
        if not stage.stopped:
            await _warm_up(publisher, rooms)
            for listener in stalled:
                listener.transport.pause_reading()

            await _measure(stage, plan, publisher, rooms)
            await _wake(stage, stalled)
    finally:
        stage.report.fail(sum((room.audit() for room in rooms), Counter()))
        stage.doing = "closing"
        await close_all([publisher, *listeners])


async def _fill(stage: Stage, plan: Plan, rooms: list[Room]) -> list[Listener]:
    """Open the listeners of all rooms; those that will stall are counted apart."""
    apart = [Room(room.name, timed=False) for room in rooms]

    def make(number: int) -> Listener:
        place, index = divmod(number, len(rooms))
        return Listener(apart[index] if place < plan.stalling else rooms[index])

    listeners = await stage.open(make, len(rooms) * plan.listeners, "joined")
    for listener in listeners:
        listener.room.listeners.append(listener)

    return listeners


async def _warm_up(publisher: Publisher, rooms: list[Room]) -> None:
    """See that a message goes through each room, before any is measured."""
    for room in rooms:
        publisher.publish(room)

    await publisher.settle()
    for room in rooms:
        await room.complete()
        room.delays = Delays()
        room.follow()


async def _measure(stage: Stage, plan: Plan, publisher: Publisher, rooms: list[Room]) -> None:
    stage.doing = f"measuring for {plan.seconds:g} s"
    received = sum(room.received for room in rooms)
    try:
        with measured(stage.process) as usage:
            if plan.rate:
                late = await steadily(publisher, rooms, plan.rate, plan.seconds, stage.until)
                stage.report.fail({"messages could not be published in time": late})
            else:
                await saturated(publisher, rooms, plan.seconds, stage.until)

            await publisher.settle()
            for room in rooms:
                await room.complete()
    finally:
        _report(stage, usage, rooms, sum(room.received for room in rooms) - received)


def _report(stage: Stage, usage: Usage, rooms: list[Room], deliveries: int) -> None:
    report = stage.report
    published = sum(room.published for room in rooms) - len(rooms)
    detail = f"{deliveries:,} in all, of {plural(published, 'message')}"
    report.add("deliveries_per_second", deliveries / usage.wall, "deliveries", "/s", detail)
    report.add_usage(usage, deliveries, "delivery")
    report.numbers |= {"deliveries": deliveries, "published": published}
    report.add_delays("delay", Delays.merged(room.delays for room in rooms), "publish to arrival")
    report.add_delays("last", Delays.merged(room.last for room in rooms), "publish to the last")


async def _wake(stage: Stage, stalled: list[Listener]) -> None:
    """Let the stalled read on, and report how they ended; what they got is in order, too."""
    endings: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for listener in stalled:
        listener.transport.resume_reading()

    for listener in stalled:
        try:
            listener.send({"type": "ping", "id": 1})
            await listener.event("ack")
            endings["not sent enough to be sent away"] += 1
        except Broken as ended:
            endings[str(ended)] += 1

        listener.ledger.audit(found)

    stage.report.add_counts("stalled", "stalled listeners", endings)
    stage.report.fail({f"{what}, of the stalled": count for what, count in found.items()})
