"""Who is to leave when, by the second; who stays for ever is not in here and costs nothing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

LEEWAY = 30.0
"""Seconds that a token is good for after it has expired: clocks differ."""

Holder = TypeVar("Holder", bound=Hashable)


class Expiries(Generic[Holder]):
    """Holders of tokens, in a bucket for each second in which one of them is due."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Holder]] = {}
        self._seconds: dict[Holder, int] = {}
        self._at = 0
        """The last second that was looked at."""

    def __len__(self) -> int:
        """Holders whose token expires."""
        return len(self._seconds)

    def watch(self, holder: Holder, expires: float) -> None:
        """Note when a holder's token expires, in Unix seconds; only the last note counts."""
        self.forget(holder)
        if expires == math.inf:
            return

        # What is late already is due at the next look; its own second has passed.
        second = max(math.ceil(expires + LEEWAY), self._at + 1)
        self._buckets.setdefault(second, set()).add(holder)
        self._seconds[holder] = second

    def forget(self, holder: Holder) -> None:
        """Watch a holder no more, if it was watched."""
        second = self._seconds.pop(holder, None)
        if second is None:
            return

        bucket = self._buckets[second]
        bucket.discard(holder)
        if not bucket:
            del self._buckets[second]

    def due(self, now: float) -> list[Holder]:
        """Return whose leeway has passed by `now` (Unix seconds), and forget them.

        The seconds since the last look are looked up; after a jump of the clock it is cheaper to go
        through the buckets.
        """
        second = math.floor(now)
        seconds: Iterable[int] = range(self._at + 1, second + 1)
        if second - self._at > len(self._buckets):
            seconds = [each for each in self._buckets if each <= second]

        self._at = second
        late = [holder for each in seconds for holder in self._buckets.pop(each, ())]
        for holder in late:
            del self._seconds[holder]

        return late
