"""What is done to a subject in its turn; each function takes a stage and notes what it found."""

from __future__ import annotations

import asyncio
import time

from benchmarks.peers.process import Running, Stretch, measured
from benchmarks.peers.runs import Values
from benchmarks.peers.sockets import Idler, Marks, Member, close_members
from benchmarks.peers.stage import Room, Stage, open_room
from server.load.delays import Delays
from server.load.sockets import hang_up

REST = 1.0
"""Seconds for a server to finish with what was asked of it, before its memory is read."""
WARM = 0.5
"""Seconds of a flood before it is measured, and of a pace that is to be judged by its slowest."""
ALL = 0.95
"""Share of what is offered from which on all of it counts as delivered."""
WARM_ACCEPTS = 100
WATCH = 0.1
"""Seconds between two looks at the memory."""


async def fan_out(stage: Stage) -> None:
    """Deliver to one room: one at a time, at a steady pace, and as fast as it goes."""
    room = await open_room(stage, stage.plan.listeners)
    for name, measure in (("last", _last), ("paced", _paced), ("saturated", _saturated)):
        if name in stage.wanted:
            room.tally.delays = Delays()
            stage.note(name, await measure(room), room.problems())

    room.leave()


async def _last(room: Room) -> Values:
    plan = room.stage.plan
    taken = Delays()
    deadline = time.monotonic() + plan.last_within
    with measured(room.stage.running) as usage:
        while len(taken) < plan.publishes and time.monotonic() < deadline:
            await asyncio.sleep(plan.pause)
            sent = time.monotonic_ns()
            room.publish()
            await room.settle()
            taken.append(room.tally.came_at - sent)

    return _delays(taken) | usage.shares()


async def _paced(room: Room) -> Values:
    plan = room.stage.plan
    cost, usage = await _deliver(room, plan.rate, plan.paced)
    return {"cost": cost} | _delays(room.tally.delays) | usage.shares()


async def _saturated(room: Room) -> Values:
    """Flood at the rate that is offered; who delivers all of it is offered twice as much.

    The first figures are those at the same rate for everybody, `most` is the best of any rate.
    """
    plan, room.tally.timed = room.stage.plan, False
    offered = plan.offered
    values = await _flood(room, offered)
    most = values["per_second"]
    while most > ALL * offered * plan.listeners and offered < plan.most:
        offered *= 2
        most = max(most, (await _flood(room, offered))["per_second"])

    return values | {"most": most}


async def _flood(room: Room, rate: float) -> Values:
    plan = room.stage.plan
    await room.flood(rate, WARM, plan.window)
    with measured(room.stage.running) as usage:
        before = room.tally.received
        await room.flood(rate, plan.saturated, plan.window)
        done = room.tally.received - before

    await room.settle()
    return {
        "per_cpu": done / usage.used.server,
        "per_second": done / usage.used.wall,
    } | usage.shares()


async def _deliver(room: Room, rate: float, seconds: float, size: int = 0) -> tuple[float, Stretch]:
    """Publish at a steady pace; return the CPU of each delivery in microseconds, and the usage."""
    before = room.tally.received
    with measured(room.stage.running) as usage:
        await room.pace(rate, seconds, size)
        await room.settle()

    return usage.used.server / max(1, room.tally.received - before) * 1e6, usage


def _delays(delays: Delays) -> Values:
    """Return percentiles of delays in milliseconds."""
    return {f"p{percent}": delays.percentile(percent) / 1e6 for percent in (50, 99)}


async def memory(stage: Stage) -> None:
    """Weigh idle listeners."""
    room, values = await open_room(stage, 1), Values()
    base = stage.running.process.resident()
    counts = stage.plan.idle[: stage.running.subject.idle_steps]
    for count in counts:
        await room.fill(count + 1)
        await asyncio.sleep(REST)
        values[f"bytes_{count}"] = (stage.running.process.resident() - base) / count

    first, last = values[f"bytes_{counts[0]}"], values[f"bytes_{counts[-1]}"]
    if len(counts) > 1 and first > 0:
        values["growth"] = last / first

    stage.note("memory", values, room.problems())
    room.leave()


async def accept(stage: Stage) -> None:
    """Open listeners up to the point at which they are in the room, then close them."""
    subject, tally = stage.running.subject, Marks(stage.running.subject.pings)

    async def open_some(count: int) -> list[Member]:
        return await stage.open(lambda _: Member(subject.listen, tally), count)

    await close_members(await open_some(WARM_ACCEPTS))
    count = stage.plan.accepts
    with measured(stage.running) as opening:
        members = await open_some(count)

    with measured(stage.running) as closing:
        unclosed = await close_members(members)

    values = {
        "accept": opening.used.server / count * 1e6,
        "life": (opening.used.server + closing.used.server) / count * 1e6,
        "per_second": count / opening.used.wall,
    }
    problems = [f"{unclosed} did not close as asked"] if unclosed else []
    stage.note("accept", values | opening.shares(), problems)


async def scale(stage: Stage) -> None:
    """Deliver the same number of payloads a second to ever more listeners."""
    plan, values = stage.plan, Values()
    room, shares = await open_room(stage, 1), Values()
    for count in plan.scale:
        await room.fill(count)
        rate = plan.listeners * plan.rate / count
        values[f"cost_{count}"], usage = await _deliver(room, rate, plan.scaled)
        shares = usage.shares()

    costs = [values[f"cost_{count}"] for count in plan.scale]
    values["spread"] = max(costs) / min(costs)
    stage.note("scale", values | shares, room.problems())
    room.leave()


async def stalled(stage: Stage) -> None:
    """Let some stop reading, small payloads."""
    await _strain(stage, "stalled", stage.plan.size, stage.plan.strain[0])


async def stalled_large(stage: Stage) -> None:
    """Let some stop reading, payloads that fill every buffer."""
    await _strain(stage, "stalled-large", stage.plan.large, stage.plan.strain[1])


async def _strain(stage: Stage, name: str, size: int, seconds: float) -> None:
    plan, running = stage.plan, stage.running
    few = round(plan.crowd * plan.stalled)
    room, theirs = await open_room(stage, plan.crowd - few), Marks(running.subject.pings)
    idlers = await stage.open(lambda _: Idler(running.subject.listen, theirs), few)
    await _deliver(room, plan.rate, WARM, size)
    room.tally.delays = Delays()
    await _deliver(room, plan.rate, plan.calm, size)
    calm, room.tally.delays = room.tally.delays, Delays()
    for idler in idlers:
        idler.transport.pause_reading()

    due, came, sizes = room.expected, room.tally.received, [running.process.resident()]
    watch = asyncio.create_task(_watch(running, sizes))
    try:
        _, usage = await _deliver(room, plan.rate, seconds, size)
    finally:
        watch.cancel()

    grown = max(sizes) - sizes[0]
    values = {
        "calm": calm.percentile(99) / 1e6,
        "strain": room.tally.delays.percentile(99) / 1e6,
        "delivered": 100 * (room.tally.received - came) / (room.expected - due),
        "grown": grown / 1e6,
        "cut": float(await _count_cut(idlers)),
    }
    values["ratio"] = values["strain"] / values["calm"]
    if running.subject.mailbox:
        values["of_bound"] = grown / (few * running.subject.mailbox)

    stage.note(name, values | usage.shares(), room.problems())
    hang_up(idlers)
    room.leave()


async def _watch(running: Running, sizes: list[int]) -> None:
    while True:
        await asyncio.sleep(WATCH)
        sizes.append(running.process.resident())


async def _count_cut(idlers: list[Idler]) -> int:
    """Count who was cut off; a client that does not read sees it when it reads again."""
    for idler in idlers:
        idler.transport.resume_reading()

    await asyncio.sleep(2 * REST)
    return sum(idler.lost for idler in idlers)
