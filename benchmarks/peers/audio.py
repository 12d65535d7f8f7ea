"""Audio in: speakers at the pace of real time, into something that only takes the frames."""

from __future__ import annotations

import asyncio
import re
import time

from benchmarks.peers.process import measured
from benchmarks.peers.sockets import Marks, Member
from benchmarks.peers.stage import Stage
from server.load.frames import BINARY, pack
from server.load.sockets import hang_up

FRAME = bytes(640)
"""20 ms of 16-bit samples at 16 kHz."""
PACE = 0.02
"""Seconds of audio in a frame."""
SLICES = 10
"""Parts of the speakers that send one after the other within the pace."""
ENDED = re.compile(rb'"state":"ended".*?"received":(\d+)')
ENDS_WITHIN = 5.0
_MESSAGE = pack(BINARY, FRAME)


async def audio(stage: Stage) -> None:
    """Measure what a frame costs, less what the connections cost while they are silent."""
    subject, plan = stage.running.subject, stage.plan
    tally = Marks(subject.pings)
    speakers = await stage.open(
        lambda number: Member(subject.speaker(number), tally), plan.speakers
    )
    await _talk(speakers, plan.audio / 4)
    with measured(stage.running) as silence:
        await asyncio.sleep(plan.audio / 2)

    with measured(stage.running) as usage:
        frames = await _talk(speakers, plan.audio)

    resting = silence.used.server / silence.used.wall
    values = {
        "cost": (usage.used.server - resting * usage.used.wall) / frames * 1e6,
        "resting": 100 * resting,
    }
    stage.note("audio", values | usage.shares(), await _stop(stage, speakers))
    hang_up(speakers)


async def _talk(speakers: list[Member], seconds: float) -> int:
    """Send audio from all, spread evenly; return how many frames."""
    began, slots, frames = time.monotonic(), round(seconds / PACE) * SLICES, 0
    for slot in range(slots):
        await asyncio.sleep(began + slot * PACE / SLICES - time.monotonic())
        for speaker in speakers[slot % SLICES :: SLICES]:
            speaker.transport.write(_MESSAGE)
            frames += 1

    return frames


async def _stop(stage: Stage, speakers: list[Member]) -> list[str]:
    """End the audio; say what is wrong with the server's count of it."""
    plan = stage.plan
    sent = len(FRAME) * (round(plan.audio / 4 / PACE) + round(plan.audio / PACE))
    missing = 0
    for speaker in speakers:
        speaker.transport.write(stage.running.subject.stop)
        try:
            missing += sent - int((await speaker.told(ENDED, ENDS_WITHIN))[1])
        except TimeoutError:
            return ["a speaker's audio did not end"]

    return [f"{missing} bytes of audio lost"] if missing else []
