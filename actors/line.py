"""The line from one session to its engines: lost, dialled again, and nobody has to say it twice.

Audio that no final covers yet is kept, within a bound, and sent again to whoever answers next.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import anyio
from anyio.lowlevel import checkpoint

from actors.errors import UpstreamLost
from actors.intake import Intake
from actors.limits import Limits
from actors.messages import AudioFrame, Recognition
from actors.ports import Clock, Engine, Upstream
from actors.progress import Progress
from actors.redial import Redial, engine_failure
from actors.replay import Ring, Splice, pieces
from actors.roles import Owner

LOOK_EVERY = 0.05
"""Seconds between two looks at an engine that is too far behind to be sent more."""
AT_ONCE = 16
"""Recognitions that are passed on before others have their turn, if an engine brings so many."""


class Line:
    """One session's way to an engine, over as many streams as it takes."""

    def __init__(
        self, engines: Sequence[Engine], intake: Intake, owner: Owner, limits: Limits, clock: Clock
    ) -> None:
        self._intake, self._owner, self._clock = intake, owner, clock
        self._limits = limits.upstream
        self._rate = intake.spec.bytes_per_second
        self._step = 2 * intake.spec.channels
        self._redial = Redial(
            engines, clock.monotonic(), limits.upstream.open_within, random.random
        )
        self.engine = self._redial.engine
        """The engine that is dialled, or that is there."""
        self._ring = Ring(round(limits.upstream.replay * self._rate))
        self._splice = Splice()
        self._stream: Upstream | None = None
        self._cut = anyio.CancelScope()
        self._why = ""
        self._base = 0.0
        """Seconds of the sent audio at which the stream's audio begins."""
        self._expected = 0
        """Byte of the session's audio that follows what has been sent."""
        self._free = self._ended = self._served = self._held = self._replaying = False
        self._wasted = 0.0
        self._flushes = self._unasked = 0
        """Flushes without an answer, and those of them that the stream is yet to be asked for."""
        self._began = 0.0
        self._progress = Progress(limits.upstream, self._rate)

    @property
    def heard(self) -> float:
        """Seconds of the sent audio that have been worked through."""
        stream = self._stream
        return self._ring.start / self._rate if stream is None else self._base + stream.heard

    async def run(self) -> None:
        """Carry the audio until it has ended and all of it is recognized.

        Raises Refused, UpstreamLost, or a bug, alone or in a group.
        """
        while True:
            try:
                await self._dial()
                return
            except Exception as error:
                failure = engine_failure(error)
                if failure is None:
                    raise

            if self._served:
                self._owner.stands("lost", str(failure))
            else:
                self._owner.unserved(failure)

            pause = self._redial.failed(failure, self._clock.monotonic())
            await anyio.sleep(pause)
            self.engine = self._redial.engine

    def take_nowait(self, frame: AudioFrame) -> bool:
        """Give a frame to an engine that waits for it; waking a task up would cost more."""
        stream, ring = self._stream, self._ring
        if not self._free or stream is None or frame.position != self._expected:
            return False

        far = ring.end > self._progress.near * self._rate and self._too_far(stream)
        if far or not stream.send_nowait(frame):
            return False

        data = frame.data
        self._expected += len(data)
        ring.add(data)
        return True

    async def flush(self) -> bool:
        """Ask the engine for a final; False says that none will come for it."""
        self._flushes += 1
        stream = self._stream
        if stream is None or self._replaying:  # asked once the engine has all audio so far
            self._unasked += 1
            return True

        try:
            if await stream.flush():
                return True
        except UpstreamLost:
            return True  # and so `receive` will say

        self._flushes -= 1
        return False

    def watch(self, now: float) -> None:
        """Give the stream up if nothing moves on it; call it about once a second."""
        stream = self._stream
        if stream is None:
            return

        self._acknowledge(stream, now)
        # What is held back, so that a loss could be mended, does not wait for the engine.
        waiting = not self._held and (self._intake.in_hand or self._intake.upstream.depth > 0)
        trouble = self._progress.trouble(now, stream.heard, waiting, self._ring)
        if trouble is not None:
            self._why = f"the engine {self.engine.name} {trouble.what}"
            self._wasted = trouble.lasted
            self._cut.cancel()

    async def settle(self) -> None:
        """Make a final of the partial that is pending: nothing more comes."""
        settled = self._splice.settle()
        if settled is not None:
            await self._owner.recognized(settled)

    async def _dial(self) -> None:
        limit = f"{self._limits.open_within:g} s (limits.upstream.open_within)"
        self._why = f"the engine {self.engine.name} did not accept the stream within {limit}"
        left = self._redial.left(self._clock.monotonic())
        within = self._limits.open_within if self._served else min(self._limits.open_within, left)
        with anyio.CancelScope(deadline=anyio.current_time() + within) as self._cut:
            async with self.engine.open(self._intake.spec) as stream:
                self._cut.deadline = math.inf
                try:
                    await self._talk(stream)
                finally:
                    self._hang_up()

                return

        raise UpstreamLost(self._why)

    async def _talk(self, stream: Upstream) -> None:
        await self._mend()
        self._begin(stream)
        self._redial.served(self._limits.lost_within)
        self._owner.stands("recovered" if self._served else "ready")
        self._served = True
        async with anyio.create_task_group() as loops:
            loops.start_soon(self._feed, stream)
            await self._listen(stream)
            loops.cancel_scope.cancel()

    async def _mend(self) -> None:
        """Make a final of the partial whose audio is no longer kept, and tell what else is lost."""
        ring, splice = self._ring, self._splice
        if ring.start <= self._byte(splice.reached):
            return

        await self.settle()
        ring.forget(self._byte(splice.reached))
        first = max(ring.lost_first, self._byte(self._progress.answered))
        if first < ring.lost_after:
            self._owner.hole(first, ring.lost_after, sent=True)
            ring.forget(ring.lost_after)

    def _begin(self, stream: Upstream) -> None:
        """Prepare a stream: what it is sent first begins where the last final has ended."""
        now = self._began = self._clock.monotonic()
        self._base = self._ring.start / self._rate
        self._splice.begin(self._base, replayed=self._served)
        self._stream, self._ended, self._wasted = stream, False, 0.0
        self._replaying, self._unasked = True, self._flushes
        self._progress.begin(self._base, now)

    def _hang_up(self) -> None:
        now, intake = self._clock.monotonic(), self._intake
        self._redial.lost(now, now - self._began, self._wasted)
        self._stream, self._free = None, False
        intake.taker, intake.in_hand, self._held = None, False, False
        intake.settle()

    async def _feed(self, stream: Upstream) -> None:
        """Send what the last stream may have missed, then what comes."""
        intake, ring = self._intake, self._ring
        for position, data in pieces(ring.frames(), self._rate // 10):
            await stream.send(AudioFrame(position, data))

        while self._unasked:
            self._unasked -= 1
            if not await stream.flush():
                self._unflushed()

        self._replaying = False
        intake.taker, intake.flowing, self._free = self.take_nowait, True, True
        try:
            while True:
                intake.route()
                frame = await intake.upstream.receive()
                self._free, intake.in_hand = False, True
                await self._send(stream, frame)
                self._free, intake.in_hand = True, False
                intake.settle()
        except anyio.EndOfStream:
            self._owner.finishing()
            self._ended = True
            await stream.end()

    async def _send(self, stream: Upstream, frame: AudioFrame) -> None:
        self._intake.route()
        if frame.position != self._expected:
            self._owner.hole(self._expected, frame.position, sent=False)

        self._expected = frame.position + len(frame.data)
        self._ring.add(frame.data)
        while self._too_far(stream):
            self._held = True
            self._intake.route()
            await anyio.sleep(LOOK_EVERY)

        self._held = False
        await stream.send(frame)

    def _too_far(self, stream: Upstream) -> bool:
        sent = self._ring.end / self._rate
        if self._progress.surely_near(sent):
            return False

        now = self._clock.monotonic()
        self._acknowledge(stream, now)
        return self._progress.too_far(sent, now)

    def _acknowledge(self, stream: Upstream, now: float) -> None:
        if self.engine.acknowledges:
            self._progress.answer(self._base + stream.heard, now)

    async def _listen(self, stream: Upstream) -> None:
        """Pass on what is recognized."""
        try:
            while True:
                for _ in range(AT_ONCE):
                    await self._take(await stream.receive())

                await checkpoint()  # `receive` need not wait for what is there
        except anyio.EndOfStream:
            if not (self._ended or self._intake.exhausted):
                message = f"the engine {self.engine.name} ended the stream"
                raise UpstreamLost(message) from None

    async def _take(self, heard: Recognition) -> None:
        self._progress.spoke()
        self._progress.answer(self._base + heard.end, self._clock.monotonic())
        placed = self._splice.take(heard)
        if placed is not None:
            await self._owner.recognized(placed)
            if placed.final:
                self._ring.forget(self._byte(placed.end))
                self._redial.progressed()

        if heard.flushed:
            self._flushes = max(0, self._flushes - 1)
            self._owner.answered()

    def _unflushed(self) -> None:
        """Answer flushes that the engine which is there now knows nothing of."""
        self._unasked = 0
        while self._flushes:
            self._flushes -= 1
            self._owner.answered()

    def _byte(self, seconds: float) -> int:
        """Return the sample at a time of the sent audio."""
        byte = min(round(seconds * self._rate), self._ring.end)
        return byte // self._step * self._step
