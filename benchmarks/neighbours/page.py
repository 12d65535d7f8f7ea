"""The section of RESULTS.md: made of the runs alone, no number is typed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.neighbours.quiet import DISTURBED
from benchmarks.neighbours.windows import ALL, ELSEWHERE, HERE, QUIET, Plan, Pooled
from benchmarks.peers.goals import spread
from benchmarks.peers.runs import Machine, Run, Section, Verdict, here
from server.load.delays import Delays
from server.load.report import number, plural

TITLE = "A tenant that asks for ten times its quotas"
MOST = 1.1
"""Times that the 99th percentile of the other tenant may grow."""
STATES = {
    QUIET: "nobody",
    ELSEWHERE: "at the second server",
    HERE: "at the same server",
}
COLUMNS = {
    "p50": "p50, us",
    "p99": "p99, us",
    "largest": "largest, us",
    "speech50": "transcripts p50, us",
    "server": "server, %",
    "left out": "left out, %",
}
RATIOS = ("p99 over all, us", "x nobody", "x second server")
DESCRIBED = {
    "storm": "connects with good tokens, 400 a second from two addresses, which have all the "
    "connections that they may",
    "strangers": "the same with wrong tokens",
    "publishes": "1,000 publishes a second over WebSockets",
    "granted": "100 publishes a second over HTTP, which is no more than is granted",
    "posts": "1,000 publishes a second over HTTP, one in 200 with a body of 1 MB",
    "large": "messages of 60 kB, 10 MB a second, and frames of 1 MB",
    "replays": "8 connections that join a room for 300 messages of 1.7 kB and leave it, "
    "as fast as they are answered",
    "stalled": "40 listeners that never read, and 1 MB a second for them",
    "joins": "joins of room after room, 5,000 a second",
    "sockets": "all of these at once, but those over HTTP",
    ALL: "all of these at once but the granted",
}


class Neighbours(Section, frozen=True):
    """The section, with what it was made of."""

    machine: Machine | None = None
    plan: Plan = Plan()
    runs: Sequence[Run] = ()


class Found:
    """What a run has found, by noise and state."""

    def __init__(self, runs: Sequence[Run], pooled: Pooled) -> None:
        self.runs = runs
        self.kinds = [kind for kind, state in pooled if state == HERE]
        merged = {key: Delays.merged(each) for key, each in pooled.items()}
        self.p99 = {key: delays.percentile(99) / 1e3 for key, delays in merged.items()}
        """The 99th percentile over all rounds, in microseconds."""

    def series(self, kind: str, state: str, key: str) -> list[float]:
        """Return a number of every window of a kind that has it."""
        chosen = [run for run in self.runs if (run.workload, run.subject) == (kind, state)]
        return [run.values[key] for run in chosen if key in run.values]

    def ratio(self, kind: str, state: str, base: tuple[str, str]) -> float:
        """Return how the 99th percentile is to that of another state, over all rounds."""
        return self.p99[kind, state] / self.p99[base]


def section(runs: Sequence[Run], pooled: Pooled, plan: Plan, at: str) -> Neighbours:
    """Make the section."""
    found, machine = Found(runs, pooled), here()
    pairs = [("", QUIET), *((kind, state) for kind in found.kinds for state in (ELSEWHERE, HERE))]
    rows = [_row(found, kind, state) for kind, state in pairs]
    text = "\n\n".join([_text(machine, plan, found.kinds, at), _notes(found)])
    columns = ["the loud tenant", "is", *COLUMNS.values(), *RATIOS]
    verdicts = [verdict for kind in found.kinds for verdict in _judge(found, kind)]
    verdicts.append(_whole(found))
    return Neighbours(TITLE, text, columns, rows, verdicts, machine, plan, runs)


def _row(found: Found, kind: str, state: str) -> list[str]:
    cells = [spread(found.series(kind, state, key)) for key in COLUMNS]
    pooled = [number(found.p99[kind, state])]
    if kind:
        pooled.append(number(found.ratio(kind, state, ("", QUIET))))

    if state == HERE:
        pooled.append(number(found.ratio(kind, state, (kind, ELSEWHERE))))

    return [kind, STATES[state], *cells, *pooled, *[""] * (len(RATIOS) - len(pooled))]


def _judge(found: Found, kind: str) -> Iterator[Verdict]:
    """Compare with no noise at all, and with the same noise for the client alone."""
    for base, name in ((("", QUIET), "nobody there"), ((kind, ELSEWHERE), "the noise elsewhere")):
        ratio = found.ratio(kind, HERE, base)
        text = f"{kind}: p99 of the quiet tenant at most {MOST:g} x that with {name}"
        yield Verdict(text, f"{number(ratio)} x", ratio <= MOST)


def _whole(found: Found) -> Verdict:
    wrong = [problem for run in found.runs for problem in run.problems]
    text = "nothing of the quiet tenant lost, twice or refused"
    return Verdict(text, ", ".join(wrong) or "nothing", not wrong)


def _text(machine: Machine, plan: Plan, kinds: Sequence[str], at: str) -> str:
    tenant = plan.tenant
    noises = "\n".join(f"- {kind}: {DESCRIBED[kind]}." for kind in kinds)
    return (
        f"`make bench-neighbours`, {at}: {machine.processor}, {machine.cores} cores, "
        f"{machine.kernel}, {machine.python}. One server with two tenants and the default quotas "
        f"has a core of its own. On the other core a quiet tenant has {tenant.rooms} rooms of "
        f"{tenant.listeners} listeners with {tenant.rate:g} messages a second each, and "
        f"{plural(tenant.speakers, 'speaker')} of the echo engine; it measures from each publish "
        "to each arrival. A loud tenant's process, on that core too, asks for ten times what it "
        "may, and yields to everything else (`SCHED_IDLE`). So that what this costs the client "
        "is not taken for the server's, the same noise is made at a second server too, which "
        "shares the client's core and yields as well. A message during which something else on "
        f"the machine kept server or client off its core for {1e6 * DISTURBED:g} us is left out. "
        f"Windows of {plan.seconds:g} s in turns, {plan.rounds} rounds: medians over the rounds "
        "with their range; the 99th percentile over all rounds, and what it is to that of other "
        f"rows.\n\n{noises}"
    )


def resolution(ratios: Sequence[float]) -> str:
    """Say how far apart the same thing was measured, with the noise elsewhere."""
    return (
        f"- With the noise elsewhere, where the server has nothing of it, the 99th percentile was "
        f"{number(min(ratios))} to {number(max(ratios))} times that with nobody there: what "
        "differs by less is not told apart, and a verdict may fall otherwise in the next run."
    )


def _notes(found: Found) -> str:
    ratios = [found.ratio(kind, ELSEWHERE, ("", QUIET)) for kind in found.kinds]
    lines = [resolution(ratios)]
    for kind in found.kinds:
        names = {key for run in found.runs if run.workload == kind for key in run.values}
        counts = {
            name.removeprefix("loud "): found.series(kind, HERE, name)
            for name in sorted(names)
            if name.startswith("loud ")
        }
        said = ", ".join(
            f"{number(statistics.median(each))} {name}" for name, each in counts.items() if each
        )
        lines.append(f"- {kind}, in a window: {said}.")

    return "\n".join(lines)
