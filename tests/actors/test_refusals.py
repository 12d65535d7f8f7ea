"""How refusals are told, and how many are one too many."""

from __future__ import annotations

from msgspec import UNSET

from actors.errors import AUTH_TIMEOUT, RATE_LIMITED, Refused
from actors.limits import Limits
from actors.messages import Closing, Error
from actors.refusals import FORBIDDEN_MOST, Patience, error_of, goodbye

BAD = Refused("bad_message", "no")
GUESS = Refused("forbidden", "no")


def test_an_error_has_the_fields_that_apply() -> None:
    assert error_of(BAD) == Error(code="bad_message", message="no")
    full = Refused("limit_exceeded", "too much", "history", "limits.history.replay")
    full.id = 7
    error = error_of(full)
    assert (error.id, error.code, error.message) == (7, "limit_exceeded", "too much")
    assert (error.field, error.setting) == ("history", "limits.history.replay")
    assert error_of(BAD).id is UNSET


def test_a_goodbye_says_when_to_come_back_to_those_who_may() -> None:
    assert goodbye(RATE_LIMITED.because("slowly", 2.5), 1000) == Closing(
        code=4006,
        reason="rate_limited",
        retry=True,
        message="slowly",
        reconnect_ms=1000,
        retry_after=2.5,
    )
    final = goodbye(AUTH_TIMEOUT, 1000)
    assert (final.retry, final.reconnect_ms, final.retry_after) == (False, 0, UNSET)


def test_errors_come_back_as_time_goes_by() -> None:
    patience = Patience(Limits(errors_burst=2, errors_per_second=0.5), 0.0)
    assert [patience.spend(BAD, now) for now in (0.0, 0.0, 2.0)] == [None] * 3
    close = patience.spend(BAD, 2.0)
    assert close is not None
    assert (close.code, "limits.errors_burst" in close.message) == (4503, True)


def test_forbidden_commands_are_counted_by_themselves() -> None:
    patience = Patience(Limits(errors_burst=1), 0.0)
    assert [patience.spend(GUESS, 0.0) for _ in range(FORBIDDEN_MOST - 1)] == [None] * 9
    assert patience.spend(BAD, 0.0) is None
    close = patience.spend(GUESS, 59.0)
    assert close is not None
    assert (close.code, close.reason) == (4502, "forbidden")


def test_fewer_forbidden_commands_in_a_minute_may_go_on_for_ever() -> None:
    patience = Patience(Limits(), 0.0)
    assert not any(patience.spend(GUESS, n * 7.0) for n in range(1000))
