"""Refusals as a connection is told them, and how many it may earn before it is closed."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from actors.errors import (
    BAD_MESSAGE,
    FORBIDDEN,
    RATE_LIMITED,
    TOO_BIG,
    Close,
    Refused,
    SessionEnd,
)
from actors.limits import Limits
from actors.messages import Closing, Error
from actors.quota import Bucket, Strikes

FORBIDDEN_MOST = 10
"""Commands that the token does not cover, within FORBIDDEN_WITHIN, at which the patience ends."""
FORBIDDEN_WITHIN = 60.0
"""Seconds."""


def error_of(refusal: Refused) -> Error:
    """Return the event that answers a refused command."""
    return Error(
        id=UNSET if refusal.id is None else refusal.id,
        code=refusal.code,
        message=refusal.message,
        field=refusal.field or UNSET,
        setting=refusal.setting or UNSET,
        retry_after=refusal.retry_after or UNSET,
    )


def goodbye(close: Close, reconnect_ms: int) -> Closing:
    """Return the last event of a connection; who may come back spreads over `reconnect_ms`."""
    return Closing(
        code=close.code,
        reason=close.reason,
        retry=close.retry,
        message=close.message,
        reconnect_ms=reconnect_ms if close.retry else 0,
        retry_after=close.retry_after or UNSET,
    )


def lost(room: str, what: str) -> Error:
    """Return the event that tells what a refreshed token has put an end to."""
    message = f"the new token does not cover this room: {what}"
    return Error(code="forbidden", message=message, room=room)


def slowed(over: Refused, room: str) -> Error:
    """Return the event that tells a speaker why nothing of it is read for a while."""
    return msgspec.structs.replace(error_of(over), room=room)


def check_size(data: str | bytes, limits: Limits) -> None:
    """Raise SessionEnd(TOO_BIG) for a message of more bytes than its kind may have."""
    size = len(data)
    if isinstance(data, str):
        limit, setting = limits.text_bytes, "limits.text_bytes"
        if size <= limit and not data.isascii():
            size = len(data.encode(errors="replace"))
    else:
        limit, setting = limits.audio_bytes, "limits.audio_bytes"

    if size > limit:
        message = f"a message of {size} is over the limit of {limit} ({setting})"
        raise SessionEnd(TOO_BIG.because(message))


class Patience:
    """What is left of a node's patience with one connection; most never try it."""

    __slots__ = ("_errors", "_guesses")

    def __init__(self, limits: Limits, now: float) -> None:
        self._errors = Bucket(limits.errors_per_second, limits.errors_burst, now)
        self._guesses = Strikes(FORBIDDEN_MOST, FORBIDDEN_WITHIN)

    def spend(self, refusal: Refused, now: float) -> Close | None:
        """Count a refusal; return the ending if it was one too many."""
        if refusal.code == "forbidden":
            if self._guesses.strike(now):
                return FORBIDDEN.because(
                    f"{FORBIDDEN_MOST} commands in {FORBIDDEN_WITHIN:g} seconds were forbidden"
                )
        elif self._errors.take(1, now):
            if refusal.code == "quota_exceeded":
                return RATE_LIMITED.because(refusal.message, refusal.retry_after)

            return BAD_MESSAGE.because("too many refused commands (limits.errors_burst)")

        return None
