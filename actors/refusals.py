"""Refusals as a connection is told them, and how many it may earn before it is closed."""

from __future__ import annotations

from msgspec import UNSET

from actors.errors import BAD_MESSAGE, Close, Refused
from actors.limits import Limits
from actors.messages import Error
from actors.quota import Bucket


def error_of(refusal: Refused) -> Error:
    """Return the event that answers a refused command."""
    return Error(
        id=UNSET if refusal.id is None else refusal.id,
        code=refusal.code,
        message=refusal.message,
        field=refusal.field or UNSET,
        setting=refusal.setting or UNSET,
    )


class Patience:
    """What is left of a node's patience with one connection; most never try it."""

    __slots__ = ("_errors",)

    def __init__(self, limits: Limits, now: float) -> None:
        self._errors = Bucket(limits.errors_per_second, limits.errors_burst, now)

    def spend(self, refusal: Refused, now: float) -> Close | None:
        """Count a refusal; return the ending if it was one too many."""
        if self._errors.take(1, now):
            return BAD_MESSAGE.because("too many refused commands (limits.errors_burst)")

        return None
