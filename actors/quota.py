"""How fast something may go on, and how much of it at once. Time is an argument."""

from __future__ import annotations

from collections import deque


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
        elapsed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._tokens = min(self.burst, self._tokens + elapsed * self.rate)
        if amount <= self._tokens:
            self._tokens -= amount
            return 0.0

        return float("inf") if amount > self.burst else (amount - self._tokens) / self.rate


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
