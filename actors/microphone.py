"""The speaking side of a connection: audio that comes early, the session, and how it ends."""

from __future__ import annotations

import logging
from typing import Literal, Protocol

import anyio

from actors.catalog import Catalog, spec_of
from actors.commands import Flush, Start, Stop
from actors.errors import (
    FORBIDDEN,
    GONE,
    NORMAL,
    REPLACED,
    SLOW_CONSUMER,
    Close,
    Refused,
    SessionEnd,
    ending,
    find,
    is_bug,
    verdict,
)
from actors.messages import Ack, AnyEvent, CommandId, Speaker, Speech
from actors.ports import Work
from actors.principal import Principal
from actors.refusals import lost
from actors.roles import Outlet, Subject
from actors.speech import SpeechSession

log = logging.getLogger("roomcast.speech")

Kind = Literal["speak", "listen", "connect"]
LOST = (GONE.code, SLOW_CONSUMER.code)
"""Endings of a connection that nobody meant: its session waits to be resumed."""


class Connection(Protocol):
    """The connection that a microphone belongs to."""

    id: str
    kind: Kind
    principal: Principal

    @property
    def open(self) -> bool:
        """Whether it has not ended."""

    def tell(self, event: AnyEvent) -> None:
        """Send an event to this connection alone."""

    def refuse(self, refusal: Refused) -> None:
        """Answer a command with an error."""

    def close(self, close: Close) -> None:
        """End the connection."""


class Studio(Outlet, Protocol):
    """What a microphone needs of the node."""

    catalog: Catalog

    @property
    def resume_grace(self) -> float:
        """Seconds for which the session of a lost connection can be resumed."""

    def carry(self, session: SpeechSession, run: Work) -> None:
        """Run a session in a task of the node."""

    async def reserve(self, key: str) -> None:
        """See that a room can be published to. Raises Refused."""

    def resumable(self, session: str, key: str, owner: str) -> SpeechSession:
        """Return a running session of this room and owner. Raises Refused("unknown_session")."""

    def new_id(self) -> str:
        """Make an identifier that nobody can guess."""


class Microphone:
    """At most one speech session at a time, and the audio that waits for one."""

    def __init__(self, connection: Connection, studio: Studio) -> None:
        self._connection, self._studio = connection, studio
        self.session: SpeechSession | None = None
        self._hearing = anyio.CancelScope()
        self._early: list[bytes] = []
        self._refused = self._stopped = self._used = False
        self._unanswered: list[CommandId | None] = []
        """The commands that wait for the session: its start, then its stop."""

    async def start(self, command: Start) -> None:
        """Begin a session, or resume one; the ack, or a refusal, comes with the engine's answer.

        Raises Refused.
        """
        self._connection.principal.require(command.room, "speak")
        if self.session is not None:
            raise Refused(
                "already_started", "this connection has a speech session; send stop first"
            )

        session = await (self._resume(command) if command.resume else self._begin(command))
        early, self._early, self._refused, self._used = self._early, [], False, True
        with anyio.CancelScope() as self._hearing:
            for data in early:
                await session.intake.hear(data)

    def hear_nowait(self, data: bytes) -> bool:
        """Take a frame of audio if a session has room for it; False says that it needs `hear`."""
        session = self.session
        if session is None or session.ending or not data:
            return False

        return session.intake.hear_nowait(data)

    async def hear(self, data: bytes) -> None:
        """Take a frame of audio; waits while ingress is full. Raises Refused."""
        if not data:
            raise Refused("bad_message", "an audio frame is empty; send stop to end the speech")

        if self.session is not None and not self.session.ending:
            with anyio.CancelScope() as self._hearing:
                await self.session.intake.hear(data)
        else:
            self._hold(data)

    async def flush(self, command: Flush) -> None:
        """Ask for the final of what was said so far; the ack comes after it. Raises Refused."""
        if self.session is None or self.session.ending:
            raise Refused("not_started", "there is no speech session to flush")

        await self.session.flush(command.id)

    def stop(self, command: Stop) -> None:
        """End the session; the ack comes after its last final. Raises Refused."""
        if self.session is None or self.session.ending:
            raise Refused("not_started", "there is no speech session to stop")

        self._stopped = True
        self._unanswered.append(command.id)
        self.session.end()

    def confine(self) -> None:
        """End the session if its room is one that the connection's token does not cover."""
        connection, session = self._connection, self.session
        if session is None or connection.principal.may(session.subject.room, "speak"):
            return

        connection.tell(lost(session.subject.room, "the speech has ended"))
        if connection.kind == "speak":
            connection.close(FORBIDDEN.because("the new token does not cover the room"))
        else:
            session.abandon(self._studio.limits.upstream.end_within)

    def leave(self, close: Close) -> None:
        """The connection ends: so does its session, unless it was lost and may be resumed."""
        self._early = []
        session = self.session
        if session is None:
            return

        if close.code in LOST and self._studio.resume_grace and not session.ending:
            self.session = None
            session.detach(self._connection.principal)
        else:
            session.abandon(self._studio.limits.upstream.end_within)

    def tell(self, event: AnyEvent) -> None:
        """Send an event to the connection."""
        self._connection.tell(event)

    def close(self, close: Close) -> None:
        """End the connection."""
        self._connection.close(close)

    def replaced(self) -> None:
        """Another connection has resumed the session: this one has nothing left to do."""
        self.session = None
        self._hearing.cancel()
        self._connection.close(REPLACED.because("another connection has resumed the session"))

    def over(self, error: Exception | None) -> None:
        """Tell why a session ended: a refusal answers what is still unanswered."""
        session, stopped = self.session, self._stopped
        assert session is not None
        unanswered, self._unanswered = self._unanswered, []
        self.session, self._stopped = None, False
        refusal = None if error is None or is_bug(error) else find(error, Refused)
        if refusal is not None:
            if session.ready:
                session.report("ended")

            for refusal.id in unanswered or [None]:
                self._connection.refuse(refusal)

            if self._connection.kind == "speak":
                self.close(ending(refusal))
        elif error is not None:
            self.close(verdict(error))
        else:
            session.report("ended")
            for command_id in unanswered:
                self._acknowledge(command_id, session)

            if self._connection.kind == "speak" and stopped:
                self.close(NORMAL)

    async def _begin(self, command: Start) -> SpeechSession:
        studio, principal = self._studio, self._connection.principal
        key = principal.key(command.room)
        await studio.reserve(key)
        if not self._connection.open:
            raise SessionEnd(GONE)  # while it waited: nobody would ever end the session

        audio = spec_of(command)
        engines = studio.catalog.choose(command.engine, audio, principal.tenant)
        subject = Subject(
            session=studio.new_id(),
            key=key,
            room=command.room,
            speaker=Speaker(
                principal.subject or self._connection.id, command.name or principal.name
            ),
            audio=audio,
            transcripts=command.transcripts,
            owner=principal.subject,
        )
        decoder = studio.catalog.decoders.open(audio)
        session = self.session = SpeechSession(subject, engines, decoder, studio)
        session.holder = self
        self._unanswered.append(command.id)
        studio.carry(session, lambda: self._run(session))
        return session

    async def _resume(self, command: Start) -> SpeechSession:
        principal = self._connection.principal
        key = principal.key(command.room)
        session = self._studio.resumable(command.resume, key, principal.subject)
        session.subject.check_resume(command)
        self.session = session
        await session.attach(self)
        self._acknowledge(command.id, session)
        return session

    def _hold(self, data: bytes) -> None:
        """Keep audio that came before the first `start`, within the bound of ingress.

        What comes between two sessions was meant for the one before and is dropped; both drops
        are refused once.
        """
        limits = self._studio.limits.ingress
        limit = 0 if self._used else limits.frames
        held = sum(map(len, self._early)) + len(data)
        if len(self._early) < limit and held <= limits.early_bytes:
            self._early.append(data)
            if len(self._early) == 1:
                self._connection.tell(Speech(state="waiting", received=held))

            return

        self._studio.audio.ingress.dropped += 1
        if not self._refused:
            self._refused = True
            waiting = len(self._early)
            why = f"{waiting} frames wait for a start command" if limit else "no session is running"
            raise Refused(
                "audio_before_start",
                f"{why}; further audio is dropped",
                setting="limits.ingress" if limit else "",
            )

    async def _run(self, session: SpeechSession) -> None:
        """Carry a session to its end, in a task of the node, whoever holds it by then."""
        failure: Exception | None = None
        try:
            await session.run(lambda: self._started(session))
        except Exception as error:
            if is_bug(failure := error):
                log.error("session of %s failed", self._connection.id, exc_info=error)

        try:
            if session.holder is not None:
                session.holder.over(failure)
        except Exception:  # it must not be the end of the node
            log.exception("the end of a session of %s was not told", self._connection.id)

    def _started(self, session: SpeechSession) -> None:
        """Acknowledge the start, if this connection is still there for it."""
        if session.holder is self and self._unanswered:
            self._acknowledge(self._unanswered.pop(0), session)

    def _acknowledge(self, command_id: CommandId | None, session: SpeechSession) -> None:
        if command_id is not None:
            at = self._studio.clock.wall()
            self._connection.tell(Ack(id=command_id, at=at, session=session.subject.session))
