"""One speaker's stream: audio flows ingress -> upstream -> engine, recognitions flow to the room.

The channels are bounded. Under `block` a busy engine stops the reading of the speaker's socket;
under `drop_oldest` the oldest audio goes, and each hole is told as a gap and kept out of the
time stamps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import anyio
import msgspec

from actors.channel import AudioChannel, ChannelTally
from actors.errors import UpstreamLost
from actors.limits import Limits
from actors.messages import (
    AnyEvent,
    AudioFrame,
    AudioSpec,
    Gap,
    Recognition,
    Speaker,
    Speech,
    SpeechState,
    Transcript,
)
from actors.ports import Clock, Engine, Observer, Upstream
from actors.timeline import Timeline

Tell = Callable[[AnyEvent], None]
"""Sends an event to the session's own connection."""


class Subject(msgspec.Struct, frozen=True):
    """What a session is about: whose audio it is, and to which room its words go."""

    session: str
    key: str
    """The room within the node: tenant and name."""
    room: str
    speaker: Speaker
    audio: AudioSpec


class Outlet(Protocol):
    """What a session needs of the connection that it belongs to, and of the node."""

    clock: Clock
    limits: Limits
    observer: Observer
    ingress: ChannelTally
    upstream: ChannelTally

    async def publish_final(self, key: str, event: Transcript) -> None:
        """Store and deliver a final."""

    async def publish_partial(self, key: str, event: Transcript) -> None:
        """Deliver a partial."""


class SpeechSession:
    """A running speech session with its two channels and two loops."""

    def __init__(self, subject: Subject, engine: Engine, outlet: Outlet, tell: Tell) -> None:
        self.subject, self.engine = subject, engine
        self._outlet, self._tell = outlet, tell
        limits = outlet.limits
        self.ingress = AudioChannel(limits.ingress.frames, "block", outlet.ingress)
        self.upstream = AudioChannel(
            limits.upstream.frames, limits.upstream.policy, outlet.upstream
        )
        self.received = 0
        """Bytes of audio taken from the socket."""
        self.heard_at = outlet.clock.monotonic()
        """When the newest audio came."""
        self.told = 0.0
        """The lag that the speaker was told last, in seconds."""
        self.ending = False
        self._abandoned = self._feeding = False
        self._fed = 0
        self._stream: Upstream | None = None
        self._moved = (-1.0, self.heard_at)
        self._scope = anyio.CancelScope()
        self._ahead = anyio.current_time() - self.heard_at
        """Seconds from the clock's time to the event loop's, which a scope keeps."""
        self._timeline = Timeline(subject.audio.bytes_per_second)

    @property
    def seconds(self) -> float:
        """Seconds of audio received."""
        return self._timeline.seconds(self.received)

    @property
    def lag(self) -> float:
        """Seconds of received audio that the engine has not worked through."""
        if self._stream is None:
            return self.seconds

        return max(
            0.0, self._timeline.seconds(self.received) - self._timeline.shift(self._stream.heard)
        )

    def silence(self, now: float) -> float:
        """Seconds without audio; 0 while some waits, for then it is not the speaker who is late."""
        return 0.0 if self.ending or self.ingress.depth else now - self.heard_at

    def stalled(self, now: float) -> float:
        """Seconds for which the engine has left waiting audio untouched."""
        heard = -1.0 if self._stream is None else self._stream.heard
        if heard != self._moved[0] or not self.upstream.depth:
            self._moved = (heard, now)

        return now - self._moved[1]

    def hear_nowait(self, data: bytes) -> bool:
        """Take one frame of audio from the socket; False, and nothing, while ingress is full."""
        if not self.ingress.open:
            return False

        frame = self._note(data)
        if not self._bypass(frame):
            self.ingress.send_nowait(frame)
            self._route()

        return True

    async def hear(self, data: bytes) -> None:
        """Take one frame of audio from the socket; waits while ingress is full."""
        try:
            await self.ingress.send(self._note(data))
        except anyio.ClosedResourceError:
            return  # the session ended while this frame waited; its ending is told elsewhere

        self.heard_at = self._outlet.clock.monotonic()  # the wait was not the speaker's silence
        self._route()

    def end(self) -> None:
        """Take no more audio; what is here is still recognized and published. Idempotent."""
        self.ending = True
        self.ingress.end()
        self._route()

    def abandon(self, within: float) -> None:
        """End, and give up on what is not recognized within this many seconds."""
        self.end()
        self._abandoned = True
        self._allow(within)

    def report(self, state: SpeechState = "ready") -> None:
        """Tell the speaker how the session stands."""
        subject, self.told = self.subject, self.lag
        self._tell(
            Speech(
                room=subject.room,
                session=subject.session,
                state=state,
                engine=self.engine.name,
                received=self.received,
                lag=round(self.told, 3),
            )
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Carry the session to its end; call `ready` when the engine has accepted it.

        Raises Refused, UpstreamLost, or a bug, alone or in a group.
        """
        self._allow(self._outlet.limits.upstream.open_within)
        self.report("connecting")
        try:
            with self._scope:
                async with self.engine.open(self.subject.audio) as stream:
                    ready()
                    await self._converse(stream)
        finally:
            self.ending = True
            self.ingress.close()
            self.upstream.close()

        if self._scope.cancelled_caught:
            raise UpstreamLost(f"the engine {self.engine.name} missed its deadline")

    async def _converse(self, stream: Upstream) -> None:
        self._stream = stream
        self._route()
        if not self._abandoned:
            self._scope.deadline = math.inf

        self.report("ready")
        async with anyio.create_task_group() as loops:
            loops.start_soon(self._feed, stream)
            await self._listen(stream)
            loops.cancel_scope.cancel()

    def _note(self, data: bytes) -> AudioFrame:
        """Give a frame its place in the audio, and remember when it came."""
        frame = AudioFrame(self.received, data)
        self.received += len(data)
        self.heard_at = self._outlet.clock.monotonic()
        self._timeline.note(self.received, self.heard_at)
        return frame

    def _bypass(self, frame: AudioFrame) -> bool:
        """Give a frame to an engine that waits for it; waking a task up would cost more."""
        stream = self._stream
        if stream is None or self._feeding or self.ingress.depth or self.upstream.depth:
            return False

        if frame.position != self._fed or not stream.send_nowait(frame):
            return False

        self._fed += len(frame.data)
        return True

    def _route(self) -> None:
        """Move ingress to upstream, where the policy of the tenant decides."""
        ingress, upstream = self.ingress, self.upstream
        if self._stream is None:
            return

        while ingress.depth and upstream.open:
            upstream.send_nowait(ingress.receive_nowait())

        if ingress.finished:
            upstream.end()

    async def _feed(self, stream: Upstream) -> None:
        """Upstream to engine; a jump in position is audio that was let go."""
        try:
            while True:
                frame = await self.upstream.receive()
                self._feeding = True
                self._route()
                if frame.position != self._fed:
                    self._tell_hole(frame.position)

                await stream.send(frame)
                self._fed = frame.position + len(frame.data)
                self._feeding = False
        except anyio.EndOfStream:
            self._allow(self._outlet.limits.upstream.end_within)
            await stream.end()

    async def _listen(self, stream: Upstream) -> None:
        """Engine to room."""
        try:
            while True:
                recognition = await stream.receive()
                event = self._transcript(recognition)
                if recognition.final:
                    await self._outlet.publish_final(self.subject.key, event)
                    self._observe(event.end)
                else:
                    await self._outlet.publish_partial(self.subject.key, event)
        except anyio.EndOfStream:
            if not self.ending:
                raise UpstreamLost(f"the engine {self.engine.name} ended the stream") from None

    def _allow(self, seconds: float) -> None:
        """Bring the deadline of the session nearer; callable outside of any task."""
        now = self._outlet.clock.monotonic() + self._ahead
        self._scope.deadline = min(self._scope.deadline, now + seconds)

    def _transcript(self, heard: Recognition) -> Transcript:
        subject, start = self.subject, self._timeline.shift(heard.start)
        return Transcript(
            room=subject.room,
            segment=f"{subject.session}.{heard.segment}",
            revision=heard.revision,
            final=heard.final,
            text=heard.text,
            start=start,
            end=max(start, self._timeline.shift(heard.end, ends=True)),
            words=tuple(self._timeline.shift_word(word) for word in heard.words),
            speaker=subject.speaker,
            language=subject.audio.language,
            at=round(self._outlet.clock.wall(), 3),
        )

    def _tell_hole(self, position: int) -> None:
        self._timeline.add_hole(self._fed, position)
        self._tell(
            Gap(
                room=self.subject.room,
                first=self._fed,
                last=position - 1,
                reason="upstream_full",
                session=self.subject.session,
            )
        )

    def _observe(self, end: float) -> None:
        """Tell how long after the last sound of a final it was published."""
        came = self._timeline.came_at(end, self.heard_at)
        self._outlet.observer.latency("final", self._outlet.clock.monotonic() - came)
