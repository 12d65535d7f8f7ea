"""Who is dialled next, and when nobody is."""

from __future__ import annotations

import pytest

from actors.errors import INTERNAL, Refused, SessionEnd, UpstreamLost
from actors.redial import LAST_TRY, Redial, engine_failure
from tests.fakes import FakeEngine


def busy() -> Refused:
    """A refusal for lack of room."""
    return Refused("engine_busy", "full")


def test_an_engine_that_worked_is_dialled_again_first_then_the_next_ones_in_turn() -> None:
    a, b = FakeEngine("a"), FakeEngine("b")
    redial = Redial([a, b], 0.0, 10.0, lambda: 1.0)
    redial.served(60.0)
    redial.progressed()
    redial.lost(100.0, 5.0, 0.0)
    assert redial.failed(UpstreamLost("x"), 100.0) == 0.25
    assert redial.engine is a
    assert redial.failed(UpstreamLost("x"), 101.0) == 0.0
    assert redial.engine is b
    assert redial.failed(UpstreamLost("x"), 102.0) == 1.0
    assert redial.engine is a
    pauses = [redial.failed(UpstreamLost("x"), 103.0) for _ in range(12)]
    assert max(pauses) == 5.0
    with pytest.raises(UpstreamLost):
        redial.failed(UpstreamLost("x"), 160.0)


def test_an_engine_that_only_listened_for_long_has_worked_too() -> None:
    redial = Redial([FakeEngine()], 0.0, 10.0, lambda: 1.0)
    redial.served(60.0)
    redial.lost(500.0, 500.0, 0.0)
    assert redial.failed(UpstreamLost("x"), 500.0) == 0.25
    redial.lost(501.0, 0.5, 0.0)
    assert redial.failed(UpstreamLost("x"), 501.0) == 0.5
    with pytest.raises(UpstreamLost):
        redial.failed(UpstreamLost("x"), 561.0)


def test_time_in_trouble_is_no_time_of_work() -> None:
    redial = Redial([FakeEngine()], 0.0, 10.0, lambda: 1.0)
    redial.served(30.0)
    redial.lost(500.0, 500.0, 10.0)
    assert redial.left(500.0) == 20.0
    redial.failed(UpstreamLost("x"), 500.0)
    redial.lost(512.0, 12.0, 10.0)
    redial.failed(UpstreamLost("x"), 512.0)
    with pytest.raises(UpstreamLost):
        redial.failed(UpstreamLost("x"), 520.0)


def test_when_nobody_has_room_the_client_is_told_at_once() -> None:
    a, b = FakeEngine("a"), FakeEngine("b")
    redial = Redial([a, b], 0.0, 10.0, lambda: 1.0)
    assert redial.failed(busy(), 0.0) == 0.0
    assert redial.engine is b
    with pytest.raises(Refused):
        redial.failed(busy(), 0.1)


def test_a_busy_engine_is_waited_for_once_the_session_runs() -> None:
    redial = Redial([FakeEngine()], 0.0, 10.0, lambda: 1.0)
    redial.served(60.0)
    redial.progressed()
    redial.lost(20.0, 20.0, 0.0)
    assert redial.failed(busy(), 20.0) == 0.25


def test_what_cannot_work_is_not_tried_again() -> None:
    a, b = FakeEngine("a"), FakeEngine("b")
    redial = Redial([a, b], 0.0, 10.0, lambda: 1.0)
    assert redial.failed(Refused("engine_unauthorized", "no"), 0.0) == 0.0
    assert redial.engine is b
    assert redial.failed(UpstreamLost("x"), 1.0) == 0.5
    assert redial.engine is b
    with pytest.raises(Refused):
        redial.failed(Refused("engine_unpaid", "no"), 2.0)


def test_the_last_attempt_has_the_time_to_fail_of_its_own() -> None:
    redial, now = Redial([FakeEngine()], 0.0, 10.0, lambda: 1.0), 0.0
    for _ in range(10):
        now += redial.failed(UpstreamLost("nobody there"), now)
        if redial.left(now) == LAST_TRY:
            break

    with pytest.raises(UpstreamLost, match="nobody there"):
        redial.failed(UpstreamLost("nobody there"), now + LAST_TRY / 10)


def test_only_an_engines_own_failures_are_its_own() -> None:
    lost, refused = UpstreamLost("x"), busy()
    assert engine_failure(ExceptionGroup("", [lost])) is lost
    assert engine_failure(refused) is refused
    assert engine_failure(Refused("room_limit", "the room's fault")) is None
    assert engine_failure(ExceptionGroup("", [lost, ValueError("a bug")])) is None
    assert engine_failure(SessionEnd(INTERNAL)) is None
