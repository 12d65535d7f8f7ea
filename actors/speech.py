"""One speaker's session: its audio goes down a line to an engine, recognitions go to the room.

A session belongs to a connection and may outlive it: one that was lost can be resumed from
another connection, and the engine notices nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import msgspec
from msgspec import UNSET

from actors.errors import Refused, UpstreamLost
from actors.intake import Intake
from actors.line import Line
from actors.messages import Ack, CommandId, Gap, Recognition, Speech, SpeechState, Transcript
from actors.ports import Decoder, Engine
from actors.principal import Principal
from actors.roles import Holder, Outlet, Subject, stem_of

GAPS = 256
"""Gaps that are kept for who resumes; beyond them the oldest is forgotten."""
FLUSHES = 16
"""Flushes that may wait for their answers."""


class SpeechSession:
    """A speech session, from its start to its last final."""

    def __init__(
        self, subject: Subject, engines: Sequence[Engine], decoder: Decoder | None, outlet: Outlet
    ) -> None:
        self.subject, self._stem = subject, stem_of(subject.session)
        self._outlet = outlet
        limits, clock = outlet.limits_of(subject.tenant), outlet.clock
        self.intake = Intake(subject.audio, decoder, limits, outlet.audio, clock)
        self.line = Line(engines, self.intake, self, limits, clock)
        self.holder: Holder | None = None
        """The connection that is told how the session stands; None while it is lost."""
        self.lost_at = 0.0
        """When the connection was lost."""
        self.lost_by: Principal | None = None
        """Whose connection that was."""
        self.told = 0.0
        """The lag that the speaker was told last, in seconds."""
        self.ending = False
        self._state: SpeechState = "connecting"
        self._flushes: deque[CommandId | None] = deque()
        self._untold: deque[Gap] = deque(maxlen=GAPS)
        """Gaps of the time in which nobody holds the session."""
        self._ready: Callable[[], None] | None = lambda: None
        self._scope = anyio.CancelScope()
        self._ahead = anyio.current_time() - clock.monotonic()
        """Seconds from the clock's time to the event loop's, which a scope keeps."""

    @property
    def engine(self) -> Engine:
        """The engine that listens, or that is dialled."""
        return self.line.engine

    @property
    def ready(self) -> bool:
        """Whether an engine has accepted it."""
        return self._ready is None

    @property
    def received(self) -> int:
        """Bytes of audio taken from the socket, as they were sent."""
        return self.intake.received

    @property
    def seconds(self) -> float:
        """Seconds of audio received."""
        return self.intake.seconds

    @property
    def lag(self) -> float:
        """Seconds of received audio that the engine has not worked through."""
        return max(0.0, self.seconds - self.intake.timeline.shift(self.line.heard))

    def silence(self, now: float) -> float:
        """Seconds without audio; 0 while some waits, for then it is not the speaker who is late."""
        ingress = self.intake.ingress
        if self.ending or self.holder is None or ingress.depth or ingress.held:
            return 0.0

        return now - self.intake.heard_at

    def keep_alive(self) -> None:
        """Let the time without audio begin anew."""
        self.intake.heard_at = self._outlet.clock.monotonic()

    def end(self) -> None:
        """Take no more audio; what is here is still recognized and published. Idempotent."""
        if not self.ending:
            limits = self._outlet.limits.upstream
            self._allow(limits.lost_within + limits.end_within)  # however often it is dialled again

        self.ending = True
        self.intake.end()

    def abandon(self, within: float) -> None:
        """End, and give up on what is not recognized within this many seconds."""
        self.end()
        self._allow(within)

    def detach(self, principal: Principal) -> None:
        """The connection of somebody is lost; another one may resume the session."""
        self.holder, self.lost_by = None, principal
        self.lost_at = self._outlet.clock.monotonic()

    async def attach(self, holder: Holder) -> None:
        """Go on with another connection; the one before is let go if it still seems to be there."""
        old, self.holder = self.holder, holder
        if old is not None:
            old.replaced()

        await self.intake.undisturbed()
        self.intake.restart()
        self.keep_alive()
        self._flushes = deque([None] * len(self._flushes))  # the ids are those of somebody else
        self.report("resumed")
        while self._untold:
            holder.tell(self._untold.popleft())

    async def flush(self, command_id: CommandId | None) -> None:
        """Ask for the final of what was said so far; waits until the engine has its audio.

        Raises Refused("limit_exceeded").
        """
        if len(self._flushes) >= FLUSHES:
            raise Refused("limit_exceeded", f"{FLUSHES} flushes wait for their answers")

        await self.intake.drained()
        self._flushes.append(command_id)
        if not await self.line.flush() and self._flushes:
            self._flushes.pop()
            self._acknowledge(command_id)

    def report(self, state: SpeechState | None = None, message: str = "") -> None:
        """Tell the speaker how the session stands."""
        self.told = self.lag
        if self.holder is not None:
            self.holder.tell(
                Speech(
                    room=self.subject.room,
                    session=self.subject.session,
                    state=state or self._state,
                    engine=self.engine.name,
                    received=self.received,
                    lag=round(self.told, 3),
                    message=message or UNSET,
                )
            )

    async def run(self, ready: Callable[[], None]) -> None:
        """Carry the session to its end; call `ready` when an engine has accepted it.

        Raises Refused, UpstreamLost, or a bug, alone or in a group.
        """
        self._ready = ready
        self.report()
        try:
            try:
                with self._scope:
                    await self._work()
            finally:
                await self.line.settle()
        finally:
            self.ending = True
            self.intake.close()
            self.answered_all()

        if self._scope.cancelled_caught:
            raise UpstreamLost(f"the engine {self.engine.name} missed its deadline")

    async def _work(self) -> None:
        if not self.intake.decodes:
            await self.line.run()
            return

        async with anyio.create_task_group() as work:
            work.start_soon(self.intake.decode)
            await self.line.run()
            work.cancel_scope.cancel()

    async def recognized(self, heard: Recognition) -> None:
        """Publish what was recognized, and tell the speaker if that is wanted."""
        event, key = self._transcript(heard), self.subject.key
        if heard.final:
            place = await self._outlet.publish_final(key, event)
            self._observe(event.end)
        else:
            await self._outlet.publish_partial(key, event)

        if self.subject.transcripts and self.holder is not None:
            if heard.final:
                event = msgspec.structs.replace(event, epoch=place.epoch, offset=place.offset)

            self.holder.tell(event)

    def answered(self) -> None:
        """Acknowledge the oldest flush."""
        if self._flushes:
            self._outlet.flush()  # what it brought to light goes first
            self._acknowledge(self._flushes.popleft())

    def answered_all(self) -> None:
        """Acknowledge every flush: nothing more comes."""
        while self._flushes:
            self.answered()

    def hole(self, first: int, after: int, sent: bool) -> None:
        """Tell the speaker what will not be recognized."""
        timeline = self.intake.timeline
        if sent:
            self._outlet.audio.unheard_bytes += after - first
            first, after = timeline.place(first), timeline.place(after - 1) + 1
        else:
            timeline.add_hole(first, after)

        gap = Gap(
            room=self.subject.room,
            first=first,
            last=after - 1,
            reason="replay_full" if sent else "upstream_full",
            session=self.subject.session,
        )
        if self.holder is None:
            self._untold.append(gap)
        else:
            self.holder.tell(gap)

    def unserved(self, failure: Refused | UpstreamLost) -> None:
        """Let the operator know; the client is told once there is no more hope."""
        if not (isinstance(failure, Refused) and failure.code == "unsupported_audio"):
            now = self._outlet.clock.monotonic()
            self._outlet.audio.failed(self.engine.name, str(failure), now)

    def stands(self, state: SpeechState, message: str = "") -> None:
        """Keep and tell the state of the line."""
        self._state = "ready" if state == "recovered" else state
        if state == "lost":
            now = self._outlet.clock.monotonic()
            self._outlet.audio.lost(self.engine.name, message, now)

        if self._ready is not None and state == "ready":
            ready, self._ready = self._ready, None
            ready()

        self.report(state, message)

    def finishing(self) -> None:
        """Give the engine a time for what is left."""
        self._allow(self._outlet.limits.upstream.end_within)

    def _allow(self, seconds: float) -> None:
        """Bring the deadline of the session nearer; callable outside of any task."""
        now = self._outlet.clock.monotonic() + self._ahead
        self._scope.deadline = min(self._scope.deadline, now + seconds)

    def _acknowledge(self, command_id: CommandId | None) -> None:
        if self.holder is not None and command_id is not None:
            at = self._outlet.clock.wall()
            self.holder.tell(Ack(id=command_id, at=at, session=self.subject.session))

    def _transcript(self, heard: Recognition) -> Transcript:
        subject, timeline = self.subject, self.intake.timeline
        start = timeline.shift(heard.start)
        return Transcript(
            room=subject.room,
            segment=f"{self._stem}.{heard.segment}",
            revision=heard.revision,
            final=heard.final,
            text=heard.text,
            start=start,
            end=max(start, timeline.shift(heard.end, ends=True)),
            words=timeline.shift_words(heard.words),
            speaker=subject.speaker,
            language=subject.audio.language,
            at=round(self._outlet.clock.wall(), 3),
        )

    def _observe(self, end: float) -> None:
        """Tell how long after the last sound of a final it was published."""
        came = self.intake.timeline.came_at(end, self.intake.heard_at)
        self._outlet.observer.latency("final", self._outlet.clock.monotonic() - came)
