"""How much a stream may bring: sans-I/O, time is an argument.

Unlike a bucket of tokens, a pace takes what has come already, and tells how long that lasts.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.messages import Recognition

RATE = 200.0
"""Recognitions in a second that a provider is read for; beyond them it has to wait."""
BURST = 500.0
"""Recognitions that may come at once, as when an outage is caught up with."""
NOTHING = 0.25
"""What a message costs that brings no recognition."""
WORDS, BYTES = 25, 4096
"""Words of a recognition, and characters of a message, that cost as much as one more."""


class Pace:
    """A rate for a second, and a burst above it."""

    __slots__ = ("_burst", "_paid", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._paid = float("-inf")
        """Monotonic time up to which all has been used that may come."""

    def spend(self, amount: float, now: float) -> float:
        """Use an amount; return the seconds until more may come, 0.0 for at once."""
        self._paid = max(self._paid, now) + amount / self._rate
        return max(0.0, self._paid - now - self._burst / self._rate)


def cost(size: int, found: Sequence[Recognition]) -> float:
    """Return what a message of this size costs that has brought these recognitions."""
    words = 0
    for each in found:
        words += len(each.words)

    return (len(found) or NOTHING) + words / WORDS + size / BYTES
