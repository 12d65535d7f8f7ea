"""The engine alone, in this process: no sockets, no event loop, one core.

Measured, as CPU time of this process for each operation: a message through `Fanout` to members
whose transport only asks for the joined bytes, one to a flush and many to a flush; a frame into
and out of a mailbox; a command decoded; a frame made, encoded and kept in a full history. Not
measured: reading and writing sockets, which is most of what a delivery costs in a real server.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from actors.catalog import Catalog
from actors.connection import ConnectionActor
from actors.errors import Close
from actors.fanout import View
from actors.limits import Egress, History, Limits
from actors.log import RoomLog
from actors.mailbox import Mailbox, Tally
from actors.manager import ConnectionManager
from actors.messages import Message
from actors.principal import Principal
from actors.wire import Burst, Codec, Frame, decode
from benchmarks.report import Report
from server.backplanes.memory import MemoryBackplane

ROOM = "dev/bench"
DATA = "x" * 128
COMMAND = msgspec.json.encode({"type": "publish", "room": "bench", "data": DATA}).decode()


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    members: int = 1000
    batch: int = 100
    """Messages to a flush when there are many."""
    publishes: int = 200
    """Publishes of each run."""
    operations: int = 20_000
    """Operations of each run of everything else."""
    runs: int = 7


QUICK = Plan(publishes=50, operations=5_000, runs=3)


class Sink:
    """A transport that is always writable and asks for the bytes that a real one would write."""

    codec: Codec = "json"
    writable = True

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, burst: Burst) -> None:
        """Count the bytes."""
        self.bytes += len(burst.json_frames)

    def close(self, close: Close) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to cut."""


class ProcessClock:
    """The clocks of the machine, without an event loop."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return Unix time."""
        return time.time()


class Nobody:
    """An observer that does not look."""

    def connected(self, kind: str) -> None:
        """Ignore it."""

    def disconnected(self, kind: str, close: Close, lasted: float) -> None:
        """Ignore it."""

    def refused(self, code: str) -> None:
        """Ignore it."""

    def latency(self, stage: str, seconds: float) -> None:
        """Ignore it."""


def run(plan: Plan) -> Report:
    """Measure every operation."""
    report = Report("actors")
    members = plan.members
    for batch in (1, plan.batch):
        costs = [_fan_out(plan, batch, report) for _ in range(plan.runs)]
        title = f"fan-out to {members}, {batch} to a flush, CPU per delivery"
        report.add(title, "ns", costs)

    operations: dict[str, Callable[[int], None]] = {
        "mailbox, one frame in and out": _use_mailbox,
        "wire, decode a publish": _decode,
        "wire and log, make, encode and keep a message": _keep,
    }
    for title, operation in operations.items():
        report.add(title, "ns", [_time(operation, plan.operations) for _ in range(plan.runs)])

    return report


def make_frame(offset: int) -> Frame:
    """Make the frame of a message."""
    message = Message(
        room="bench", data=DATA, sender="", at=1_700_000_000.123, offset=offset, epoch="epoch"
    )
    return Frame(message)


def _fan_out(plan: Plan, batch: int, report: Report) -> float:
    """Publish through the fan-out; return nanoseconds of CPU for each delivery."""
    limits, clock = Limits(), ProcessClock()
    backplane = MemoryBackplane(limits.history, limits.rooms, clock)
    manager = ConnectionManager(limits, backplane, Catalog({}), clock, Nobody())
    sinks = [Sink() for _ in range(plan.members)]
    for sink in sinks:
        actor: ConnectionActor = manager.connect("listen", Principal("dev"), sink)
        manager.fanout.join(actor, ROOM, View())
        sink.bytes = 0

    frames = [make_frame(number + 1) for number in range(plan.publishes)]
    began = time.process_time_ns()
    for number, frame in enumerate(frames, 1):
        manager.fanout.deliver(ROOM, frame)
        if number % batch == 0:
            manager.fanout.flush()

    manager.fanout.flush()
    used = time.process_time_ns() - began
    expected = sum(len(frame.json_frame) for frame in frames)
    short = sum(sink.bytes != expected for sink in sinks)
    report.check("fan-out", [f"{short} members lack bytes"] if short else [])
    return used / (plan.publishes * plan.members)


def _time(operation: Callable[[int], None], times: int) -> float:
    began = time.process_time_ns()
    operation(times)
    return (time.process_time_ns() - began) / times


def _use_mailbox(times: int) -> None:
    mailbox, frame = Mailbox(Egress(), "json", Tally()), make_frame(1)
    for _ in range(times):
        mailbox.send_nowait(frame, 0.0)
        mailbox.receive_nowait()


def _decode(times: int) -> None:
    for _ in range(times):
        decode(COMMAND, "json")


def _keep(times: int) -> None:
    log = RoomLog("epoch", History())
    for number in range(times):
        log.append(make_frame(number + 1), 0.0)
