"""The section of RESULTS.md: made of the runs alone, no number is typed."""

from __future__ import annotations

from benchmarks.peers.goals import Goal, judge, ratios, series, spread, target
from benchmarks.peers.runs import Everything, Section, Verdict
from benchmarks.relay.tape import FRAME_BYTES, PACE_MS, PARTIAL
from benchmarks.relay.turn import Plan, workload
from server.load.report import LOADED, number, plural

TITLE = "Relaying to a speech engine"
OURS, BRIDGE, DIRECT = "lean", "bridge", "direct"
COLUMNS = {
    "cost": "CPU a frame, us",
    "x": "x plain bridge",
    "p50": "delay p50, ms",
    "p99": "p99, ms",
    "largest": "largest, ms",
    "added50": "added p50, ms",
    "added99": "added p99, ms",
    "rate": "frames/s",
    "server": "server, %",
    "load": "load, %",
    "double": "double, %",
}
DISTURBED = 5.0
"""Per cent of a core that others may use before it is worth a note."""


class Relayed(Section, frozen=True):
    """The section, with what it was made of."""

    everything: Everything | None = None
    plan: Plan = Plan()


def section(everything: Everything, plan: Plan, at: str) -> Relayed:
    """Make the section."""
    _add_differences(everything)
    rows = [
        _row(everything, speakers, facts.name, facts.label)
        for speakers in plan.speakers
        for facts in everything.subjects
        if everything.of(workload(speakers), facts.name)
    ]
    columns = ["speakers", "relay", *COLUMNS.values()]
    text = "\n\n".join([_text(everything, plan, at), *_notes(everything)])
    return Relayed(TITLE, text, columns, rows, _verdicts(everything, plan), everything, plan)


def _add_differences(everything: Everything) -> None:
    """Add to each run what its delays are more than those of the direct connection's run."""
    for run in everything.runs:
        direct = [
            each.values
            for each in everything.of(run.workload, DIRECT)
            if each.round == run.round and each is not run
        ]
        for percent in ("50", "99"):
            key = f"p{percent}"
            if direct and key in run.values and key in direct[0]:
                run.values[f"added{percent}"] = run.values[key] - direct[0][key]


def _row(everything: Everything, speakers: int, subject: str, label: str) -> list[str]:
    name = workload(speakers)
    cells = {key: series(everything, name, subject, key) for key in COLUMNS}
    if cells["cost"]:
        cells["x"] = ratios(everything, name, (subject, BRIDGE), "cost")

    return [str(speakers), label, *(spread(cells[key]) for key in COLUMNS)]


def _verdicts(everything: Everything, plan: Plan) -> list[Verdict]:
    few, crowd = plan.speakers[0], plan.speakers[-1]
    wanted = [
        (few, target(f"{few} speakers, CPU a frame", Goal("cost", 60, "us"))),
        (few, target(f"{few} speakers, CPU a frame", Goal("cost", 0.7, base=BRIDGE))),
        (few, target(f"{few} speakers, added delay p50", Goal("added50", 1, base=BRIDGE))),
        (few, target(f"{few} speakers, added delay p99", Goal("added99", 1, base=BRIDGE))),
        (crowd, target(f"{crowd} speakers, delay p99", Goal("p99", PACE_MS, "ms, one frame"))),
    ]
    judged = [judge(everything, workload(speakers), each, OURS) for speakers, each in wanted]
    return [*judged, _whole(everything)]


def _whole(everything: Everything) -> Verdict:
    """Judge every run, not their median: what is lost once is lost."""
    text = "no byte lost, no final missing or there twice, in any run"
    ours = [run for run in everything.runs if run.subject == OURS]
    if not ours:
        return Verdict(text, "not measured", None)

    wrong = sum(bool(run.problems) for run in ours)
    return Verdict(text, f"wrong in {wrong} of {plural(len(ours), 'run')}", not wrong)


def _text(everything: Everything, plan: Plan, at: str) -> str:
    machine = everything.machine
    rounds = f"{plan.rounds} round{'s' * (plan.rounds > 1)} in turns"
    ways = "\n".join(
        f"- {each.label}: {each.about}; {each.version}." for each in everything.subjects
    )
    return (
        f"`make bench-relay`, {at}: {machine.processor}, {machine.cores} cores, {machine.kernel}, "
        f"{machine.python}. Speakers of Rev.ai's protocol send {1000 // PACE_MS} frames of "
        f"{FRAME_BYTES} bytes a second each through a relay to a double of Rev.ai, which answers "
        f"at once: a result after every {PARTIAL} frames, a final a second. The relay has a core "
        "of its own; the speakers and the double share the other, in the direct connection too. "
        "The delay goes from the moment at which a frame should have been sent, whether the relay "
        "kept up or not, to the result that it caused; the added delay is what that is more than "
        f"the direct connection's in the same round. CPU is all that the relay's process used, "
        f"over the frames that came through, results and idling included. {plan.seconds:g} s with "
        f"all speakers, {rounds}. The double checks every byte of the audio, the speakers every "
        f"final.\n\n{ways}"
    )


def _notes(everything: Everything) -> list[str]:
    """Say what a reader has to know about the rows."""
    labels = {facts.name: facts.label for facts in everything.subjects}
    notes = []
    for run in everything.runs:
        where = f"{labels[run.subject]}, {run.workload.rpartition('-')[2]} speakers, round"
        if run.problems:
            notes.append(f"- {where} {run.round + 1}: {', '.join(run.problems)}.")

        busy = run.values.get("load", 0) + run.values.get("double", 0)
        if busy > LOADED and run.values.get("server", 0) < LOADED:
            notes.append(f"- {where} {run.round + 1}: the load was the bottleneck.")

        if (others := run.values.get("others", 0)) > DISTURBED:
            text = f"other processes used {number(others)} % of a core"
            notes.append(f"- {where} {run.round + 1}: {text}.")

    return ["\n".join(notes)] if notes else []
