"""`python -m tests.conformance limits|deflate`: the cases that are too long for every test run."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click
import msgspec

from tests.conformance.autobahn import NO_RUNNER, PASSED, RUNNER, SUITES, Run, Suite, run
from tests.protocols import PROTOCOLS
from tests.servers import ROOT, serving

RESULTS = {"limits": "autobahn.json", "deflate": "autobahn-deflate.json"}


@click.command()
@click.argument("name", type=click.Choice(list(RESULTS)))
def main(name: str) -> None:
    """Run a suite against every protocol of the server, and keep a summary."""
    if not RUNNER.exists():
        raise click.ClickException(NO_RUNNER)

    suite, folder = SUITES[name], Path(mkdtemp(prefix="autobahn-"))
    click.echo(f"{name}, with full reports in {folder}")
    runs = []
    for protocol, settings in PROTOCOLS.items():
        log = folder / f"{protocol}.log"
        with serving(log, engines__enabled="echo", **settings, **suite.settings) as server:
            (reports := folder / protocol).mkdir()
            runs.append(run(suite, protocol, server, reports))

        click.echo(str(runs[-1]))

    results = ROOT / "benchmarks" / "results" / RESULTS[name]
    results.parent.mkdir(exist_ok=True)
    results.write_bytes(msgspec.json.format(msgspec.json.encode(summary(name, suite, runs))))
    failures = [f"{each.protocol} {text}" for each in runs for text in each.failures(suite)]
    for failure in failures:
        click.echo(f"FAILED: {failure}", err=True)

    sys.exit(bool(failures))


def summary(name: str, suite: Suite, runs: list[Run]) -> dict[str, Any]:
    """Return what is worth keeping of the runs."""
    return {
        "title": f"Autobahn|Testsuite, cases {', '.join(suite.cases)}",
        "text": (
            f"`make conformance-{name}`, {time.strftime('%Y-%m-%d')}: the fuzzing client against"
            " `/v1/echo`. A case that the stock class fails is one of a message in more fragments"
            " than it takes."
        ),
        "columns": ["protocol", "cases", "passed", "failed", "seconds"],
        "rows": [row(each) for each in runs],
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "cases": suite.cases,
        "allowed": suite.allowed,
        "runs": [
            {
                "protocol": each.protocol,
                "seconds": round(each.seconds, 1),
                "counts": {word: len(cases) for word, cases in each.by_word().items()},
                "failures": each.failures(suite),
                "verdicts": {case: verdict.word for case, verdict in each.cases.items()},
                "ms": {case: verdict.duration for case, verdict in each.cases.items()},
            }
            for each in runs
        ],
    }


def row(run: Run) -> list[str]:
    """Return the line of a table: how many cases passed, and which did not."""
    failed = [case for case, verdict in run.cases.items() if verdict.word not in PASSED]
    passed = str(len(run.cases) - len(failed))
    return [run.protocol, str(len(run.cases)), passed, " ".join(failed), f"{run.seconds:.0f}"]


def versions() -> dict[str, str]:
    """Return the versions of what was tested, and of what tested it."""
    names = subprocess.run([RUNNER, "-a"], capture_output=True, text=True, check=True).stdout
    return {
        **dict(line.split() for line in names.splitlines()),
        **{name: version(name) for name in ("roomcast", "uvicorn", "websockets")},
        platform.python_implementation(): platform.python_version(),
    }


if __name__ == "__main__":
    main()
