"""What audio costs: CPU of the server's process for each frame of 20 ms (640 bytes at 16 kHz).

Measured: many speakers at the pace of real time into the echo engine, less what the same
connections cost while they are silent; and one speaker as fast as the server reads, many frames in
one write. Every byte sent must be counted by the server at the end. The cost includes the echo
engine and publishing what it recognizes (5 transcripts a second of audio) to rooms that nobody
listens to. Not measured: a real speech engine, delivery, other encodings.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import msgspec
import uvloop

from benchmarks.machine import measured, server
from benchmarks.report import Report
from server.load.sockets import Broken, hang_up, reason
from server.load.speak import FRAME, Speaker, talk
from server.load.target import Target
from server.load.usage import Usage
from tests.servers import Server

AT_ONCE = 50
"""Frames in one write of the fast speaker."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    speakers: int = 50
    seconds: float = 5.0
    """Seconds of each run at the pace of real time, and of the silence before."""
    fast: float = 2.0
    """Seconds of each run of the fast speaker."""
    runs: int = 3


QUICK = Plan(seconds=2.0, fast=1.0, runs=1)


def run(plan: Plan) -> Report:
    """Measure both on one server, one after the other."""
    report = Report("audio")
    with server() as subject:
        for measure in (_measure_real_time, _measure_fast):
            uvloop.run(measure(subject, plan, report))

    return report


async def open_speakers(port: int, count: int) -> list[Speaker]:
    """Open speakers, each in a room of its own."""
    target = Target(port)
    return await target.open_many(lambda number: Speaker(f"audio-{number}"), count, "speech")


async def stop_all(speakers: list[Speaker], report: Report) -> None:
    """End the sessions and check that nothing was lost."""
    for speaker in speakers:
        try:
            await speaker.stop()
            report.check_counts("audio", {"bytes of audio lost": await speaker.lost_bytes()})
        except (Broken, TimeoutError) as error:
            report.check("audio", [f"a session did not end: {reason(error)}"])

    report.check_counts("audio", Counter(each for one in speakers for each in one.troubles))
    hang_up(speakers)


async def _measure_real_time(subject: Server, plan: Plan, report: Report) -> None:
    speakers = await open_speakers(subject.port, plan.speakers)
    costs: list[float] = []
    resting: list[Usage] = []
    talking: list[Usage] = []
    for _ in range(plan.runs):
        before = sum(speaker.sent for speaker in speakers)
        with measured(subject) as idle:
            await asyncio.sleep(plan.seconds / 2)

        with measured(subject) as usage:
            await talk(speakers, plan.seconds)

        frames = (sum(speaker.sent for speaker in speakers) - before) // len(FRAME)
        costs.append((usage.server - idle.server / idle.wall * usage.wall) / frames * 1e6)
        resting.append(idle)
        talking.append(usage)

    title = f"{plan.speakers} speakers in real time"
    report.add(f"{title}, CPU per frame", "us", costs)
    report.add_usage(title, talking)
    idle_shares = [each.server_share for each in resting]
    report.add(f"{plan.speakers} silent speakers, server", "% of a core", idle_shares)
    await stop_all(speakers, report)


async def _measure_fast(subject: Server, plan: Plan, report: Report) -> None:
    usages: list[Usage] = []
    frames: list[int] = []
    for _ in range(plan.runs):
        [speaker] = await open_speakers(subject.port, 1)
        deadline = time.monotonic() + plan.fast
        with measured(subject) as usage:
            while time.monotonic() < deadline:
                await speaker.drained()
                speaker.speak(AT_ONCE)

            await stop_all([speaker], report)

        usages.append(usage)
        frames.append(speaker.sent // len(FRAME))

    runs = list(zip(frames, usages, strict=True))
    report.add("1 fast speaker, frames", "/s", [sent / used.wall for sent, used in runs])
    report.add(
        "1 fast speaker, CPU per frame", "us", [used.server / sent * 1e6 for sent, used in runs]
    )
    report.add_usage("1 fast speaker", usages)
