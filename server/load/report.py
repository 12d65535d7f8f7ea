"""What a run found: a table for people at 80 columns, or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from server.load.delays import Delays
from server.load.usage import Usage

LOADED = 90.0
"""Per cent of a core above which the load is the bottleneck."""
PERCENTS = {"p50": 50, "p99": 99, "max": 100}
WIDTH = 80
LABEL, VALUE = 20, 12
"""Columns of a label, and of a number that stands at their right end."""


class Plan(Protocol):
    """What a run should do; as text, it says so."""

    promise: ClassVar[str]
    """What is so if all went well."""


class Report(msgspec.Struct):
    """What one run found."""

    bench: str
    url: str
    plan: Plan
    seconds: float = 0.0
    """Seconds that were measured."""
    interrupted: bool = False
    """Whether it was stopped before its end."""
    numbers: dict[str, Any] = {}
    """What a program wants to know."""
    rows: list[tuple[str, float, str, str]] = []
    """What people want to know: label, number, unit, and of what."""
    spans: list[tuple[str, list[float]]] = []
    """Labels, and percentiles in nanoseconds."""
    notes: list[str] = []
    problems: list[str] = []
    """What was lost, late, twice or refused: the run has failed."""

    def add(self, key: str, value: float, label: str, unit: str, detail: str = "") -> None:
        """Add a number."""
        self.numbers[key] = round(value, 3)
        self.rows.append((label, value, unit, detail))

    def add_counts(self, key: str, label: str, counts: Mapping[str, int]) -> None:
        """Add how often things of some kind happened."""
        self.numbers[key] = dict(counts)
        for what, count in sorted(counts.items()):
            self.rows.append((label, count, "", what))
            label = ""

    def fail(self, counts: Mapping[str, int]) -> None:
        """Add what went wrong, and how often; what did not is left out."""
        self.problems += [f"{count:,} {what}" for what, count in counts.items() if count]

    def add_delays(self, key: str, delays: Delays, label: str) -> None:
        """Add percentiles, if there is anything that has them."""
        if len(delays):
            spans = [delays.percentile(percent) for percent in PERCENTS.values()]
            rounded = [round(span / 1000, 1) for span in spans]
            self.numbers[f"{key}_us"] = dict(zip(PERCENTS, rounded, strict=True))
            self.spans.append((label, spans))

    def add_usage(self, usage: Usage, count: int, what: str) -> None:
        """Add what the server, if it is known, and the load used for so many of something."""
        self.seconds = usage.wall
        if usage.server:
            cost = 1e6 * usage.server / max(1, count)
            self.add(f"server_us_per_{what}", cost, "server CPU", "us", f"for a {what}")
            self.add("server_percent", usage.server_share, "", "%", "of a core")

        self.add(
            "load_percent", usage.load_share, "load CPU", "%", "of a core, used by this command"
        )
        if usage.load_share > LOADED:
            self.notes.append("the load was the bottleneck, not the server")


def to_builtins(report: Report) -> dict[str, Any]:
    """Return what a program wants of a report."""
    return {
        "bench": report.bench,
        "url": report.url,
        "plan": report.plan,
        "seconds": round(report.seconds, 3),
        "interrupted": report.interrupted,
        **report.numbers,
        "notes": report.notes,
        "problems": report.problems,
    }


def table(report: Report) -> list[str]:
    """Return the lines of a report for people."""
    lines = _wrap(report.bench, str(report.plan), " " * (len(report.bench) + 2))
    stopped = ", then stopped" if report.interrupted else ""
    lines += [f"{report.url}, {report.seconds:.1f} s{stopped}"]
    lines += [""] if report.rows else []
    for label, value, unit, detail in report.rows:
        lines.append(f"  {label:<{LABEL}}{number(value):>{VALUE}} {unit:<4} {detail}".rstrip())

    if report.spans:
        lines += ["", " " * (LABEL + 2) + "".join(f"{name:>{VALUE}}" for name in PERCENTS)]

    for label, spans in report.spans:
        lines.append(f"  {label:<{LABEL}}" + "".join(f"{span(each):>{VALUE}}" for each in spans))

    lines.append("")
    for note in report.notes:
        lines += _wrap("  note", note, "    ")

    for problem in report.problems:
        lines += _wrap("  FAILED", problem, "    ")

    if report.interrupted and not report.problems:
        lines.append("  stopped: nothing was wrong until then")
    elif not report.problems:
        lines += _wrap("  ok", report.plan.promise, "    ")

    return lines


def _wrap(head: str, text: str, indent: str) -> list[str]:
    return textwrap.wrap(f"{head}: {text}", WIDTH, subsequent_indent=indent)


def number(value: float) -> str:
    """Return a number with as many decimals as are worth showing."""
    places = 0 if abs(value) >= 100 or isinstance(value, int) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"


def span(nanoseconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, size in (("us", 1e3), ("ms", 1e6)):
        if nanoseconds < 1000 * size:
            return f"{number(nanoseconds / size)} {unit}"

    return f"{number(nanoseconds / 1e9)} s "


def plural(count: int, what: str) -> str:
    """Count something in words."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
