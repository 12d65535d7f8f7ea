"""One subject's turn: some speakers through it, measured from the moment at which all speak."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from benchmarks.peers.process import Running, Stretch, measured
from benchmarks.peers.runs import Run, Values
from benchmarks.relay.client import Choir
from benchmarks.relay.subjects import Double, Relay
from server.load.sockets import hang_up
from server.load.usage import Process

SETTLE = 400
"""Milliseconds from the last speaker's begin until anything is measured."""
LAST_WITHIN = 3.0
"""Seconds from the last frame in which the last final must come."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    rounds: int = 5
    speakers: tuple[int, ...] = (50, 200)
    """The first number is one that every subject keeps up with; the last is the crowd."""
    stagger: int = 1000
    """Milliseconds over which they begin."""
    seconds: float = 6.0
    """Seconds for which all speak and are measured; a whole number of fifths."""


QUICK = Plan(rounds=1, speakers=(20,), seconds=1.0)


def workload(speakers: int) -> str:
    """Name the workload of so many speakers."""
    return f"relay-{speakers}"


async def take_turn(running: Running, double: Double, speakers: int, plan: Plan) -> Run:
    """Relay the audio of some speakers. Raises Broken, OSError or TimeoutError."""
    choir = Choir(speakers, plan.stagger)
    await choir.open(running.target)
    with ExitStack() as ending:
        ending.callback(hang_up, choir.speakers)
        begin, length = plan.stagger + SETTLE, round(plan.seconds * 1000)
        choir.measure(range(begin, begin + length))
        choir.metronome.start()
        ending.callback(choir.metronome.stop)
        await choir.metronome.until(begin)
        relayed = choir.heard()
        helper = Process(double.pid) if isinstance(running.subject, Relay) else None
        with measured(running, helper) as stretch:
            await choir.metronome.until(begin + length)

        relayed = choir.heard() - relayed
        await choir.end(LAST_WITHIN)

    values = _values(choir, stretch, relayed, direct=helper is None)
    found = choir.audit()
    values["lost"] = float(found["bytes lost"])
    problems = [f"{count:,} {what}" for what, count in sorted(found.items())]
    return Run(workload(speakers), running.subject.name, 0, values, problems)


def _values(choir: Choir, stretch: Stretch, relayed: int, direct: bool) -> Values:
    """Put together what was measured; without a relay the subject is the double itself."""
    wall, shares = stretch.used.wall, stretch.shares()
    values = {"rate": relayed / wall}
    if direct:
        shares["double"] = shares.pop("server")
    else:
        shares["double"] = 100 * stretch.helper / wall
        values["cost"] = stretch.used.server / max(1, relayed) * 1e6

    if choir.delays:
        values |= {f"p{each}": choir.delays.percentile(each) / 1e6 for each in (50, 90, 99)}
        values["largest"] = choir.delays.percentile(100) / 1e6

    return values | shares
