"""Speakers of Rev.ai's protocol at the pace of real time, who check what comes back.

The pace waits for nobody, and delays count from the moment at which a frame should have been sent;
so a relay that falls behind is charged with all that waited.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from benchmarks.relay.tape import (
    FINAL,
    FRAME_BYTES,
    KIND,
    PACE_MS,
    PARTIAL,
    PATH,
    TOKEN,
    frame,
    read_mark,
)
from server.load.delays import Delays
from server.load.frames import BINARY, TEXT, Chunk, Ledger, pack, parse
from server.load.sockets import Socket
from server.load.target import Target

MS = 1_000_000
"""Nanoseconds in a tick."""
_QUERY = f"access_token={TOKEN}&content_type={quote(KIND, safe='')}"
_EOS = pack(TEXT, b"EOS")


class Metronome:
    """Ticks of a millisecond by a timer of the kernel: finer than the event loop's own timers."""

    def __init__(self, beat: Callable[[int], None]) -> None:
        """Call `beat` with each tick, late ones too."""
        self._beat, self._tick, self._until = beat, 0, 0
        self._done: asyncio.Future[None] | None = None
        self.began = 0
        """Nanoseconds at tick 0."""

    def start(self) -> None:
        """Begin with tick 0 at once."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, self._ring)
        self.began = time.monotonic_ns()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    async def until(self, tick: int) -> None:
        """Go on until a tick has been; the first that comes after it waits for the next call."""
        self._until = tick
        self._done = asyncio.get_running_loop().create_future()
        await self._done

    def stop(self) -> None:
        """Tick no more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGALRM)

    def _ring(self) -> None:
        now = (time.monotonic_ns() - self.began) // MS
        while self._tick < min(now + 1, self._until):
            self._beat(self._tick)
            self._tick += 1

        if self._tick == self._until and self._done is not None and not self._done.done():
            self._done.set_result(None)


class Speaker(Socket):
    """One stream."""

    def __init__(self, number: int, choir: Choir) -> None:
        super().__init__(f"{PATH}?{_QUERY}")
        self.number, self._choir = number, choir
        self.sent = self.heard = self.wrong = 0
        """Frames that were sent, that a result has answered, and that did not come as sent."""
        self.begins = number * choir.stagger // choir.size // PACE_MS * PACE_MS + number % PACE_MS
        """The tick of the first frame."""
        self.ledger = Ledger(1)

    def speak(self) -> None:
        """Send the next frame, whatever is still in the buffers."""
        if not self.transport.is_closing():
            self.transport.write(pack(BINARY, frame(self.sent, self.number)))

        self.sent += 1

    def end(self) -> None:
        """Say that this was all."""
        if not self.transport.is_closing():
            self.transport.write(_EOS)

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came; none is only to be counted."""
        return parse(data, ())

    def hear(self, kind: str, event: dict[str, Any]) -> None:
        """Find the frame that a result answers."""
        if kind in ("partial", "final"):
            words = [each["value"] for each in event["elements"] if each["type"] == "text"]
            frames, self.wrong = read_mark(words[-1])
            if frames > self.heard and frames % PARTIAL == 0:  # not what the end has caused
                self._choir.note(self.due(frames), self.came_at)

            self.heard = max(self.heard, frames)
            if kind == "final":
                self.ledger.see(-(-frames // FINAL))

        super().hear(kind, event)

    def due(self, frames: int) -> int:
        """Return the tick at which the last of so many frames was to be sent."""
        return self.begins + (frames - 1) * PACE_MS


class Choir:
    """All speakers of a run."""

    def __init__(self, size: int, stagger: int) -> None:
        """Let the speakers begin over so many ticks, for their results to be spread too."""
        self.size, self.stagger = size, stagger
        self.speakers: list[Speaker] = []
        self.delays = Delays()
        """From the moment a frame was due to the result that it caused."""
        self.metronome = Metronome(self._beat)
        self._measured = range(0)
        self._slots: list[list[Speaker]] = [[] for _ in range(PACE_MS)]

    async def open(self, target: Target) -> None:
        """Open all streams, and wait until the provider is ready.

        Raises Broken, OSError or TimeoutError.
        """
        self.speakers = await target.open_many(
            lambda number: Speaker(number, self), self.size, "connected"
        )
        for speaker in self.speakers:
            self._slots[speaker.begins % PACE_MS].append(speaker)

    def measure(self, ticks: range) -> None:
        """Keep the delays of frames that are due in these ticks."""
        self._measured = ticks

    def note(self, due: int, came_at: int) -> None:
        """Note a result."""
        if due in self._measured:
            self.delays.append(came_at - self.metronome.began - due * MS)

    def heard(self) -> int:
        """Count the frames that have been heard."""
        return sum(speaker.heard for speaker in self.speakers)

    async def end(self, within: float) -> None:
        """End all streams, but wait for the provider's last word no longer than this."""
        for speaker in self.speakers:
            speaker.end()

        deadline = time.monotonic() + within
        for speaker in self.speakers:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await speaker.until(lambda: speaker.lost)  # noqa: B023  awaited at once
            except TimeoutError:
                speaker.troubles.append("streams not ended in time")
                speaker.cut()

            self._charge(speaker)

    def audit(self) -> Counter[str]:
        """Say what is wrong."""
        found: Counter[str] = Counter()
        for each in self.speakers:
            found.update(each.troubles)
            found["bytes lost"] += (each.sent - each.heard) * FRAME_BYTES
            found["frames damaged"] += each.wrong
            finals: Counter[str] = Counter()
            each.ledger.audit(finals, -(-each.sent // FINAL))
            found.update({f"finals {what}": count for what, count in finals.items()})

        return +found

    def _charge(self, speaker: Speaker) -> None:
        """Let the finals that did not come count with the time until now."""
        now = time.monotonic_ns()
        for frames in range(speaker.heard // FINAL * FINAL + FINAL, speaker.sent + 1, FINAL):
            self.note(speaker.due(frames), now)

    def _beat(self, tick: int) -> None:
        for speaker in self._slots[tick % PACE_MS]:
            if speaker.begins <= tick:
                speaker.speak()
