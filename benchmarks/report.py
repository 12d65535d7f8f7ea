"""What was measured: medians over runs, printed as a table or kept as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.machine import CORES, LOAD_CORE, SERVER_CORE
from server import __version__
from server.load.delays import Delays
from server.load.report import LOADED, number
from server.load.usage import Usage

DISTURBED = 0.02
"""Share of the time kept off its core above which the server was not measured in peace."""


class Row(msgspec.Struct, frozen=True):
    """One measure."""

    measure: str
    unit: str
    median: float
    runs: list[float]


class Report(msgspec.Struct):
    """What one benchmark found."""

    benchmark: str
    rows: list[Row] = []
    problems: list[str] = []
    """Events lost, out of order, twice or cut off: the numbers are worth nothing."""
    notes: list[str] = []
    load_average: float = msgspec.field(default_factory=lambda: os.getloadavg()[0])
    """Load average of the machine when the benchmark began."""
    seconds: float = 0.0
    """Seconds that the benchmark took."""

    def add(self, measure: str, unit: str, runs: Sequence[float]) -> None:
        """Add a measure with one value for each run."""
        if runs:
            self.rows.append(Row(measure, unit, statistics.median(runs), list(runs)))

    def add_delays(self, measure: str, delays: Sequence[Delays]) -> None:
        """Add the median and the 99th percentile of the delays of each run."""
        for percent in (50, 99):
            runs = [run.percentile(percent) / 1000 for run in delays]
            self.add(f"{measure}, p{percent}", "us", runs)

    def add_usage(self, measure: str, usages: Sequence[Usage]) -> None:
        """Add how busy the server and the load were."""
        self.add(f"{measure}, server", "% of a core", [each.server_share for each in usages])
        self.add(f"{measure}, load", "% of a core", [each.load_share for each in usages])
        if any(each.load_share > LOADED for each in usages):
            self.notes.append(f"{measure}: the load was the bottleneck, not the server")

        self.add_disturbance(measure, usages)

    def add_disturbance(self, measure: str, usages: Sequence[Usage]) -> None:
        """Note when something else on the machine took the server's core."""
        shares = [each.waited / each.wall for each in usages]
        if any(share > DISTURBED for share in shares):
            most = 100 * max(shares)
            self.notes.append(f"{measure}: the server was kept off its core up to {most:.0f} %")

    def check(self, what: str, problems: Sequence[str]) -> None:
        """Note what a check found."""
        self.problems += [f"{what}: {problem}" for problem in problems]

    def check_counts(self, what: str, found: Mapping[str, int]) -> None:
        """Note how often things happened that should not."""
        self.check(what, [f"{count} {problem}" for problem, count in found.items() if count])


class Everything(msgspec.Struct):
    """A whole run of `python -m benchmarks`."""

    at: str
    version: str
    python: str
    machine: str
    cores: int
    reports: list[Report] = []

    @property
    def problems(self) -> list[str]:
        """Whatever makes the run fail."""
        return [f"{each.benchmark}: {text}" for each in self.reports for text in each.problems]


def begin() -> Everything:
    """Note where and when the run takes place."""
    return Everything(
        at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        version=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        machine=f"{platform.system()} {platform.machine()}, {processor()}",
        cores=len(CORES),
    )


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def placement() -> str:
    """Say which core carried what."""
    if SERVER_CORE == LOAD_CORE:
        return f"server and load share core {SERVER_CORE}: latencies include the load's own work"

    return f"server on core {SERVER_CORE}, load on core {LOAD_CORE}"


def head(run: Everything) -> str:
    """Return the lines above the table."""
    return (
        f"roomcast {run.version}, {run.python}, {run.machine}, cores: {run.cores}, {run.at}\n"
        f"{placement()}"
    )


def table(report: Report) -> str:
    """Return the rows of one benchmark for people: the median, and the range of its runs."""
    lines = [
        f"\n{report.benchmark}   ({report.seconds:.0f} s, load average {report.load_average:.1f})"
    ]
    for row in report.rows:
        low, high = min(row.runs), max(row.runs)
        spread = f"{number(low)} - {number(high)}" if len(row.runs) > 1 else ""
        lines.append(f"  {row.measure:<46} {number(row.median):>10} {row.unit:<14} {spread}")

    lines += [f"  note: {note}" for note in report.notes]
    lines += [f"  VIOLATION: {problem}" for problem in report.problems]
    return "\n".join(lines)
