"""Any number of delays in little memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

FRESH = 20_000
"""Delays that may wait to be sorted into buckets."""
SHIFT = 44
"""Bits of a float that a bucket does not tell apart: 256 buckets to each power of two, so that a
percentile is right to 0.2 per cent."""
FIRST = 1023 << (52 - SHIFT)
"""Leading bits of 1.0, a nanosecond; they grow with the number and are the number of its bucket."""
BUCKETS = 42 << (52 - SHIFT)
"""Buckets up to 2**42 nanoseconds, more than an hour."""


class Delays:
    """A histogram of nanoseconds, with the largest kept as it is."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.largest = 0
        """The largest of those in the buckets."""
        self._counts = np.zeros(BUCKETS, np.int64)
        self._fresh = list(values)

    def add(self, values: Iterable[int]) -> None:
        """Add some delays."""
        self._fresh.extend(values)
        if len(self._fresh) > FRESH:
            self._sort()

    def append(self, value: int) -> None:
        """Add one delay."""
        self.add((value,))

    def percentile(self, percent: int) -> float:
        """Return the delay that this per cent of them do not exceed; 0 without any."""
        self._sort()
        ends = np.cumsum(self._counts)
        count = int(ends[-1])
        if not count or percent == 100:
            return float(self.largest)

        bucket = int(np.searchsorted(ends, count * percent // 100, side="right"))
        middle = np.int64(FIRST + bucket << SHIFT | 1 << SHIFT - 1)
        return min(float(middle.view(np.float64)), float(self.largest))

    @classmethod
    def merged(cls, parts: Iterable[Delays]) -> Delays:
        """Return the delays of all parts."""
        whole = cls()
        for part in parts:
            part._sort()
            whole._counts += part._counts
            whole.largest = max(whole.largest, part.largest)

        return whole

    def __len__(self) -> int:
        """Count the delays."""
        return int(self._counts.sum()) + len(self._fresh)

    def _sort(self) -> None:
        if not self._fresh:
            return

        values = np.maximum(np.array(self._fresh, np.float64), 1.0)
        buckets = np.minimum((values.view(np.int64) >> SHIFT) - FIRST, BUCKETS - 1)
        self._counts += np.bincount(buckets, minlength=BUCKETS)
        self.largest = max(self.largest, *self._fresh)
        self._fresh.clear()
