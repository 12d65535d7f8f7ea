"""`python -m benchmarks.neighbours`: measure what a quiet tenant notices of a loud one.

With `--quick` or `--only` the section is printed and nothing is written.
"""

from __future__ import annotations

import argparse
import sys

import msgspec
import uvloop

from benchmarks.neighbours.page import Neighbours, section
from benchmarks.neighbours.stage import standing
from benchmarks.neighbours.windows import EVERY, Plan, Windows
from benchmarks.peers import __main__ as peers
from benchmarks.peers import runs
from benchmarks.peers.render import render, render_section

RESULT = peers.SECTIONS / "neighbours.json"


def main(arguments: list[str]) -> int:
    """Carry out the command and return the exit code: 1 if the quiet tenant missed anything."""
    options = _parse(arguments)
    plan = Plan(rounds=1 if options.quick else options.rounds)
    found = measure(plan, options.only or EVERY)
    if options.quick or options.only:
        print(render_section(found))
    else:
        RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        page = render(runs.read(peers.RUNS), runs.read_sections(peers.SECTIONS))
        peers.PAGE.write_text(page)
        print(f"{render_section(found)}\n\nwrote {RESULT} and {peers.PAGE}")

    return 1 if any(run.problems for run in found.runs) else 0


def measure(plan: Plan, kinds: tuple[str, ...]) -> Neighbours:
    """Take all windows."""
    at = runs.now()
    with standing() as stage:
        windows = Windows(stage, plan)
        uvloop.run(windows.take(kinds))

    return section(windows.runs, windows.pooled, plan, at)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument(
        "--rounds", type=int, default=Plan().rounds, metavar="N", help="more for less scatter"
    )
    parser.add_argument(
        "--only", nargs="+", choices=EVERY, metavar="NOISE", help=f"some of {', '.join(EVERY)}"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
