"""One room and many listeners: what a delivery costs, how long it takes, and how many there can be.

Measured: CPU of the server's process for each delivery and the time from just before a publish is
written to its arrival at each listener, at a steady pace of values of 128 bytes over one
`/v1/connect` socket; then the same socket as fast as the listeners keep up, a window of publishes
ahead of them. The CPU includes reading and storing the publishes and what the connections cost at
rest. Not measured: MessagePack, TLS, networks, listeners that read slowly.
"""

from __future__ import annotations

import msgspec
import uvloop

from benchmarks.machine import measured, server
from benchmarks.report import Report
from server.load.delays import Delays
from server.load.pace import saturated, steadily
from server.load.rooms import Publisher, Room
from server.load.sockets import Broken, hang_up
from server.load.target import Target
from server.load.usage import Usage
from tests.servers import Server

ROOM = "fanout"


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    listeners: tuple[int, ...] = (100, 1000)
    rate: float = 20.0
    """Publishes a second at the steady pace."""
    steady: float = 3.0
    """Seconds of each steady run."""
    saturated: float = 2.0
    """Seconds of each saturated run."""
    runs: int = 3


QUICK = Plan(steady=1.5, saturated=1.0, runs=1)


def run(plan: Plan) -> Report:
    """Measure each number of listeners on a server of its own."""
    report = Report("fanout")
    for count in plan.listeners:
        with server() as subject:
            uvloop.run(_measure(subject, plan, count, report))

    return report


async def _measure(subject: Server, plan: Plan, count: int, report: Report) -> None:
    room, title, target = Room(ROOM), f"1 x {count}", Target(subject.port)
    await room.fill(target, count)
    publisher = await target.open(Publisher)
    try:
        await _steady(subject, publisher, plan, room, report)
        await _saturated(subject, publisher, plan, room, report)
    except (Broken, TimeoutError):
        report.check(title, ["not everything came in time"])

    report.check_counts(title, room.audit())
    hang_up([publisher, *room.listeners])


async def _steady(
    subject: Server, publisher: Publisher, plan: Plan, room: Room, report: Report
) -> None:
    count, total = len(room.listeners), max(1, round(plan.steady * plan.rate))
    title = f"1 x {count}, {plan.rate:g}/s"
    usages: list[Usage] = []
    delays: list[Delays] = []
    for _ in range(plan.runs):
        room.delays = Delays()
        with measured(subject) as usage:
            late = await steadily(publisher, [room], plan.rate, plan.steady)
            await room.complete()

        report.check_counts(title, {"messages could not be published in time": late})
        usages.append(usage)
        delays.append(room.delays)

    costs = [each.server / (total * count) * 1e6 for each in usages]
    report.add(f"{title}, CPU per delivery", "us", costs)
    report.add_delays(f"{title}, delivery", delays)
    report.add_usage(title, usages)


async def _saturated(
    subject: Server, publisher: Publisher, plan: Plan, room: Room, report: Report
) -> None:
    count, room.timed = len(room.listeners), False
    usages: list[Usage] = []
    deliveries: list[int] = []
    for _ in range(plan.runs):
        before = room.published
        with measured(subject) as usage:
            await saturated(publisher, [room], plan.saturated)
            await room.complete()

        usages.append(usage)
        deliveries.append((room.published - before) * count)

    runs = list(zip(deliveries, usages, strict=True))
    title = f"1 x {count}, saturated"
    report.add(f"{title}, deliveries", "/s", [done / used.wall for done, used in runs])
    report.add(f"{title}, deliveries", "/s of CPU", [done / used.server for done, used in runs])
    report.add_usage(title, usages)
