"""What each tenant uses of the node, beside what it may use. Time is an argument.

A meter is made for a tenant that a verified token names, so their number is bounded by the
settings. Its tables hold what is open now: they are as long as there are connections, joined rooms
and sessions, and the next one of those is refused when its quota, or the node's limit, is full.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from actors.errors import Refused
from actors.pace import Pace
from actors.principal import Principal
from actors.quota import UNLIMITED, Bucket, Quotas, renew

RETRY_AFTER = 5.0
"""Seconds after which to try again where somebody has to leave first."""


class Audible(Protocol):
    """A speech session."""

    ending: bool

    @property
    def seconds(self) -> float:
        """Seconds of audio received."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant uses now, and what it has used since the node began."""

    connections: int
    rooms: int
    speakers: int
    engine_streams: int
    audio_seconds: float
    publishes: int
    published_bytes: int
    deliveries: int
    delivered_bytes: int


class Meter:
    """Counts what one tenant does, and refuses what is over its quotas."""

    def __init__(self, tenant: str, quotas: Quotas, now: float) -> None:
        self.tenant, self.quotas = tenant, quotas
        self.connections = self.publishes = self.published_bytes = 0
        self.deliveries = self.delivered_bytes = 0
        self.audio_seconds = 0.0
        self.rooms: Counter[str] = Counter()
        """Who uses a room, by key: its members together, those about to join, and sessions."""
        self.sessions: dict[Audible, float] = {}
        """Running sessions, with the seconds of audio that are counted already."""
        self.commands, self.replays = Pace(), Pace()
        """Hold up commands, and joins that ask for a part of the history."""
        self._subjects: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._publishes: Bucket | None = None
        self._bytes: Bucket | None = None
        self._audio: Bucket | None = None
        self.adopt(quotas, now)

    def adopt(self, quotas: Quotas, now: float) -> None:
        """Go by other quotas from here on; nobody is sent away for them."""
        self.quotas = quotas
        self._publishes = renew(
            self._publishes, quotas.publishes_per_second, quotas.publishes_burst, now
        )
        self._bytes = renew(self._bytes, quotas.bytes_per_second, quotas.bytes_burst, now)
        self.commands.adopt(quotas.commands_per_second, quotas.commands_burst, now)
        self.replays.adopt(quotas.replayed_bytes_per_second, quotas.replayed_bytes_burst, now)
        a_minute, burst = quotas.audio_seconds_per_minute, quotas.audio_seconds_burst
        self._audio = renew(self._audio, a_minute / 60, burst, now)

    def admit(self, principal: Principal, address: str) -> None:
        """Say whether one more connection fits. Raises Refused."""
        quotas, subject = self.quotas, principal.subject
        if 0 < quotas.connections <= self.connections:
            raise self.over("connections")

        if subject and 0 < quotas.connections_per_subject <= self._subjects[subject]:
            raise self.over("connections_per_subject")

        if address and 0 < quotas.connections_per_address <= self._addresses[address]:
            raise self.over("connections_per_address")

    def enter(self, principal: Principal, address: str) -> Refused | None:
        """Count a connection; return what should have kept it out, if it came all the same."""
        over = None
        try:
            self.admit(principal, address)
        except Refused as refused:
            over = refused

        self.connections += 1
        if principal.subject:
            self._subjects[principal.subject] += 1

        if address:
            self._addresses[address] += 1

        return over

    def leave(self, principal: Principal, address: str) -> None:
        """A connection that was counted has ended."""
        self.connections -= 1
        _forget(self._subjects, principal.subject)
        _forget(self._addresses, address)

    @contextmanager
    def visit(self, key: str) -> Iterator[None]:
        """Keep a room's place while somebody is about to join it. Raises Refused."""
        self.check_room(key)
        self.use(key)
        try:
            yield
        finally:
            self.disuse(key)

    def check_room(self, key: str) -> None:
        """Raise Refused for a room that would be one too many."""
        if key not in self.rooms and 0 < self.quotas.rooms <= len(self.rooms):
            raise self.over("rooms")

    def check_members(self, members: int) -> None:
        """Raise Refused if a room has its members."""
        if 0 < self.quotas.members <= members:
            raise self.over("members")

    def use(self, key: str) -> None:
        """Count a user of a room."""
        self.rooms[key] += 1

    def disuse(self, key: str) -> None:
        """Forget a user of a room, and the room with the last one."""
        _forget(self.rooms, key)

    def check_speaker(self, key: str, now: float) -> None:
        """Say whether one more session may begin in a room. Raises Refused."""
        self.check_room(key)
        quotas = self.quotas
        if 0 < quotas.engine_streams <= len(self.sessions):
            raise self.over("engine_streams")

        if 0 < quotas.speakers <= self.speakers:
            raise self.over("speakers")

        if wait := self.audio_debt(now):
            raise self.over("audio_seconds_per_minute", wait)

    @property
    def speakers(self) -> int:
        """Sessions that take audio."""
        return sum(not each.ending for each in self.sessions)

    def begin(self, session: Audible, key: str) -> None:
        """Count a session that begins."""
        self.sessions[session] = session.seconds
        self.use(key)

    def end(self, session: Audible, key: str, now: float) -> None:
        """Count the rest of a session that has ended."""
        self._hear(session, now)
        del self.sessions[session]
        self.disuse(key)

    def listen(self, now: float) -> None:
        """Count the audio that has come since the last time."""
        for session in self.sessions:
            self._hear(session, now)

    def audio_debt(self, now: float) -> float:
        """Return the seconds for which no more audio should come."""
        return 0.0 if self._audio is None else self._audio.debt(now)

    @property
    def fitting(self) -> int:
        """Speakers whose audio fits the quota if it comes as it is spoken; one at least."""
        return max(1, self.quotas.audio_seconds_per_minute // 60)

    def check_publish(self, now: float) -> None:
        """Take the place of one message. Raises Refused."""
        if self._publishes is not None and (wait := self._publishes.take(1, now)):
            raise self.over("publishes_per_second", wait)

    def check_broadcast(self, rooms: int, now: float) -> None:
        """Take the place of a message to each room, on credit once the first one fits.

        Raises Refused.
        """
        if rooms:
            self.check_publish(now)
            if self._publishes is not None:
                self._publishes.spend(rooms - 1, now)

    def check_bytes(self, size: int, now: float, credit: bool = False) -> None:
        """Take a message's bytes, on credit if that is given. Raises Refused."""
        bucket = self._bytes
        if bucket is not None and credit:
            bucket.spend(size, now)
            return

        if bucket is None or not (wait := bucket.take(size, now)):
            return

        if wait < math.inf:
            raise self.over("bytes_per_second", wait)

        most = self.quotas.bytes_burst
        message = f"the message has {size} bytes, and the tenant's quota bytes_burst is {most}"
        raise Refused("too_big", message, "data", f"tenants.{self.tenant}.quotas.bytes_burst")

    def published(self, size: int) -> None:
        """Count a message that was published."""
        self.publishes += 1
        self.published_bytes += size

    def over(self, quota: str, retry_after: float = RETRY_AFTER) -> Refused:
        """Make the refusal that names a quota and its value."""
        path = f"tenants.{self.tenant}.quotas.{quota}"
        message = f"the tenant's quota {quota} is {getattr(self.quotas, quota)}"
        return Refused("quota_exceeded", message, "", path, math.ceil(retry_after * 1000) / 1000)

    def usage(self, now: float) -> Usage:
        """Return all counts at this moment."""
        self.listen(now)
        return Usage(
            connections=self.connections,
            rooms=len(self.rooms),
            speakers=self.speakers,
            engine_streams=len(self.sessions),
            audio_seconds=round(self.audio_seconds, 3),
            publishes=self.publishes,
            published_bytes=self.published_bytes,
            deliveries=self.deliveries,
            delivered_bytes=self.delivered_bytes,
        )

    def _hear(self, session: Audible, now: float) -> None:
        seconds = session.seconds
        new = seconds - self.sessions[session]
        self.sessions[session] = seconds
        self.audio_seconds += new
        if self._audio is not None and new > 0:
            self._audio.spend(new, now)


class Meters:
    """The meters of a node, by tenant."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._meters: dict[str, Meter] = {}
        self.quotas_of: Callable[[str], Quotas] = lambda tenant: UNLIMITED
        """Says what a tenant may use; asked once a second."""

    def of(self, tenant: str) -> Meter:
        """Return the meter of a tenant that a verified token has named."""
        meter = self._meters.get(tenant)
        if meter is None:
            meter = self._meters[tenant] = self.look(tenant)

        return meter

    def look(self, tenant: str) -> Meter:
        """Return the meter of a tenant, or for want of one a blank one that nobody keeps."""
        found = self._meters.get(tenant)
        return found or Meter(tenant, self.quotas_of(tenant), self._monotonic())

    def of_key(self, key: str) -> Meter:
        """Return the meter of the tenant of a room that is in use."""
        return self.of(key.partition("/")[0])

    def sweep(self, now: float) -> None:
        """Adopt quotas that have changed, and count the audio that has come."""
        for tenant, meter in self._meters.items():
            quotas = self.quotas_of(tenant)
            if quotas is not meter.quotas:
                meter.adopt(quotas, now)

            meter.listen(now)


def _forget(counts: Counter[str], name: str) -> None:
    """Count one less, and leave no trace of the last."""
    if counts[name] > 1:
        counts[name] -= 1
    else:
        del counts[name]
