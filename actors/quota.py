"""Token buckets: how fast something may go on, and how much of it at once. Time is an argument."""

from __future__ import annotations


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
