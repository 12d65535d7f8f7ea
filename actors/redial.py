"""Which engine is dialled next, after what pause, and when there is no more hope.

Nothing here waits; times are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actors.errors import Refused, UpstreamLost, leaves
from actors.ports import Engine

PAUSE = 0.25
PAUSE_AT_MOST = 5.0
"""Seconds before an engine is dialled again: a random part of PAUSE, doubled with each failure."""
LAST_TRY = 0.5
"""Seconds that the last attempt has at least; in less it could only fail for want of time."""
HEALTHY = 10.0
"""Seconds after which a stream has worked, even if nothing was said."""
HOPELESS = frozenset(
    {
        "engine_forbidden",
        "engine_rejected",
        "engine_unauthorized",
        "engine_unconfigured",
        "engine_unpaid",
        "unsupported_audio",
    }
)
"""Refusals that dialling again cannot mend."""


class Redial:
    """Decides which engine is dialled next, after what pause, and when there is no more hope."""

    def __init__(
        self, engines: Sequence[Engine], now: float, patience: float, chance: Callable[[], float]
    ) -> None:
        """Begin with the first engine; `patience` is how many seconds it may take to be served.

        `chance` returns a number from 0 to 1.
        """
        self._engines = list(engines)
        self._since, self._patience, self._chance = now, patience, chance
        self._failures = self._index = 0
        self._served = self._settled = False

    @property
    def engine(self) -> Engine:
        """The engine to dial."""
        return self._engines[self._index]

    def left(self, now: float) -> float:
        """Return the seconds for which there is still hope."""
        return self._since + self._patience - now

    def served(self, patience: float) -> None:
        """Note that an engine has accepted the stream; `patience` bounds every later loss."""
        self._served, self._patience = True, patience

    def progressed(self) -> None:
        """Note that the engine works: whatever fails next is a matter of its own."""
        self._settled = True

    def lost(self, now: float, lasted: float, wasted: float) -> None:
        """Note that a stream is over that was open for `lasted` seconds.

        For the last `wasted` of them it was in trouble.
        """
        if self._settled or lasted - wasted >= HEALTHY:
            self._since, self._failures, self._settled = now - wasted, 0, False

    def failed(self, failure: Refused | UpstreamLost, now: float) -> float:
        """Choose the next engine; return the seconds to wait. Raises the failure: no more hope."""
        again = self._failures == 0 and self._served and isinstance(failure, UpstreamLost)
        self._failures += 1
        hopeless = isinstance(failure, Refused) and failure.code in HOPELESS
        if hopeless:
            del self._engines[self._index]
        elif not again:
            self._index += 1

        round_over = self._index >= len(self._engines)
        if not self._engines or self.left(now) <= 0:
            raise failure

        if round_over:
            self._index = 0
            if isinstance(failure, Refused) and not (hopeless or self._served):
                raise failure  # nobody has room: the client is told at once
        elif not again:
            return 0.0

        most = self.left(now) - LAST_TRY
        if most <= 0:
            raise failure

        longest: float = min(PAUSE_AT_MOST, PAUSE * 2 ** min(16, self._failures - 1))
        return min(longest * self._chance(), most)


def engine_failure(error: Exception) -> Refused | UpstreamLost | None:
    """Return what a stream failed of, or None if it was not the engine's doing."""
    causes = list(leaves(error))
    if all(_is_the_engine_s(cause) for cause in causes):
        cause = causes[0]
        assert isinstance(cause, Refused | UpstreamLost)
        return cause

    return None


def _is_the_engine_s(cause: BaseException) -> bool:
    if isinstance(cause, Refused):
        return cause.code.startswith("engine_") or cause.code == "unsupported_audio"

    return isinstance(cause, UpstreamLost)
