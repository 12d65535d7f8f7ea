"""How things end: a reply leaves the connection open, a Close ends it; there is no third family.

The `reason` of a Close and the `code` of a Refused are the same stable strings that HTTP problem
documents, WebSocket error events and close frames carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec


class Close(msgspec.Struct, frozen=True):
    """One ending of a connection, as the peer sees it (RFC 6455, section 7.4)."""

    code: int
    """WebSocket close code: 1000-1013 by the RFC, 4000-4499 come back, 4500-4999 do not."""
    reason: str
    """Stable name from the table below, at most 123 bytes, never a user's text."""
    message: str = ""
    """One sentence for people: what happened, the limit and the setting that raises it."""
    flush: bool = True
    """Whether what is queued for the peer still goes out first."""
    retry_after: float = 0.0
    """Seconds before which coming back is of no use; 0 where nobody knows."""

    @property
    def retry(self) -> bool:
        """Whether a client should come back."""
        return self.code in RETRYABLE or 4000 <= self.code < 4500

    @property
    def silent(self) -> Close:
        """The same ending for a peer that is no longer there to be told."""
        return msgspec.structs.replace(self, flush=False)

    def because(self, message: str, retry_after: float = 0.0) -> Close:
        """Return the same ending with a sentence of its own."""
        return msgspec.structs.replace(self, message=message, retry_after=retry_after)


RETRYABLE = frozenset({1001, 1006, 1011, 1012, 1013})

NORMAL = Close(1000, "normal")
GONE = Close(1006, "gone", flush=False)
BAD_PROTOCOL = Close(1002, "protocol_error")
BAD_DATA = Close(1007, "invalid_data")
ABUSE = Close(1008, "policy_violation")
TOO_BIG = Close(1009, "too_big")
INTERNAL = Close(1011, "internal")
RESTART = Close(1012, "restart")
OVERLOAD = Close(1013, "overload")
SLOW_CONSUMER = Close(4001, "slow_consumer", flush=False)
IDLE = Close(4003, "idle")
TOKEN_EXPIRED = Close(4004, "token_expired")
UPSTREAM_UNAVAILABLE = Close(4005, "upstream_unavailable")
RATE_LIMITED = Close(4006, "rate_limited")
AUTH_TIMEOUT = Close(4500, "auth_timeout")
UNAUTHORIZED = Close(4501, "unauthorized")
FORBIDDEN = Close(4502, "forbidden")
BAD_MESSAGE = Close(4503, "bad_message")
REVOKED = Close(4505, "revoked")
REPLACED = Close(4506, "replaced")
SESSION_GONE = Close(4508, "unknown_session")

CLOSES = (
    NORMAL,
    BAD_PROTOCOL,
    GONE,
    BAD_DATA,
    ABUSE,
    TOO_BIG,
    INTERNAL,
    RESTART,
    OVERLOAD,
    SLOW_CONSUMER,
    IDLE,
    TOKEN_EXPIRED,
    UPSTREAM_UNAVAILABLE,
    RATE_LIMITED,
    AUTH_TIMEOUT,
    UNAUTHORIZED,
    FORBIDDEN,
    BAD_MESSAGE,
    REVOKED,
    REPLACED,
    SESSION_GONE,
)

REPLIES: dict[str, int] = {
    "already_joined": 409,
    "already_started": 409,
    "audio_before_start": 409,
    "bad_audio": 400,
    "bad_message": 400,
    "bad_room": 400,
    "bad_since": 400,
    "draining": 503,
    "engine_busy": 503,
    "engine_forbidden": 403,
    "engine_rejected": 502,
    "engine_unauthorized": 502,
    "engine_unconfigured": 503,
    "engine_unpaid": 502,
    "forbidden": 403,
    "limit_exceeded": 422,
    "no_token": 409,
    "not_found": 404,
    "not_joined": 409,
    "not_started": 409,
    "overload": 503,
    "quota_exceeded": 429,
    "rate_limited": 429,
    "room_limit": 429,
    "token_expired": 401,
    "too_big": 413,
    "unauthorized": 401,
    "unknown_engine": 400,
    "unknown_session": 404,
    "unsupported_audio": 400,
}
"""Every code of an error reply, with the HTTP status of the same refusal."""


ENDINGS = {
    "forbidden": FORBIDDEN,
    "quota_exceeded": RATE_LIMITED,
    "rate_limited": RATE_LIMITED,
    "token_expired": TOKEN_EXPIRED,
    "unauthorized": UNAUTHORIZED,
    "unknown_session": SESSION_GONE,
}
"""How a connection ends whose only purpose was refused with one of these codes."""


class SessionEnd(Exception):
    """The connection is over; `close` says how."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.message or close.reason)
        self.close = close


class UpstreamLost(SessionEnd):
    """The speech engine is gone before it said that it was done."""

    def __init__(self, message: str) -> None:
        super().__init__(UPSTREAM_UNAVAILABLE.because(message))


class Refused(Exception):
    """One command is refused and the connection lives."""

    def __init__(
        self,
        code: str,
        message: str,
        field: str = "",
        setting: str = "",
        retry_after: float = 0.0,
    ) -> None:
        """Name the `code` (a key of REPLIES), the offending `field`, the `setting` that helps.

        After `retry_after` seconds the same may be allowed; 0 where time alone does not help.
        """
        super().__init__(message)
        self.retry_after = retry_after
        self.status = REPLIES[code]
        self.code, self.message, self.field, self.setting = code, message, field, setting
        self.id: int | str | None = None
        """The id of the command that is refused, where it has one."""


def ending(refusal: Refused) -> Close:
    """Return how a connection ends whose only purpose was refused."""
    if refusal.code in ENDINGS:
        close = ENDINGS[refusal.code]
    elif refusal.status in (429, 503):
        close = OVERLOAD
    else:
        close = UPSTREAM_UNAVAILABLE if refusal.status == 502 else BAD_MESSAGE

    return close.because(refusal.message, refusal.retry_after)


class IllegalTransition(RuntimeError):
    """The lifecycle was asked for a step that its table does not hold: a bug of ours."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, or the one that is none."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def verdict(error: BaseException) -> Close:
    """Reduce an exception, or a group of them, to one Close: a bug outranks a hang-up."""
    closes = [each.close if isinstance(each, SessionEnd) else INTERNAL for each in leaves(error)]
    return next((close for close in closes if close.code == INTERNAL.code), closes[0])


def is_bug(error: BaseException) -> bool:
    """Return whether an exception, or one of a group, is neither of the two families."""
    return any(not isinstance(each, Refused | SessionEnd) for each in leaves(error))


E = TypeVar("E", bound=BaseException)


def find(error: BaseException, kind: type[E]) -> E | None:
    """Return the first exception of a kind in an exception or a group of them."""
    return next((each for each in leaves(error) if isinstance(each, kind)), None)
