"""One room and many listeners: what a delivery costs, how long it takes, and how many there can be.

Measured: CPU of the server's process for each delivery and the time from just before a publish is
written to its arrival at each listener, at a steady pace of values of 128 bytes over one
`/v1/connect` socket; then the same socket as fast as the listeners keep up, a window of publishes
ahead of them. The CPU includes reading and storing the publishes and what the connections cost at
rest. Not measured: MessagePack, TLS, networks, listeners that read slowly.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import uvloop

from benchmarks.machine import Usage, measured, server
from benchmarks.report import Report
from server.load.frames import STAMP_DIGITS, TEXT, pack
from server.load.sockets import Socket, Tally, hang_up, open_listeners, open_one
from tests.servers import Server

ROOM = "fanout"
SIZE = 128
"""Bytes of a published value."""
AHEAD = 128
"""Publishes that may be on their way when saturated: the server always has work, and no mailbox
comes near `limits.egress.messages`."""
AT_ONCE = AHEAD // 8
_FILL = "x" * (SIZE - STAMP_DIGITS)


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


class Publisher(Socket):
    """A connection that publishes to one room, and knows how often it did."""

    def __init__(self, room: str) -> None:
        super().__init__("/v1/connect")
        self.published = 0
        self._room = room

    def publish(self, times: int = 1) -> None:
        """Publish the present time, padded to the size."""
        data = f"{time.monotonic_ns():0{STAMP_DIGITS}d}{_FILL}"
        text = f'{{"type":"publish","room":"{self._room}","data":"{data}"}}'
        self.transport.write(pack(TEXT, text.encode()) * times)
        self.published += times


def run(plan: Plan) -> Report:
    """Measure each number of listeners on a server of its own."""
    report = Report("fanout")
    for count in plan.listeners:
        with server() as subject:
            uvloop.run(_measure(subject, plan, count, report))

    return report


async def _measure(subject: Server, plan: Plan, count: int, report: Report) -> None:
    tally, title = Tally(), f"1 x {count}"
    await open_listeners(subject.port, ROOM, count, tally)
    publisher = await open_one(subject.port, lambda: Publisher(ROOM))
    try:
        await _steady(subject, publisher, plan, tally, report)
        await _saturated(subject, publisher, plan, tally, report)
    except TimeoutError:
        report.check(title, ["not everything came in time"])

    report.check(title, tally.problems(publisher.published))
    hang_up([publisher, *tally.listeners])


async def _steady(
    subject: Server, publisher: Publisher, plan: Plan, tally: Tally, report: Report
) -> None:
    count, total = len(tally.listeners), max(1, round(plan.steady * plan.rate))
    usages: list[Usage] = []
    delays: list[list[int]] = []
    for _ in range(plan.runs):
        tally.delays = []
        with measured(subject) as usage:
            began = time.monotonic()
            for number in range(total):
                await asyncio.sleep(began + number / plan.rate - time.monotonic())
                publisher.publish()

            await tally.reach(publisher.published * count)

        usages.append(usage)
        delays.append(tally.delays)

    title = f"1 x {count}, {plan.rate:g}/s"
    costs = [each.server / (total * count) * 1e6 for each in usages]
    report.add(f"{title}, CPU per delivery", "us", costs)
    report.add_delays(f"{title}, delivery", delays)
    report.add_usage(title, usages)


async def _saturated(
    subject: Server, publisher: Publisher, plan: Plan, tally: Tally, report: Report
) -> None:
    count, tally.timed = len(tally.listeners), False
    usages: list[Usage] = []
    deliveries: list[int] = []
    for _ in range(plan.runs):
        before, deadline = publisher.published, time.monotonic() + plan.saturated
        with measured(subject) as usage:
            while time.monotonic() < deadline:
                await tally.reach((publisher.published + AT_ONCE - AHEAD) * count)
                await publisher.drained()
                publisher.publish(AT_ONCE)

            await tally.reach(publisher.published * count)

        usages.append(usage)
        deliveries.append((publisher.published - before) * count)

    runs = list(zip(deliveries, usages, strict=True))
    title = f"1 x {count}, saturated"
    report.add(f"{title}, deliveries", "/s", [done / used.wall for done, used in runs])
    report.add(f"{title}, deliveries", "/s of CPU", [done / used.server for done, used in runs])
    report.add_usage(title, usages)
