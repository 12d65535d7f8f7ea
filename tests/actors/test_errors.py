"""How endings and refusals are told apart."""

from __future__ import annotations

import pytest

from actors.errors import (
    CLOSES,
    GONE,
    INTERNAL,
    NORMAL,
    REPLIES,
    RESTART,
    SLOW_CONSUMER,
    UPSTREAM_UNAVAILABLE,
    Close,
    Refused,
    SessionEnd,
    UpstreamLost,
    ending,
    find,
    verdict,
)


def test_every_close_fits_a_close_frame_and_has_a_code_of_its_own() -> None:
    assert all(0 < len(close.reason.encode()) <= 123 for close in CLOSES)
    assert len({close.code for close in CLOSES}) == len({close.reason for close in CLOSES})
    assert all(1000 <= close.code <= 1013 or 4000 <= close.code <= 4999 for close in CLOSES)


def test_the_code_says_whether_to_come_back() -> None:
    assert {close.code for close in CLOSES if close.retry} == {
        *(1006, 1011, 1012, 1013),
        *(4001, 4003, 4004, 4005, 4006),
    }
    assert Close(1001, "away").retry
    assert not Close(4500, "never").retry


def test_a_close_with_another_sentence_is_otherwise_the_same() -> None:
    close = RESTART.because("the node restarts")
    assert (close.code, close.reason, close.flush) == (1012, "restart", True)
    assert close.message == "the node restarts"
    assert RESTART.message == ""
    assert close.silent == Close(1012, "restart", "the node restarts", flush=False)


def test_who_is_not_reading_is_not_waited_for() -> None:
    assert [close.reason for close in CLOSES if not close.flush] == [
        "gone",
        "slow_consumer",
    ]


@pytest.mark.parametrize("code", REPLIES)
def test_a_refusal_has_the_status_of_its_code(code: str) -> None:
    refusal = Refused(code, "a sentence", "field", "setting")
    assert 400 <= refusal.status <= 503
    assert (refusal.status, str(refusal)) == (REPLIES[code], "a sentence")
    assert (refusal.field, refusal.setting, refusal.id) == ("field", "setting", None)


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        ("forbidden", 4502),
        ("rate_limited", 4006),
        ("token_expired", 4004),
        ("unauthorized", 4501),
        ("unknown_session", 4508),
        ("room_limit", 1013),
        ("engine_busy", 1013),
        ("engine_rejected", 4005),
        ("engine_forbidden", 4503),
        ("bad_room", 4503),
    ],
)
def test_a_connection_whose_purpose_is_refused_ends_with_the_reason(
    refused: str, code: int
) -> None:
    close = ending(Refused(refused, "a sentence"))
    assert (close.code, close.message) == (code, "a sentence")


def test_a_refusal_with_an_unknown_code_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Refused("no_such_code", "")


def test_an_end_shows_its_sentence_or_else_its_reason() -> None:
    assert str(SessionEnd(NORMAL)) == "normal"
    assert str(UpstreamLost("the line is dead")) == "the line is dead"
    assert UpstreamLost("x").close.code == UPSTREAM_UNAVAILABLE.code


def test_the_verdict_on_an_end_is_its_close() -> None:
    assert verdict(SessionEnd(GONE)) == GONE
    assert verdict(ExceptionGroup("", [SessionEnd(GONE), SessionEnd(NORMAL)])) == GONE


def test_a_bug_outranks_a_hang_up_however_deep_it_lies() -> None:
    assert verdict(ValueError()) == INTERNAL
    group = ExceptionGroup("", [SessionEnd(GONE), ExceptionGroup("", [ValueError()])])
    assert verdict(group) == INTERNAL


def test_find_looks_into_groups() -> None:
    end = SessionEnd(SLOW_CONSUMER)
    group = ExceptionGroup("", [ValueError(), ExceptionGroup("", [end])])
    assert find(end, SessionEnd) is end
    assert find(group, SessionEnd) is end
    assert find(group, KeyError) is None
    assert find(ValueError(), KeyError) is None
