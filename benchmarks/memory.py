"""What a connection weighs: growth of the server's resident memory.

Measured: RSS of the server's process before and after idle listeners join one room, and before and
after speakers stream into the echo engine at the pace of real time, each on a fresh server that
has carried a connection of that kind before; and USS (memory that no other process shares) of the
embedded engine's workers when each has worked through recorded speech. Not measured: what the
kernel holds for the sockets, memory after long use, shared pages of the speech model.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import uvloop

from benchmarks.audio import open_speakers, stop_all
from benchmarks.machine import resident, server
from benchmarks.report import Report
from server.cli.demo import RECORDINGS, read_recordings
from server.cli.options import Bad
from server.load.rooms import Room
from server.load.sockets import Socket, hang_up
from server.load.speak import talk
from server.load.target import Target
from tests.servers import Server

SETTLE = 0.5
"""Seconds for the server to finish with what was asked of it."""
FRAME = 6400
"""Bytes of audio in one message to the embedded engine."""
KEPT_UP = 0.5
"""Seconds of lag at which a worker counts as done with its audio."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    listeners: tuple[int, ...] = (1000, 5000)
    speakers: int = 50
    """Speakers; few enough for the server to keep up, or what it has yet to read is weighed too."""
    seconds: float = 3.0
    """Seconds that the speakers talk."""
    streams: int = 2
    """Streams to the embedded engine."""
    spoken: float = 8.0
    """Seconds of speech for each of them."""
    runs: int = 2


QUICK = Plan(listeners=(1000,), speakers=50, seconds=1.5, streams=1, spoken=3.0, runs=1)


def run(plan: Plan) -> Report:
    """Measure each kind on servers of its own."""
    report = Report("memory")
    listeners: dict[int, list[float]] = {count: [] for count in plan.listeners}
    speakers: list[float] = []
    for _ in range(plan.runs):
        with server() as subject:
            found = uvloop.run(_weigh_listeners(subject, plan, report))
            for count, kilobytes in found.items():
                listeners[count].append(kilobytes)

        with server() as subject:
            speakers.append(uvloop.run(_weigh_speakers(subject, plan, report)))

    for count, runs in listeners.items():
        report.add(f"RSS per idle listener, of {count}", "KB", runs)

    report.add(f"RSS per speaker, of {plan.speakers}", "KB", speakers)
    _add_workers(plan, report)
    return report


async def _weigh_listeners(subject: Server, plan: Plan, report: Report) -> dict[int, float]:
    room, target, found = Room("memory"), Target(subject.port), {}
    await room.fill(target, 1)
    base = resident(subject)
    for count in plan.listeners:
        await room.fill(target, count + 1 - len(room.listeners))
        await asyncio.sleep(SETTLE)
        found[count] = (resident(subject) - base) / count / 1000

    report.check_counts("listeners", room.audit())
    hang_up(room.listeners)
    return found


async def _weigh_speakers(subject: Server, plan: Plan, report: Report) -> float:
    first = await open_speakers(subject.port, 1)
    await talk(first, SETTLE)
    base = resident(subject)
    speakers = await open_speakers(subject.port, plan.speakers)
    await talk(speakers, plan.seconds)
    grown = resident(subject) - base
    await stop_all([*first, *speakers], report)
    return grown / plan.speakers / 1000


def _add_workers(plan: Plan, report: Report) -> None:
    try:
        speech = b"".join(each.pcm for each in read_recordings(Path(RECORDINGS)))
    except Bad as bad:
        report.notes.append(f"no embedded stream was measured: {bad}")
        return

    with server(engines__enabled="embedded", engines__embedded__max_streams=plan.streams) as one:
        audio = (speech * 10)[: int(plan.spoken * 32_000)]
        sizes = uvloop.run(_weigh_workers(one, plan, audio, report))

    report.add("USS per embedded stream", "MB", sizes)


async def _weigh_workers(subject: Server, plan: Plan, audio: bytes, report: Report) -> list[float]:
    speakers = await Target(subject.port).open_many(
        lambda number: Socket(f"/v1/rooms/e{number}/speak"), plan.streams, "speech"
    )
    for speaker in speakers:
        for start in range(0, len(audio), FRAME):
            await speaker.drained()
            speaker.send_audio(audio[start : start + FRAME])

    for speaker in speakers:
        await speaker.event(
            "speech",
            lambda event: event["received"] == len(audio) and event["lag"] < KEPT_UP,
        )

    workers = [psutil.Process(worker.pid) for worker in subject.workers()]
    sizes = [worker.memory_full_info().uss / 1e6 for worker in workers]
    report.check_counts("embedded", Counter(each for one in speakers for each in one.troubles))
    hang_up(speakers)
    return sizes
