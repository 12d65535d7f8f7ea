"""The audio of one session on its way from the socket to the engine.

    socket -> ingress -> (decoder) -> upstream -> engine

The channels are bounded. Under `block` a busy engine stops the reading of the speaker's socket;
under `drop_oldest` the oldest audio goes. What needs no waiting passes the channels by.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable

import anyio

from actors.channel import AudioChannel, ChannelTally
from actors.limits import Limits
from actors.messages import AudioFrame, AudioSpec
from actors.ports import Clock, Decoder
from actors.timeline import Timeline

log = logging.getLogger("roomcast.engines")
LOG_EVERY = 10.0
WHY = 256
PIECE = 0.1
"""Seconds of decoded audio that travel as one frame."""
Taker = Callable[[AudioFrame], bool]
"""Takes a frame at once, or says that it cannot."""


class Tallies:
    """What a node counts of all its sessions."""

    def __init__(self) -> None:
        self.ingress, self.upstream = ChannelTally(), ChannelTally()
        self.losses: Counter[str] = Counter()
        """Times that a session has lost an engine, by the engine's name."""
        self._unlogged: Counter[tuple[str, str]] = Counter()
        """Times that something has happened to an engine since the log was told."""
        self._logged: dict[tuple[str, str], float] = {}
        self.unheard_bytes = 0
        """Bytes of PCM that a lost engine took with it: there were more than is kept for replay."""

    def lost(self, engine: str, why: str, now: float) -> None:
        """Count the loss of an engine; one in LOG_EVERY seconds is logged."""
        self.losses[engine] += 1
        self._log(("a stream was lost", engine), why, now)

    def failed(self, engine: str, why: str, now: float) -> None:
        """An engine has not taken a session's stream; one in LOG_EVERY seconds is logged."""
        self._log(("no stream was opened", engine), why, now)

    def _log(self, cause: tuple[str, str], why: str, now: float) -> None:
        self._unlogged[cause] += 1
        if now - self._logged.get(cause, -math.inf) >= LOG_EVERY:
            times, self._unlogged[cause], self._logged[cause] = self._unlogged[cause], 0, now
            log.warning("%s: %s (%d since the last line)", cause[0], why[:WHY], times)


class Intake:
    """Two channels, what turns encoded audio into PCM between them, and the time of the audio."""

    def __init__(
        self,
        spec: AudioSpec,
        decoder: Decoder | None,
        limits: Limits,
        tallies: Tallies,
        clock: Clock,
    ) -> None:
        self.spec = spec if decoder is None else decoder.spec
        """Of the PCM that comes out."""
        self.ingress = AudioChannel(limits.ingress.frames, "block", tallies.ingress)
        self.upstream = AudioChannel(
            limits.upstream.frames, limits.upstream.policy, tallies.upstream
        )
        self.timeline = Timeline(self.spec.bytes_per_second)
        self.received = 0
        """Bytes taken from the socket, as they were sent."""
        self.decoded = 0
        """Bytes of PCM that they have turned out to be."""
        self.heard_at = clock.monotonic()
        """When the newest audio came."""
        self.taker: Taker | None = None
        """Who takes frames past the channels, while an engine is there."""
        self.flowing = False
        """Whether an engine has been there: until then audio waits in ingress."""
        self.in_hand = False
        """Whether the engine is being sent a frame."""
        self._clock, self._decoder = clock, decoder
        self.decodes = decoder is not None and decoder.decode_nowait(b"") is None
        """Whether `decode` has to run."""
        self._decoding = False
        self._calm: anyio.Event | None = None

    @property
    def seconds(self) -> float:
        """Seconds of audio received, as far as it is decoded."""
        return self.timeline.seconds(self.decoded)

    @property
    def exhausted(self) -> bool:
        """Whether all audio has come and has been sent on."""
        return self.upstream.finished and not self.in_hand

    def hear_nowait(self, data: bytes) -> bool:
        """Take one frame of audio; False, and nothing, while ingress is full."""
        ingress = self.ingress
        if not ingress.takes or (ingress.waiting and not ingress.open):
            return False

        taker = self.taker
        if taker is None or self._decoder is not None:
            frame = self._note(data)
        else:  # as `_note` does it: with the caches cold, it is the calls that cost
            frame, now = AudioFrame(self.decoded, data), self._clock.monotonic()
            self.heard_at = now
            self.received += len(data)
            self.decoded += len(data)
            if self.decoded >= self.timeline.due:
                self.timeline.note(self.decoded, now)

        if (
            taker is None
            or self.decodes
            or ingress.waiting
            or self.upstream.waiting
            or not taker(frame)
        ):
            ingress.send_nowait(frame)
            self.route()

        return True

    async def hear(self, data: bytes) -> None:
        """Take one frame of audio; waits while ingress is full."""
        frame = self._note(data)
        try:
            await self.ingress.send(frame)
        except anyio.ClosedResourceError:
            return  # the session ended while this frame waited; its ending is told elsewhere
        except anyio.get_cancelled_exc_class():
            self.received -= len(data)  # it never came: who resumes has to send it again
            self.decoded -= 0 if self.decodes else len(frame.data)
            raise

        self.heard_at = self._clock.monotonic()  # the wait was not the speaker's silence
        self.route()

    def end(self) -> None:
        """Take no more audio; what is here goes on its way. Idempotent."""
        self.ingress.end()
        self.route()

    def close(self) -> None:
        """Throw away what is here, and let nobody wait. Idempotent."""
        self.taker, self._decoding, self.in_hand = None, False, False
        self.ingress.close()
        self.upstream.close()
        self.settle()
        if self._decoder is not None:
            self._decoder.close()

    def restart(self) -> None:
        """The speaker has come back on another connection."""
        if self._decoder is not None:
            self._decoder.restart()

    def route(self) -> None:
        """Move what needs no decoding from ingress to upstream, where the policy decides."""
        ingress, upstream = self.ingress, self.upstream
        if self.decodes or not self.flowing:
            return

        while ingress.depth and upstream.open:
            upstream.send_nowait(ingress.receive_nowait())

        if ingress.finished:
            upstream.end()

    async def decode(self) -> None:
        """Turn what is in ingress into PCM until the end. Raises Refused("bad_audio")."""
        decoder = self._decoder
        assert decoder is not None
        try:
            while True:
                encoded = await self.ingress.receive()
                self._decoding = True
                await self._pass_on(await decoder.decode(encoded.data))
                self._decoding = False
                self.settle()
        except anyio.EndOfStream:
            while rest := await decoder.end():
                await self._pass_on(rest)

            self.upstream.end()

    async def undisturbed(self) -> None:
        """Wait until nobody is in `hear`; whoever was must have been cancelled."""
        while self.ingress.sending:
            await anyio.lowlevel.checkpoint()

    async def drained(self) -> None:
        """Wait until the engine has taken all audio that has come, or the session is over."""
        while self._busy:
            self._calm = self._calm or anyio.Event()
            await self._calm.wait()

    def settle(self) -> None:
        """Wake who waits for empty channels, if they are."""
        if self._calm is not None and not self._busy:
            self._calm.set()
            self._calm = None

    @property
    def _busy(self) -> bool:
        return bool(self.ingress.depth or self.upstream.depth or self._decoding or self.in_hand)

    def _note(self, data: bytes) -> AudioFrame:
        """Give a frame its place in the audio, and remember when it came."""
        self.received += len(data)
        now = self.heard_at = self._clock.monotonic()
        if self._decoder is not None:
            if self.decodes:
                return AudioFrame(self.received - len(data), data)

            data = self._decoder.decode_nowait(data) or b""

        frame = AudioFrame(self.decoded, data)
        reached = self.decoded = self.decoded + len(data)
        if reached >= self.timeline.due:
            self.timeline.note(reached, now)

        return frame

    async def _pass_on(self, pcm: bytes) -> None:
        step = round(PIECE * self.spec.bytes_per_second) & ~3
        for start in range(0, len(pcm), step):
            piece = pcm[start : start + step]
            frame = AudioFrame(self.decoded, piece)
            self.decoded += len(piece)
            self.timeline.note(self.decoded, self.heard_at)
            await self.upstream.send(frame)
