"""The speaking side of a connection: audio that comes early, the session, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from actors.errors import INTERNAL, NORMAL, OVERLOAD, Close, Refused, find, verdict
from actors.messages import Ack, AnyEvent, AudioSpec, CommandId, Speaker, Speech, Start, Stop
from actors.ports import Engine, Work
from actors.speech import Outlet, SpeechSession, Subject

log = logging.getLogger("roomcast.speech")

Kind = Literal["speak", "listen", "connect"]


class Principal(msgspec.Struct, frozen=True):
    """Who is behind a connection."""

    tenant: str
    subject: str = ""
    name: str = ""

    def key(self, room: str) -> str:
        """Name a room of this principal's tenant within the node."""
        return f"{self.tenant}/{room}"


class Holder(Protocol):
    """The connection that a microphone belongs to."""

    id: str
    kind: Kind
    principal: Principal

    def tell(self, event: AnyEvent) -> None:
        """Send an event to this connection alone."""

    def refuse(self, refusal: Refused) -> None:
        """Answer a command with an error."""

    def close(self, close: Close) -> None:
        """End the connection."""


class Studio(Outlet, Protocol):
    """What a microphone needs of the node."""

    def carry(self, session: SpeechSession, run: Work, close: Callable[[Close], None]) -> None:
        """Run a session in a task of the node; `close` ends the connection that it belongs to."""

    async def reserve(self, key: str) -> None:
        """See that a room can be published to. Raises Refused."""

    def engine(self, name: str) -> Engine:
        """Return an engine by its configured name. Raises Refused("unknown_engine")."""

    def new_id(self) -> str:
        """Make an identifier that nobody can guess."""


class Microphone:
    """At most one speech session at a time, and the audio that waits for one."""

    def __init__(self, holder: Holder, studio: Studio) -> None:
        self._holder, self._studio = holder, studio
        self.session: SpeechSession | None = None
        self._early: list[bytes] = []
        self._refused = self._stopped = self._used = False
        self._stop_id: CommandId | None = None

    async def start(self, command: Start) -> None:
        """Begin a session; the ack, or the engine's refusal, comes when the engine has answered.

        Raises Refused.
        """
        if self.session is not None:
            raise Refused(
                "already_started", "this connection has a speech session; send stop first"
            )

        holder, studio = self._holder, self._studio
        key = holder.principal.key(command.room)
        await studio.reserve(key)
        engine = studio.engine(command.engine)
        audio = AudioSpec(command.encoding, command.rate, command.channels, command.language)
        engine.check(audio)
        principal = holder.principal
        subject = Subject(
            session=studio.new_id(),
            key=key,
            room=command.room,
            speaker=Speaker(principal.subject or holder.id, command.name or principal.name),
            audio=audio,
        )
        session = self.session = SpeechSession(subject, engine, studio, holder.tell)
        studio.carry(session, lambda: self._run(session, command.id), holder.close)
        early, self._early, self._refused, self._used = self._early, [], False, True
        for data in early:
            await session.hear(data)

    def hear_nowait(self, data: bytes) -> bool:
        """Take a frame of audio if a session has room for it; False says that it needs `hear`."""
        session = self.session
        if session is None or session.ending or not data:
            return False

        return session.hear_nowait(data)

    async def hear(self, data: bytes) -> None:
        """Take a frame of audio; waits while ingress is full. Raises Refused."""
        if not data:
            raise Refused("bad_message", "an audio frame is empty; send stop to end the speech")

        if self.session is not None and not self.session.ending:
            await self.session.hear(data)
        else:
            self._hold(data)

    def stop(self, command: Stop) -> None:
        """End the session; the ack comes after its last final. Raises Refused."""
        if self.session is None or self.session.ending:
            raise Refused("not_started", "there is no speech session to stop")

        self._stopped, self._stop_id = True, command.id
        self.session.end()

    def abandon(self, within: float) -> None:
        """End the session, and give up on what is not recognized within this many seconds."""
        self._early = []
        if self.session is not None:
            self.session.abandon(within)

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
                self._holder.tell(Speech(state="waiting", received=held))

            return

        self._studio.ingress.dropped += 1
        if not self._refused:
            self._refused = True
            waiting = len(self._early)
            why = f"{waiting} frames wait for a start command" if limit else "no session is running"
            raise Refused(
                "audio_before_start",
                f"{why}; further audio is dropped",
                setting="limits.ingress" if limit else "",
            )

    async def _run(self, session: SpeechSession, start_id: CommandId | None) -> None:
        """Carry the session to its end, in a task of the node."""
        pending = [start_id]
        try:
            await session.run(lambda: self._acknowledge(pending.pop()))
        except Exception as error:
            self._fail(error, session, pending)
        else:
            session.report("ended")
            self._acknowledge(self._stop_id)
            if self._holder.kind == "speak" and self._stopped:
                self._holder.close(NORMAL)
        finally:
            self.session, self._stopped, self._stop_id = None, False, None

    def _fail(
        self, error: Exception, session: SpeechSession, pending: list[CommandId | None]
    ) -> None:
        """Tell why a session ended: a refusal answers what is still unanswered."""
        refusal = find(error, Refused)
        if refusal is None:
            close = verdict(error)
            if close.code == INTERNAL.code:
                log.error("session of %s failed", self._holder.id, exc_info=error)

            self._holder.close(close)
            return

        if not pending:
            session.report("ended")

        unanswered = [*pending, *([] if self._stop_id is None else [self._stop_id])]
        for refusal.id in unanswered or [None]:
            self._holder.refuse(refusal)

        if self._holder.kind == "speak":
            self._holder.close(OVERLOAD.because(str(refusal)))

    def _acknowledge(self, command_id: CommandId | None) -> None:
        if command_id is not None and self.session is not None:
            session = self.session.subject.session
            self._holder.tell(Ack(id=command_id, at=self._studio.clock.wall(), session=session))
