"""`python -m benchmarks.relay`: measure relays in turns, and put the result into RESULTS.md.

With `--quick` or `--only` the section is printed and nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import msgspec
import uvloop

from benchmarks.peers import __main__ as peers
from benchmarks.peers import runs
from benchmarks.peers.render import render, render_section
from benchmarks.peers.runs import Everything, Facts, Run
from benchmarks.peers.subject import Subject
from benchmarks.relay.page import BRIDGE, DIRECT, OURS, Relayed, section
from benchmarks.relay.subjects import Bridge, Direct, Double, Lean, Pipe, Stock, doubling, standing
from benchmarks.relay.turn import QUICK, Plan, take_turn, workload
from server.load.sockets import Broken

RESULT = peers.SECTIONS / "relay.json"
USUAL = (DIRECT, "pipe", BRIDGE, OURS)
NAMES = (*USUAL, "stock")
BESIDES = 25.0
"""Seconds that a turn may take beside the speaking."""


def main(arguments: list[str]) -> int:
    """Carry out the command and return the exit code: 1 if Roomcast lost or broke anything."""
    options = _parse(arguments)
    plan = QUICK if options.quick else Plan()
    found = measure(plan, options.only or USUAL)
    if options.quick or options.only:
        print(render_section(found))
    else:
        RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        page = render(runs.read(peers.RUNS), runs.read_sections(peers.SECTIONS))
        peers.PAGE.write_text(page)
        print(f"{render_section(found)}\n\nwrote {RESULT} and {peers.PAGE}")

    assert found.everything is not None
    broken = [run for run in found.everything.runs if run.problems and run.subject != BRIDGE]
    return 1 if broken else 0


def measure(plan: Plan, names: Sequence[str]) -> Relayed:
    """Give every subject its turns."""
    at = runs.now()
    with doubling() as double:
        every: list[Subject] = [Direct(), *(make(double) for make in (Pipe, Bridge, Lean, Stock))]
        subjects = [each for each in every if each.name in names]
        facts = [Facts(each.name, each.label, each.about, each.version()) for each in subjects]
        everything = Everything(runs.here(), runs.Plan(), {"relay": at}, facts)
        for number in range(plan.rounds):
            for subject in subjects if number % 2 == 0 else subjects[::-1]:
                everything.runs += _turns(subject, double, plan, number)

    return section(everything, plan, at)


def _turns(subject: Subject, double: Double, plan: Plan, number: int) -> list[Run]:
    began, found = time.monotonic(), list[Run]()
    left = list(plan.speakers)
    try:
        with standing(subject, double) as running:
            while left:
                turn = take_turn(running, double, left[0], plan)
                run = uvloop.run(asyncio.wait_for(turn, plan.seconds + BESIDES))
                found.append(msgspec.structs.replace(run, round=number))
                del left[0]
    except (Broken, OSError) as broken:
        problem = f"it broke off: {broken!r}"
        found += [Run(workload(each), subject.name, number, {}, [problem]) for each in left]

    took = f"{time.monotonic() - began:.0f} s"
    print(f"round {number + 1}: {subject.name}, {took}", file=sys.stderr, flush=True)
    return found


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of few speakers")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NAMES,
        metavar="NAME",
        help=f"some of {', '.join(NAMES)}",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
