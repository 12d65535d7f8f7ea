"""What a node does by the clock: probe its publish path, and look after what is late.

The sweep looks at mailboxes with something in them, connections that are closing, sessions that
are speaking and the tokens that expire in this second; what is idle costs nothing.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Set

import anyio

from actors.connection import ConnectionActor
from actors.errors import IDLE, RATE_LIMITED, TOKEN_EXPIRED, Close, Refused, SessionEnd
from actors.expiry import Expiries
from actors.fanout import Fanout
from actors.limits import Limits, SpeechLimits
from actors.messages import Message
from actors.meter import Meter
from actors.population import Endings
from actors.ports import Backplane, Clock
from actors.refusals import slowed
from actors.revocation import Name, names_of
from actors.speech import SpeechSession

log = logging.getLogger("roomcast.upkeep")

PROBE = "~probe"
"""Room of the readiness probe; no tenant can have it, for it lacks the tenant's slash."""
PROBE_EVERY = 2.0
PROBE_FRESH = 6.0
SWEEP_EVERY = 1.0
SLOWED_MOST = 5.0
"""Seconds for which the speakers of a tenant that is over its quota may have to wait."""
LAG_STEP = 0.25
"""A speaker is told its lag when it has changed by this many seconds."""


class Probe:
    """Publishes to a room of its own and waits to hear it: the proof behind readiness."""

    def __init__(self, backplane: Backplane, clock: Clock) -> None:
        self._backplane, self._clock = backplane, clock
        self._heard = -math.inf

    @property
    def age(self) -> float:
        """Seconds since a probe came back; infinite before the first."""
        return self._clock.monotonic() - self._heard

    @property
    def fresh(self) -> bool:
        """Whether the publish path worked a moment ago."""
        return self.age <= PROBE_FRESH

    def heard(self) -> None:
        """Note that a probe came back."""
        self._heard = self._clock.monotonic()

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            probe = Message(room=PROBE, data=None, sender="", at=self._clock.wall())
            try:
                await self._backplane.subscribe(PROBE)
                await self._backplane.publish(PROBE, probe)
            except (Refused, SessionEnd) as error:
                log.warning("the readiness probe failed: %s", error)

            await anyio.sleep(PROBE_EVERY)


class Upkeep:
    """The sets of what may become late, and the sweep over them."""

    def __init__(self, limits: Limits, backplane: Backplane, clock: Clock, fanout: Fanout) -> None:
        self._limits, self._backplane, self._clock = limits, backplane, clock
        self._meters, self._presence = fanout.meters, fanout.presence
        self.backlogged: set[ConnectionActor] = set()
        """Connections whose mailbox held something lately."""
        self.leaving: set[ConnectionActor] = set()
        """Connections that are closed and may still flush."""
        self.endings = Endings()
        self.expiries: Expiries[ConnectionActor] = Expiries()
        """Connections whose token expires."""
        self.speaking: dict[str, SpeechSession] = {}
        """Running sessions by id, those whose connection is lost among them."""
        self.resume_grace = SpeechLimits().resume_grace
        """Seconds for which a session waits for its speaker to come back."""

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await anyio.sleep(SWEEP_EVERY)
            self.sweep(self._clock.monotonic())

    def resumable(self, session: str, key: str, owner: str) -> SpeechSession:
        """Return a running session of this room and owner. Raises Refused("unknown_session")."""
        found = self.speaking.get(session)
        known = found is not None and (found.subject.key, found.subject.owner) == (key, owner)
        if found is None or not known or found.ending:
            message = "there is no such session in this room, or no more; start another one"
            raise Refused("unknown_session", message, "resume", "speech.resume_grace")

        return found

    def abandon_lost(self, tenant: str, names: Set[Name]) -> None:
        """End the sessions that wait for somebody who was revoked under one of these names."""
        for session in self.speaking.values():
            who = session.lost_by if session.holder is None else None
            if who is not None and who.tenant == tenant and not names.isdisjoint(names_of(who)):
                session.abandon(self._limits.upstream.end_within)

    def sweep(self, now: float) -> None:
        """End what is late: readers, tokens, sockets that do not flush, silent sessions."""
        limits = self._limits
        self.endings.end(self._overdue(now))
        for actor in list(self.leaving):
            if now - actor.ended > limits.egress.flush_within:
                actor.transport.abort()

        expired = TOKEN_EXPIRED.because("the token has expired; come back with another")
        self.endings.end((each, expired) for each in self.expiries.due(self._clock.wall()))
        for session in list(self.speaking.values()):
            try:
                self._look_after(session, now)
            except Exception:  # it must not be the end of the node
                log.exception("session %s: the sweep failed", session.subject.session)

        self._meters.sweep(now)
        self._presence.tell()
        self._ration(now)
        self._backplane.sweep(now)

    def _overdue(self, now: float) -> Iterator[tuple[ConnectionActor, Close]]:
        """Yield who reads too slowly; forget who has caught up."""
        for actor in list(self.backlogged):
            if slow := actor.egress.overdue(now):
                yield actor, slow.close
            elif not actor.egress:
                self.backlogged.discard(actor)

    def _ration(self, now: float) -> None:
        """Read the speakers of a tenant no further while it has had more audio than its quota.

        If they would have to wait too long, those that have begun last and are too many are closed:
        the others would only fall further behind.
        """
        waiting: defaultdict[Meter, list[SpeechSession]] = defaultdict(list)
        for session in self.speaking.values():
            meter, ingress = self._meters.of_key(session.subject.key), session.intake.ingress
            debt = 0.0 if session.ending else meter.audio_debt(now)
            if debt and session.holder is not None:
                if not ingress.held:
                    over = meter.over("audio_seconds_per_minute", debt)
                    session.holder.tell(slowed(over, session.subject.room))

                if debt > SLOWED_MOST:
                    waiting[meter].append(session)

            ingress.hold(debt > 0)

        for meter, sessions in waiting.items():
            over = meter.over("audio_seconds_per_minute", meter.audio_debt(now))
            close = RATE_LIMITED.because(over.message, over.retry_after)
            for session in sessions[meter.fitting :]:
                session.intake.ingress.hold(False)
                if session.holder is not None:
                    session.holder.close(close)

    def _look_after(self, session: SpeechSession, now: float) -> None:
        """End a session that is silent or was not resumed; find out whether its engine works."""
        limits, holder = self._limits, session.holder
        session.line.watch(now)
        if holder is None:
            if not session.ending and now - session.lost_at > self.resume_grace:
                session.abandon(limits.upstream.end_within)
        elif session.silence(now) > limits.speech_idle:
            limit = f"{limits.speech_idle:g} seconds (limits.speech_idle)"
            holder.close(IDLE.because(f"no audio for {limit}"))
        elif abs(session.lag - session.told) >= LAG_STEP:
            session.report()
