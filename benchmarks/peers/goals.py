"""Targets: what a median, or its ratio to another subject's in the same round, must not miss."""

from __future__ import annotations

import statistics

import msgspec

from benchmarks.peers.runs import Everything, Verdict
from server.load.report import number


class Goal(msgspec.Struct, frozen=True):
    """One bound on what was measured of Roomcast."""

    key: str
    limit: float
    unit: str = ""
    base: str = ""
    """The subject that it is a ratio to; without one it is an absolute bound."""
    at_most: bool = True


class Target(msgspec.Struct, frozen=True):
    """Bounds of which one must be kept."""

    what: str
    goals: tuple[Goal, ...]


def target(what: str, *goals: Goal) -> Target:
    """Make a target."""
    return Target(what, goals)


def series(everything: Everything, workload: str, subject: str, key: str) -> list[float]:
    """Return a number of a subject in every round that has it."""
    return [run.values[key] for run in everything.of(workload, subject) if key in run.values]


def ratios(everything: Everything, workload: str, pair: tuple[str, str], key: str) -> list[float]:
    """Return the ratio of a subject to another, round by round."""
    ours, theirs = (
        {run.round: run.values.get(key, 0.0) for run in everything.of(workload, name)}
        for name in pair
    )
    return [ours[each] / theirs[each] for each in sorted(ours) if theirs.get(each, 0.0) > 0]


def judge(everything: Everything, workload: str, wanted: Target, subject: str) -> Verdict:
    """Say what became of a target."""
    labels = {facts.name: facts.label for facts in everything.subjects}
    bounds: list[str] = []
    found: list[str] = []
    met: bool | None = None
    for goal in wanted.goals:
        unit = f"x {labels.get(goal.base, goal.base)}" if goal.base else goal.unit
        bounds.append(f"{'at most' if goal.at_most else 'at least'} {goal.limit:,g} {unit}".strip())
        values = (
            ratios(everything, workload, (subject, goal.base), goal.key)
            if goal.base
            else series(everything, workload, subject, goal.key)
        )
        if values:
            median = statistics.median(values)
            found.append(f"{spread(values)} {unit}".strip())
            met = bool(met) or (median <= goal.limit if goal.at_most else median >= goal.limit)

    text = f"{wanted.what}: {' or '.join(bounds)}"
    return Verdict(text, "; ".join(found) or "not measured", met)


def spread(values: list[float]) -> str:
    """Return the median, and the range if there is more than one value."""
    if not values:
        return ""

    median = number(statistics.median(values))
    if len(values) == 1:
        return median

    return f"{median} [{number(min(values))}-{number(max(values))}]"
