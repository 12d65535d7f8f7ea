"""How much the log may be told of one cause: nobody fills a disk by doing the same again and again.

A cause is the place in the code that logs; there are only so many.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LINES = 20
"""Lines of one cause within WITHIN; what is more is counted, and the next line says so."""
WITHIN = 60.0
"""Seconds."""
CAUSES = 1000
"""Causes that are told apart."""
LONGEST = 4000
"""Characters of a message; of a longer one, be it a traceback, both ends are kept."""
OTHERS = ("", 0)

Cause = tuple[str, int]


class Allowance:
    """The lines that each cause has had; time is an argument."""

    def __init__(self) -> None:
        self._lines: dict[Cause, tuple[float, int]] = {}
        """Since when, and how many."""

    def take(self, cause: Cause, now: float) -> int | None:
        """Take a line; None says that there is none, a number how many were not had before."""
        if cause not in self._lines and len(self._lines) >= CAUSES:
            cause = OTHERS

        since, lines = self._lines.get(cause, (now, 0))
        left_out = 0
        if now - since >= WITHIN:
            since, left_out, lines = now, max(0, lines - LINES), 0

        self._lines[cause] = since, lines + 1
        return left_out if lines < LINES else None


class LogBound(logging.Filter):
    """Keeps a handler from repeating itself."""

    def __init__(
        self, dropped: Callable[[], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Call `dropped` for each line that is left out."""
        super().__init__()
        self._allowance = Allowance()
        self._dropped, self._now = dropped, now

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line may be written; one that is too long, or follows others that were
        left out, is changed.
        """
        left_out = self._allowance.take((record.pathname, record.lineno), self._now())
        if left_out is None:
            self._dropped()
            return False

        message = record.getMessage()
        if left_out or len(message) > LONGEST:
            more = f" ({left_out} more like this were left out)" if left_out else ""
            record.msg, record.args = shortened(message) + more, ()

        return True


def shortened(message: str) -> str:
    """Return a message with its middle left out if it is too long."""
    half = LONGEST // 2
    return message if len(message) <= LONGEST else f"{message[:half]} [...] {message[-half:]}"
