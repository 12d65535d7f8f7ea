"""What there is: the subjects, the workloads, what their tables show and what is aimed at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from benchmarks.peers import audio, workloads
from benchmarks.peers.goals import Goal, Target, target
from benchmarks.peers.python import Channels, Lean, PlainFastApi, PythonSocketIo, Stock
from benchmarks.peers.runs import Plan
from benchmarks.peers.servers import Floor, Mosquitto, Nats, Nchan, SocketIo, Ws
from benchmarks.peers.stage import Stage
from benchmarks.peers.subject import Subject

SUBJECTS: tuple[Subject, ...] = (
    *(Lean(), Stock(), Floor(), Nchan(), Nats(), Mosquitto()),
    *(Ws(), SocketIo(), PlainFastApi(), PythonSocketIo(), Channels()),
)
OURS = Lean.name
BASES = (Floor.name, Nchan.name, PlainFastApi.name)
"""What the others are compared with."""


class Turn(msgspec.Struct, frozen=True):
    """What one start of a subject is good for."""

    run: Callable[[Stage], Awaitable[None]]
    workloads: tuple[str, ...]
    subjects: tuple[str, ...]
    rounds: int = 3
    """Rounds at most; what hardly varies needs fewer."""


class Workload(msgspec.Struct, frozen=True):
    """One table of the results."""

    name: str
    title: str
    text: str
    columns: dict[str, str]
    """Headings by the numbers' names; the first is the one that ratios are made of."""
    bases: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


_ALL = tuple(subject.name for subject in SUBJECTS)
TURNS = (
    Turn(workloads.fan_out, ("paced", "saturated", "last"), _ALL),
    Turn(workloads.memory, ("memory",), ("lean", "stock", "floor", "nchan", "fastapi"), 2),
    Turn(workloads.accept, ("accept",), _ALL),
    Turn(audio.audio, ("audio",), ("lean", "stock", "fastapi")),
    Turn(workloads.stalled, ("stalled",), ("lean", "fastapi")),
    Turn(workloads.stalled_large, ("stalled-large",), ("lean", "nchan", "fastapi")),
    Turn(workloads.scale, ("scale",), ("lean", "floor")),
)
_SHARES = {"server": "server, % of its core", "load": "load, % of its core"}


def catalogue(plan: Plan) -> list[Workload]:
    """Return the workloads with the numbers of a plan in their texts, in the order to read them."""
    makers = (_paced, _saturated, _last, _memory, _accept, _audio, _stalled, _large, _scale)
    return [make(plan) for make in makers]


def _paced(plan: Plan) -> Workload:
    return Workload(
        "paced",
        f"Fan-out at a steady pace: 1 room, {plan.listeners:,} listeners",
        f"{plan.rate:g} payloads of {plan.size} bytes a second for {plan.paced:g} s, over one "
        f"WebSocket; {plan.rate * plan.listeners:,.0f} deliveries a second. The delay is that from "
        "just before a publish is written to its arrival at each listener.",
        {"cost": "CPU per delivery, us", "p50": "delay p50, ms", "p99": "delay p99, ms", **_SHARES},
        BASES,
        (
            target("CPU per delivery", Goal("cost", 0.85, base="nchan")),
            target("CPU per delivery", Goal("cost", 1.3, base="floor")),
            target("CPU per delivery", Goal("cost", 0.5, base="fastapi")),
        ),
    )


def _saturated(plan: Plan) -> Workload:
    return Workload(
        "saturated",
        f"Fan-out under saturation: 1 room, {plan.listeners:,} listeners",
        f"{plan.offered:,g} publishes of {plan.size} bytes a second are offered over one "
        f"WebSocket, which is {plan.offered * plan.listeners:,.0f} deliveries a second, but never "
        f"more than {plan.window} of them ahead of the listeners. Counted for {plan.saturated:g} s "
        "while it goes on. Who delivers all of that is offered twice as much, and so on; the "
        "column for any offer has the best. Who joins messages for a listener into one write beats "
        "the floor here, which does not.",
        {
            "per_cpu": "deliveries per CPU second",
            "per_second": "deliveries per second",
            "most": "per second, most at any offer",
            **_SHARES,
        },
        BASES,
        (
            target("Deliveries per CPU second", Goal("per_cpu", 4, base="nchan", at_most=False)),
            target("Deliveries per CPU second", Goal("per_cpu", 8, base="fastapi", at_most=False)),
            target("Deliveries per CPU second", Goal("per_cpu", 800_000, at_most=False)),
        ),
    )


def _last(plan: Plan) -> Workload:
    return Workload(
        "last",
        f"Publish to the last of {plan.listeners:,} listeners",
        f"{plan.publishes} publishes, one at a time with {plan.pause * 1000:g} ms between, to a "
        "server that does nothing else: the time from just before the publish is written until "
        "the last listener has it. It contains the load client's own work for all listeners. "
        "The 99th percentile of so few is the slowest.",
        {"p50": "p50, ms", "p99": "p99, ms", **_SHARES},
        BASES,
        (target("p50", Goal("p50", 2, base="floor"), Goal("p50", 12, "ms")),),
    )


def _memory(plan: Plan) -> Workload:
    columns = {f"bytes_{count}": f"bytes each, of {count:,}" for count in plan.idle}
    small, large = plan.idle[0], plan.idle[-1]
    return Workload(
        "memory",
        "Memory of an idle listener",
        "Growth of the resident memory of the server's process, after a first connection has "
        "warmed it, for each listener of one room that has had one payload. "
        f"{Stock.label} is asked for {small:,} only. Not counted: what the kernel holds.",
        columns,
        BASES[1:],
        (
            *(target(f"Of {n:,}", Goal(f"bytes_{n}", 4096, "bytes")) for n in plan.idle),
            target(f"Flat: of {large:,} beside of {small:,}", Goal("growth", 1.1, "x")),
        ),
    )


def _accept(plan: Plan) -> Workload:
    return Workload(
        "accept",
        "Accepting a connection",
        f"{plan.accepts:,} listeners are opened up to the point at which they are in the room (TCP "
        "connection, upgrade, routing, admission, and whatever the protocol asks for), then all "
        "are closed with a close frame; some at a time.",
        {
            "accept": "CPU to open, us",
            "life": "CPU of the whole life, us",
            "per_second": "opened per second",
            **_SHARES,
        },
        BASES,
        (target("CPU to open", Goal("accept", 200, "us")),),
    )


def _audio(plan: Plan) -> Workload:
    return Workload(
        "audio",
        f"Audio in: {plan.speakers} speakers in real time",
        "Frames of 20 ms (640 bytes), 50 a second from each speaker. Roomcast hands them to its "
        "echo engine, which answers without listening; the FastAPI handler to a memory object "
        "stream whose reader drops them. CPU less that of the same connections in silence. Every "
        "byte must be counted by the server.",
        {"cost": "CPU per frame, us", "resting": "server in silence, % of its core", **_SHARES},
        ("fastapi",),
        (
            target("CPU per frame", Goal("cost", 30, "us")),
            target("CPU per frame", Goal("cost", 0.5, base="fastapi")),
        ),
    )


def _stalled(plan: Plan) -> Workload:
    return _strain(plan, "stalled", plan.size, plan.strain[0])


def _large(plan: Plan) -> Workload:
    return _strain(plan, "stalled-large", plan.large, plan.strain[1])


def _strain(plan: Plan, name: str, size: int, seconds: float) -> Workload:
    return Workload(
        name,
        f"Listeners that stop reading, {size:,} bytes",
        f"{plan.rate:g} payloads of {size:,} bytes a second to {plan.crowd:,} listeners for "
        f"{plan.calm:g} s; then {100 * plan.stalled:g} % of them stop reading and it goes on for "
        f"{seconds:g} s. The 99th percentile of the delays of what reached all the others, before "
        "and after, and how far the server's resident memory rose. Roomcast's mailboxes bound the "
        f"latter: {round(plan.crowd * plan.stalled):,} x {Stock.mailbox:,} bytes.",
        {
            "ratio": "p99 after / before",
            "calm": "p99 before, ms",
            "strain": "p99 after, ms",
            "delivered": "delivered to the others, %",
            "grown": "memory, MB more",
            "cut": "stalled that were cut off",
            **_SHARES,
        },
        (),
        (
            target("p99 of the others", Goal("ratio", 1.2, "x")),
            target("Memory beside the bound of the mailboxes", Goal("of_bound", 1, "x")),
        ),
    )


def _scale(plan: Plan) -> Workload:
    costs = {f"cost_{count}": f"us, {count:,}" for count in plan.scale}
    return Workload(
        "scale",
        "Cost of a delivery as rooms grow",
        f"CPU per delivery at the same {plan.listeners * plan.rate:,.0f} deliveries a second to "
        f"{', '.join(f'{count:,}' for count in plan.scale)} listeners of one room, "
        f"{plan.scaled:g} s each. The floor's own growth is that of the kernel's work.",
        {**costs, "spread": "most / least"},
        (),
        (target("Flat: most / least", Goal("spread", 1.25, "x")),),
    )
