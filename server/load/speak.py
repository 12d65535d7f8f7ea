"""Speakers that send audio in real time and read their own captions.

The time to a transcript goes from just before the frame with its last sound is written.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from server.load.delays import Delays
from server.load.frames import BINARY, Chunk, Ledger, pack, parse
from server.load.pace import Until, sleep_until
from server.load.report import plural
from server.load.sockets import WITHIN, Socket, hang_up
from server.load.stage import Stage
from server.load.usage import measured

FRAME = bytes(640)
"""20 ms of 16-bit audio at 16 kHz."""
PACE = 0.02
"""Seconds of audio in a frame."""
SLICES = 10
"""Parts of the speakers that send one after the other within the pace."""
STEPS = 5
"""Transcripts of the echo engine for a second of audio, of which the last is final."""
HELD = 0.5
"""Seconds a speaker may be made to wait by a server that keeps up: its buffers hold more."""
_MESSAGE = pack(BINARY, FRAME)


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    promise: ClassVar[str] = "the server has every byte, and every caption came, once and in order"
    speakers: int = 10
    seconds: float = 10.0
    engine: str = "echo"

    @property
    def connections(self) -> int:
        """All connections."""
        return self.speakers

    def __str__(self) -> str:
        """Say it in words."""
        speakers = plural(self.speakers, "speaker")
        return f"{speakers}, {1 / PACE:g} frames/s of {len(FRAME)} bytes each, engine {self.engine}"


class Beat:
    """When some speakers send their frames, and how long after that the transcripts come."""

    def __init__(self) -> None:
        self.moments = array("q")
        """Nanoseconds, one for each frame."""
        self.delays = Delays()

    def note(self, end: float, came_at: int) -> None:
        """Note a transcript of the audio up to so many seconds."""
        frame = math.ceil(end / PACE - 1e-6) - 1
        if 0 <= frame < len(self.moments):
            self.delays.append(came_at - self.moments[frame])


class Speaker(Socket):
    """A connection that speaks, and knows how many bytes it said."""

    def __init__(self, room: str, engine: str = "echo", beat: Beat | None = None) -> None:
        super().__init__(f"/v1/rooms/{room}/speak?engine={quote(engine, safe='')}")
        self.room = room
        self.sent = 0
        self.owed = 0
        """Frames that wait because the buffers are full."""
        self.held = 0
        """The most that ever waited."""
        self.lag = 0.0
        """The most seconds of audio that the server said it was behind."""
        self.ledger = Ledger(1)
        self._beat = beat

    def speak(self, times: int = 1) -> None:
        """Send frames of audio in one write, as soon as the buffers take them. Raises Broken."""
        self.owed += times
        if self.paused:
            self.held = max(self.held, self.owed)
        else:
            self.write(_MESSAGE * self.owed)
            self.sent += len(FRAME) * self.owed
            self.owed = 0

    def resume_writing(self) -> None:
        """Send what waited."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.speak(0)

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came; transcripts are read, not only counted."""
        return parse(data, ())

    def hear(self, kind: str, event: dict[str, Any]) -> None:
        """Note the lag, and when a transcript came."""
        if kind == "speech":
            self.lag = max(self.lag, event["lag"])
        elif kind == "transcript":
            if event["final"]:
                self.ledger.see(event["offset"])

            if self._beat is not None:
                self._beat.note(event["end"], self.came_at)

        super().hear(kind, event)

    async def stop(self) -> None:
        """Begin to end the session, when all is sent. Raises Broken or TimeoutError."""
        async with asyncio.timeout(WITHIN):
            await self.until(lambda: not self.owed)

        self._beat = None  # what comes from here on waited for the end, not for its frame
        self.send({"type": "stop", "id": 1})

    async def lost_bytes(self) -> int:
        """Wait for the end of the session; return the bytes that the server has not counted.

        Raises Broken or TimeoutError.
        """
        ended = await self.event("speech", lambda event: event["state"] == "ended")
        return self.sent - int(ended["received"])


async def run(stage: Stage, plan: Plan) -> None:
    """Measure. Raises Broken, OSError or TimeoutError."""
    before = stage.resident()
    beats = [Beat() for _ in range(SLICES)]
    rooms = stage.rooms(plan.speakers)

    def make(number: int) -> Speaker:
        return Speaker(rooms[number].name, plan.engine, beats[number % SLICES])

    speakers = await stage.open(make, plan.speakers, "speech")
    try:
        await _begin(speakers)
        await stage.weigh(before, len(speakers), "speaker")
        if not stage.stopped:
            await _measure(stage, plan, speakers, beats)

        await _end(stage, plan, speakers)
    finally:
        found: Counter[str] = Counter(each for speaker in speakers for each in speaker.troubles)
        stage.report.fail(found)
        hang_up(speakers)


async def talk(
    speakers: Sequence[Speaker],
    seconds: float,
    until: Until = sleep_until,
    beats: Sequence[Beat] = (),
) -> None:
    """Send audio from all speakers at the pace of real time, spread evenly."""
    began, slots = time.monotonic(), round(seconds / PACE * SLICES)
    for slot in range(slots):
        if not await until(began + slot * PACE / SLICES):
            return

        part = slot % SLICES
        if beats:
            beats[part].moments.append(time.monotonic_ns())

        for speaker in speakers[part::SLICES]:
            speaker.speak()


async def _begin(speakers: list[Speaker]) -> None:
    """Let everybody read along, and wait for the engines."""
    for speaker in speakers:
        speaker.send({"type": "join", "room": speaker.room})

    for speaker in speakers:
        await speaker.event("joined")
        await speaker.event("speech", lambda event: event["state"] == "ready")


async def _measure(stage: Stage, plan: Plan, speakers: list[Speaker], beats: list[Beat]) -> None:
    stage.doing = f"measuring for {plan.seconds:g} s"
    report = stage.report
    try:
        with measured(stage.process) as usage:
            await talk(speakers, plan.seconds, stage.until, beats)
    finally:
        frames = sum(speaker.sent for speaker in speakers) // len(FRAME)
        report.add("frames_per_second", frames / usage.wall, "frames", "/s", f"{frames:,} in all")
        report.add_usage(usage, frames, "frame")
        report.add_delays(
            "transcript", Delays.merged(beat.delays for beat in beats), "frame to transcript"
        )


async def _end(stage: Stage, plan: Plan, speakers: list[Speaker]) -> None:
    """End the sessions; all audio must have been counted, and each final must have come."""
    report = stage.report
    stage.doing = "ending the sessions"
    for speaker in speakers:
        await speaker.stop()

    lost = sum([await speaker.lost_bytes() for speaker in speakers])
    report.fail({"bytes of audio lost": lost})
    found: Counter[str] = Counter()
    for speaker in speakers:
        speaker.ledger.audit(found, finals(speaker.sent) if plan.engine == "echo" else 0)

    report.fail({f"transcripts {what}": count for what, count in found.items()})
    lag = max((speaker.lag for speaker in speakers), default=0.0)
    report.add("lag_seconds", lag, "lag", "s", "at most, as the server told it")
    late = [speaker.held * PACE for speaker in speakers if speaker.held * PACE > HELD]
    if late:
        report.problems.append(f"{len(late)} speakers had to wait, up to {max(late):.1f} s")


def finals(sent: int) -> int:
    """Count the finals of the echo engine for so many bytes."""
    return math.ceil(sent * STEPS // round(len(FRAME) / PACE) / STEPS)
