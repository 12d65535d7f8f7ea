"""How fast something may go on, and how much of it at once. Time is an argument."""

from __future__ import annotations

from collections import deque

from actors.limits import Amount, Count, Section


class Quotas(Section, frozen=True):
    """What one tenant may use of this node; 0 is no bound."""

    connections: Amount = 1000
    """Connections at a time."""
    connections_per_subject: Amount = 20
    """Connections at a time of one subject; tokens that name none are not counted here."""
    connections_per_address: Amount = 50
    """Connections at a time from one IP address, or from one /64 of IPv6."""
    rooms: Amount = 1000
    """Rooms that are joined or spoken in at a time."""
    members: Amount = 1000
    """Connections that have joined one room."""
    speakers: Amount = 200
    """Speech sessions at a time that take audio, lost ones that may be resumed among them."""
    engine_streams: Amount = 250
    """Speech sessions at a time, with those whose last words are still being recognized."""
    audio_seconds_per_minute: Amount = 12_000
    """Seconds of audio a minute, of all speakers together."""
    audio_seconds_burst: Count = 3000
    """Seconds of audio that may come at once."""
    publishes_per_second: Amount = 100
    """Messages published a second; transcripts are not counted."""
    publishes_burst: Count = 200
    """Messages that may be published at once."""
    bytes_per_second: Amount = 1_048_576
    """Bytes of published messages a second, as MessagePack."""
    bytes_burst: Count = 4_194_304
    """Bytes of messages that may be published at once."""
    commands_per_second: Amount = 500
    """Commands a second, of all connections together; a request over HTTP is four."""
    commands_burst: Count = 200
    """Commands that may come at once."""
    replayed_bytes_per_second: Amount = 2_097_152
    """Bytes of histories a second that those who join are sent, as JSON."""
    replayed_bytes_burst: Count = 4_194_304
    """Bytes of histories that may be sent at once."""
    history_rooms: Amount = 10_000
    """Rooms with a listener or a history; past them the one is forgotten that was idle longest."""
    history_bytes: Amount = 67_108_864
    """Bytes that its rooms keep; past them the quietest room's history goes."""


UNLIMITED = Quotas(
    connections=0,
    connections_per_subject=0,
    connections_per_address=0,
    rooms=0,
    members=0,
    speakers=0,
    engine_streams=0,
    audio_seconds_per_minute=0,
    publishes_per_second=0,
    bytes_per_second=0,
    commands_per_second=0,
    replayed_bytes_per_second=0,
    history_rooms=0,
    history_bytes=0,
)


class Bucket:
    """A token bucket of `burst` tokens that refills at `rate` tokens a second."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Begin full at monotonic time `now`."""
        if rate <= 0 or burst < 1:
            raise ValueError("a bucket refills and holds at least one token")

        self.rate, self.burst = rate, burst
        self._tokens, self._at = float(burst), now

    def take(self, amount: float, now: float) -> float:
        """Take `amount` tokens and return 0.0, or take none and return the seconds to wait.

        An amount above `burst` never fits: the answer is then infinity.
        """
        self._refill(now)
        if amount <= self._tokens:
            self._tokens -= amount
            return 0.0

        return float("inf") if amount > self.burst else (amount - self._tokens) / self.rate

    def spend(self, amount: float, now: float) -> None:
        """Take what has been used already, on credit if need be."""
        self._refill(now)
        self._tokens -= amount

    def debt(self, now: float) -> float:
        """Return the seconds until everything that was spent is paid; 0.0 if nothing is owed."""
        self._refill(now)
        return max(0.0, -self._tokens / self.rate)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._tokens = min(self.burst, self._tokens + elapsed * self.rate)


def renew(old: Bucket | None, rate: float, burst: float, now: float) -> Bucket | None:
    """Return a bucket for a quota; what is spent stays spent while the quota is the same."""
    if old is not None and (old.rate, old.burst) == (rate, burst):
        return old

    return Bucket(rate, burst, now) if rate else None


class Strikes:
    """The last few times that something happened: so many within so many seconds are too many."""

    __slots__ = ("_times", "within")

    def __init__(self, most: int, within: float) -> None:
        if most < 1:
            raise ValueError("there is at least one strike")

        self.within = within
        self._times: deque[float] = deque(maxlen=most)

    def strike(self, now: float) -> bool:
        """Count one; return whether it completes the number."""
        times = self._times
        times.append(now)
        return len(times) == times.maxlen and now - times[0] < self.within
