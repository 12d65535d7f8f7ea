"""`python -m benchmarks.peers`: measure in turns, and write benchmarks/RESULTS.md.

A run of everything writes RESULTS.md and, beside it, RESULTS.json with all its runs; with `--only`
the tables are printed and nothing is written but the file of `--json`.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.peers import runs
from benchmarks.peers.catalogue import SUBJECTS, TURNS, Turn
from benchmarks.peers.process import started
from benchmarks.peers.render import render
from benchmarks.peers.runs import QUICK, Everything, Facts, Plan, Run, Values
from benchmarks.peers.stage import Notes, Stage
from benchmarks.peers.subject import Subject
from server.load.sockets import Broken

FOLDER = Path(__file__).parents[1]
PAGE, RUNS, SECTIONS = FOLDER / "RESULTS.md", FOLDER / "RESULTS.json", FOLDER / "results"
WITHIN = 150.0
"""Seconds for one turn of one subject."""
WORKLOADS = [name for turn in TURNS for name in turn.workloads]


def main(arguments: list[str]) -> int:
    """Carry out the command and return the exit code: 1 if Roomcast lost or broke anything."""
    options = _parse(arguments)
    if options.render:
        everything = runs.read(options.render[0])
        for later in options.render[1:]:
            everything.update(runs.read(later))
    else:
        everything = measure(QUICK if options.quick else Plan(), set(options.only), options.json)

    page = render(everything, runs.read_sections(SECTIONS))
    if options.only:
        print(page)
    else:
        PAGE.write_text(page)
        runs.write(everything, RUNS)
        print(f"wrote {PAGE} and {RUNS}")

    broken = [run for run in everything.runs if run.problems and run.subject in ("lean", "stock")]
    return 1 if broken else 0


def measure(plan: Plan, only: set[str], keep: Path | None) -> Everything:
    """Give every subject its turns; keep what there is after each kind of turn."""
    names = only.intersection(each.name for each in SUBJECTS)
    subjects = [each for each in SUBJECTS if not names or each.name in names]
    wanted = only.intersection(WORKLOADS) or set(WORKLOADS)
    everything = Everything(runs.here(), plan, subjects=[_facts(each) for each in subjects])
    there = [each for each in subjects if not each.missing()]
    for turn in TURNS:
        chosen = wanted.intersection(turn.workloads)
        if chosen:
            everything.at |= dict.fromkeys(chosen, runs.now())
            _take_turns(turn, there, chosen, everything)
            if keep is not None:
                runs.write(everything, keep)

    return everything


def _take_turns(
    turn: Turn, subjects: list[Subject], wanted: set[str], everything: Everything
) -> None:
    for number in range(min(turn.rounds, everything.plan.rounds)):
        for subject in subjects:
            if subject.name not in turn.subjects:
                continue

            began = time.monotonic()
            for name, (values, problems) in _one_turn(turn, subject, wanted, everything.plan):
                everything.runs.append(Run(name, subject.name, number, values, problems))

            took = f"{time.monotonic() - began:.0f} s"
            print(
                f"round {number + 1}: {', '.join(sorted(wanted))}, {subject.name}, {took}",
                flush=True,
            )


def _one_turn(
    turn: Turn, subject: Subject, wanted: set[str], plan: Plan
) -> list[tuple[str, tuple[Values, list[str]]]]:
    notes: Notes = {}
    try:
        with started(subject) as running:
            work = turn.run(Stage(running, plan, wanted, notes))
            uvloop.run(asyncio.wait_for(work, WITHIN))
    except* (Broken, OSError, subprocess.SubprocessError) as broken:
        problem = f"it broke off: {broken.exceptions[0]!r}"
        notes |= {name: ({}, [problem]) for name in wanted - notes.keys()}

    return sorted(notes.items())


def _facts(subject: Subject) -> Facts:
    missing = subject.missing()
    version = "" if missing else subject.version()
    return Facts(subject.name, subject.label, subject.about, version, missing)


def _parse(arguments: list[str]) -> argparse.Namespace:
    names = [*WORKLOADS, *(each.name for each in SUBJECTS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=names,
        metavar="NAME",
        help=f"workloads and subjects: {', '.join(names)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the runs in a file")
    parser.add_argument(
        "--render",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing; make the page of these runs, a later file's in place of the same",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
