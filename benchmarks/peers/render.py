"""RESULTS.md from a file of runs: the same runs make the same text, and no number is typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.peers.catalogue import OURS, SUBJECTS, Workload, catalogue
from benchmarks.peers.goals import judge, ratios, series, spread
from benchmarks.peers.runs import Everything, Facts, Machine, Plan, Section, Verdict
from server.load.report import LOADED

IDLE = 95.0
"""Per cent of its core below which a server could have done more."""
DISTURBED = 5.0
"""Per cent of a core that others may use before it is worth a note."""
COMMANDS = """\
make bench-peers                                   # everything; writes this page
make bench-peers ARGS="--quick"                    # one short round
make bench-peers ARGS="--only paced lean floor"    # some workloads, some subjects; prints only
make bench-peers ARGS="--render benchmarks/RESULTS.json"   # this page again, from the runs"""


def render(everything: Everything, sections: Sequence[Section] = ()) -> str:
    """Return the whole page."""
    done = [each for each in catalogue(everything.plan) if each.name in everything.at]
    verdicts = {
        each.name: [judge(everything, each.name, target, OURS) for target in each.targets]
        for each in done
    }
    parts = [
        "# Roomcast beside other servers",
        _introduction(everything),
        _summary(done, verdicts, sections),
        _subjects(everything.subjects),
        *(_workload(everything, each, verdicts[each.name]) for each in done),
        *map(render_section, sections),
        _method(everything),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(everything: Everything) -> str:
    machine, plan = everything.machine, everything.plan
    took_part = sum(not facts.missing for facts in everything.subjects)
    quick = (
        "\n\n**This was a quick run: too short, and in part too small, to conclude anything from.**"
        if plan != Plan()
        else ""
    )
    return (
        f"{took_part} servers on one machine, one at a time: the server on one core, the load on "
        f"another, over the loopback interface. The servers take turns in every round "
        f"({_rounds(plan)}), so that a drift of the machine meets all of them. Figures are medians "
        "over the rounds, with their range in brackets; ratios are made within a round.\n\n"
        f"{_machine(machine)} Measured {min(everything.at.values(), default='never')} to "
        f"{max(everything.at.values(), default='never')}.{quick}"
    )


def _machine(machine: Machine) -> str:
    return (
        f"Machine: {machine.processor}, {machine.cores} cores, "
        f"{machine.memory / 2**30:.0f} GiB, {machine.kernel}; the load runs on {machine.python}."
    )


def _rounds(plan: Plan) -> str:
    return "1 round" if plan.rounds == 1 else f"up to {plan.rounds} rounds"


def _summary(
    done: list[Workload], verdicts: dict[str, list[Verdict]], sections: Sequence[Section]
) -> str:
    named = [(each.title, verdict) for each in done for verdict in verdicts[each.name]]
    named += [(each.title, verdict) for each in sections for verdict in each.targets]
    if not named:
        return ""

    rows = [[title, verdict.target, verdict.measured, _word(verdict)] for title, verdict in named]
    met = sum(verdict.met is True for _, verdict in named)
    missed = sum(verdict.met is False for _, verdict in named)
    text = f"{met} met, {missed} missed, {len(named) - met - missed} not measured."
    heads = ["workload", "target", "measured", "verdict"]
    return f"## Targets\n\n{text}\n\n{table(heads, rows)}"


def _subjects(subjects: list[Facts]) -> str:
    ways = {each.name: each.about for each in SUBJECTS}
    here = [each for each in subjects if not each.missing]
    rows = [[each.label, each.version, ways.get(each.name, each.about)] for each in here]
    away = [
        f"- {each.label} did not take part: {each.missing}." for each in subjects if each.missing
    ]
    parts = ["## Who takes part", table(["server", "version", "how it is run"], rows)]
    return "\n\n".join([*parts, "\n".join(away)] if away else parts)


def _workload(everything: Everything, workload: Workload, verdicts: list[Verdict]) -> str:
    labels = {facts.name: facts.label for facts in everything.subjects}
    taking = [name for name in labels if everything.of(workload.name, name)]
    bases = [name for name in workload.bases if name in taking]
    main = next(iter(workload.columns))
    others = [key for key in workload.columns if key != main]
    heads = ["server", workload.columns[main], *(f"x {labels[base]}" for base in bases)]
    heads += [workload.columns[key] for key in others]
    rows = [
        [
            labels[name],
            spread(series(everything, workload.name, name, main)),
            *(spread(ratios(everything, workload.name, (name, base), main)) for base in bases),
            *(spread(series(everything, workload.name, name, key)) for key in others),
        ]
        for name in taking
    ]
    parts = [f"## {workload.title}", workload.text, table(heads, rows)]
    notes = [f"- {note}" for note in _notes(everything, workload.name, labels)]
    if notes:
        parts.append("\n".join(notes))

    return "\n\n".join([*parts, _verdicts(verdicts)])


def _notes(everything: Everything, workload: str, labels: dict[str, str]) -> Iterable[str]:
    """Yield what a reader has to know about the rows of a workload."""
    bound: list[str] = []
    disturbed: list[str] = []
    for name, label in labels.items():
        found = everything.of(workload, name)
        for run in found:
            if run.problems:
                yield f"{label}: in round {run.round + 1}, {', '.join(run.problems)}."

        values = [run.values for run in found]
        if any(each.get("load", 0) > LOADED and each.get("server", 0) < IDLE for each in values):
            bound.append(label)

        others = max((each.get("others", 0) for each in values), default=0)
        if others > DISTURBED:
            disturbed.append(f"{label} {others:.0f} %")

    if bound:
        yield (
            f"The load was busy more than {LOADED:g} % of the time, and the server was not: "
            f"{', '.join(bound)}."
        )

    if disturbed:
        yield f"Other processes used the two cores meanwhile, at most: {', '.join(disturbed)}."


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""

    rows = [[each.target, each.measured, _word(each)] for each in verdicts]
    return table(["target", "measured", "verdict"], rows)


def _word(verdict: Verdict) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[verdict.met]


def render_section(section: Section) -> str:
    """Return one section of other programs."""
    parts = [f"## {section.title}", section.text]
    if section.rows:
        parts.append(table(section.columns, section.rows))

    return "\n\n".join(part for part in [*parts, _verdicts(section.targets)] if part)


def _method(everything: Everything) -> str:
    dates = [f"- {name}: {at}" for name, at in sorted(everything.at.items())]
    return "\n\n".join(
        [
            "## How it is measured",
            "CPU is what the kernel counts for all threads of the server's process "
            "(`/proc/PID/task/*/schedstat`; for nginx its worker's), user and system time "
            "together, so it contains the work of sending over the loopback interface. Payloads "
            "carry a number and a time; every listener checks each of them for loss, order and "
            "duplicates whatever the framing around it, and what is wrong stands under the table. "
            "No server offers compression, TLS or authentication; all send without delay "
            "(`TCP_NODELAY`). Not measured: networks, more than one core, long uptimes.",
            f"```sh\n{COMMANDS}\n```",
            "Runs began at:\n\n" + "\n".join(dates),
        ]
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
