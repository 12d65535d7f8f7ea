"""`python -m benchmarks [--quick] [--json FILE] [NAME ...]`: measure, print, and fail if wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import actors, audio, connects, fanout, flood, latency, memory, tokens
from benchmarks.report import Report, begin, head, table

BENCHMARKS: dict[str, Callable[[bool], Report]] = {
    "latency": lambda quick: latency.run(latency.QUICK if quick else latency.Plan()),
    "fanout": lambda quick: fanout.run(fanout.QUICK if quick else fanout.Plan()),
    "audio": lambda quick: audio.run(audio.QUICK if quick else audio.Plan()),
    "memory": lambda quick: memory.run(memory.QUICK if quick else memory.Plan()),
    "connects": lambda quick: connects.run(connects.QUICK if quick else connects.Plan()),
    "actors": lambda quick: actors.run(actors.QUICK if quick else actors.Plan()),
    "flood": lambda quick: flood.run(flood.QUICK if quick else flood.Plan()),
    "tokens": lambda quick: tokens.run(tokens.QUICK if quick else tokens.Plan()),
}


def main(arguments: list[str]) -> int:
    """Run the benchmarks and return the exit code: 1 if an event was lost, late or there twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the runs to a file too")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )

    everything = begin()
    print(head(everything), flush=True)
    for name in options.names or BENCHMARKS:
        began = time.monotonic()
        report = BENCHMARKS[name](options.quick)
        report.seconds = time.monotonic() - began
        everything.reports.append(report)
        print(table(report), flush=True)
        if options.json is not None:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(everything)))

    return 1 if everything.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
