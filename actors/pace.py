"""A line in front of a bucket: who would go too fast waits for its turn, and is refused nothing.

What one turn costs may be known after it only; then the next one waits for that too.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from actors.gates import Gates
from actors.quota import Bucket, renew

LEAST = 0.001
"""Seconds that who waits waits at least."""
LOOK_EVERY = 1.0
"""Seconds after which who waits looks again: the quota may be another by then."""


class Pace:
    """Lets one after the other go on, as fast as its bucket refills."""

    __slots__ = ("_bucket", "_lines", "_lock", "waiting")

    def __init__(self) -> None:
        """Hold nobody up until a rate is adopted."""
        self._bucket: Bucket | None = None
        self._lines = Gates()
        self._lock = anyio.Lock(fast_acquire=True)
        self.waiting = 0
        """Those in the line."""

    def adopt(self, rate: float, burst: float, now: float) -> None:
        """Go by this rate from here on, 0 for none; what is spent stays spent."""
        self._bucket = renew(self._bucket, rate, burst, now)

    def debt(self, now: float) -> float:
        """Return the seconds until nothing is owed."""
        return 0.0 if self._bucket is None else self._bucket.debt(now)

    def spend(self, amount: float, now: float) -> None:
        """Count what somebody has had; the next one waits until it is paid."""
        if self._bucket is not None:
            self._bucket.spend(amount, now)

    def take(self, amount: float, now: float) -> bool:
        """Spend an amount if nobody has to wait for that; return whether it was spent."""
        bucket = self._bucket
        if self.waiting or (bucket is not None and bucket.debt(now)):
            return False

        if bucket is not None:
            bucket.spend(amount, now)

        return True

    async def turn(
        self, monotonic: Callable[[], float], amount: float = 0.0, whose: str = ""
    ) -> None:
        """Wait until nothing is owed and nobody came before, then spend an amount.

        Of those that are of one person only one stands in the line, so that nobody has to wait for
        many of somebody else's.
        """
        if self.take(amount, monotonic()):
            return

        self.waiting += 1
        try:
            async with self._lines.through(whose), self._lock:
                await self._until_paid(monotonic)
        finally:
            self.waiting -= 1

        self.spend(amount, monotonic())

    async def _until_paid(self, monotonic: Callable[[], float]) -> None:
        while True:
            debt = self.debt(monotonic())
            if not debt:
                return

            await anyio.sleep(min(max(debt, LEAST), LOOK_EVERY))
