"""How fast connections come and go, and what one costs.

Measured: connections a second, and CPU of the server's process for each, over the whole life of a
listener: TCP, upgrade, `hello`, `joined`, close frames both ways, end of the TCP connection; a
number of them at a time, all in one room, where one more stays. Not measured: TLS, tokens, a
history to replay.
"""

from __future__ import annotations

import asyncio

import msgspec
import uvloop

from benchmarks.machine import measured, server
from benchmarks.report import Report
from server.load.sockets import Broken, Socket, reason
from server.load.target import Target
from server.load.usage import Usage
from tests.servers import Server


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    connects: int = 2000
    """Connections of each run."""
    at_once: int = 50
    runs: int = 3


QUICK = Plan(connects=500, runs=1)


def run(plan: Plan) -> Report:
    """Measure on one server."""
    report = Report("connects")
    with server() as subject:
        uvloop.run(_measure(subject, plan, report))

    return report


async def _measure(subject: Server, plan: Plan, report: Report) -> None:
    target = Target(subject.port)
    usages: list[Usage] = []
    done = plan.connects // plan.at_once * plan.at_once
    try:
        resident = await target.open(lambda: Socket("/v1/rooms/connects/listen"))
        for _ in range(plan.runs):
            with measured(subject) as usage:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(plan.at_once):
                        tasks.create_task(_come_and_go(target, done // plan.at_once))

            usages.append(usage)

        await resident.close()
    except* (Broken, OSError, TimeoutError) as broken:
        report.check("connects", [reason(error) for error in broken.exceptions])

    title = f"{plan.at_once} at a time"
    report.add(f"{title}, connects", "/s", [done / used.wall for used in usages])
    report.add(f"{title}, CPU per connect", "us", [used.server / done * 1e6 for used in usages])
    report.add_usage(title, usages)


async def _come_and_go(target: Target, times: int) -> None:
    for _ in range(times):
        socket = await target.open(lambda: Socket("/v1/rooms/connects/listen"))
        await socket.event("joined")
        if not await socket.close() or socket.troubles:
            raise Broken("a connection did not close as asked")
