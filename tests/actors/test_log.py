"""A room's history: contiguous, bounded, and honest about what it no longer has."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.limits import History
from actors.log import Missing, Position, RoomLog, parse_position
from tests.actors.node import message

LIMITS = History(messages=6, bytes=1400, age=10, replay=4, replay_bytes=400)
appends = st.lists(st.tuples(st.floats(0, 6), st.integers(0, 300)), max_size=25)


def filled(count: int, limits: History = LIMITS) -> RoomLog:
    """Return a log with so many events of one moment."""
    log = RoomLog("e", limits)
    for offset in range(1, count + 1):
        log.append(message(offset), 0.0)

    return log


def gap(log: RoomLog, position: Position) -> Missing:
    """Return what is missing after a position, and see that nothing is replayed then."""
    recovery = log.since(position)
    assert recovery.top == log.top
    assert list(recovery.frames) == []
    assert recovery.missing is not None
    return recovery.missing


@given(appends, st.sampled_from("ex"), st.integers(0, 30))
def test_since_is_all_or_a_gap_and_never_a_part(
    adds: list[tuple[float, int]], epoch: str, since: int
) -> None:
    log, now = RoomLog("e", LIMITS), 0.0
    for offset, (pause, size) in enumerate(adds, 1):
        now += pause
        log.append(message(offset, "x" * size), now)

    recovery = log.since(Position(epoch, since))
    offsets = [frame.offset for frame in recovery.frames]
    assert recovery.top == Position("e", len(adds))
    if recovery.missing is None:
        assert offsets == list(range(since + 1, len(adds) + 1))
        assert len(offsets) <= LIMITS.replay
        assert sum(len(frame.json) for frame in recovery.frames) <= LIMITS.replay_bytes
    else:
        assert offsets == []
        assert recovery.missing.last >= recovery.missing.first - 1


@given(appends, st.integers(0, 10))
def test_the_ring_is_contiguous_and_within_its_bounds(
    adds: list[tuple[float, int]], count: int
) -> None:
    log, now, kept = RoomLog("e", LIMITS), 0.0, []
    for offset, (pause, size) in enumerate(adds, 1):
        now += pause
        frame = message(offset, "x" * size)
        log.append(frame, now)
        kept.append((now, len(frame.json) + len(frame.msgpack)))
        held = kept[len(kept) - len(log) :]
        assert log.offset == offset
        assert log.bytes == sum(size for _, size in held) <= LIMITS.bytes
        assert len(log) <= LIMITS.messages
        assert all(now - at <= LIMITS.age for at, _ in held)

    newest = [frame.offset for frame in log.newest(count).frames]
    assert newest == list(range(len(adds) - len(newest) + 1, len(adds) + 1))
    assert len(newest) <= count


def test_a_resume_from_the_top_is_complete_and_empty() -> None:
    recovery = filled(3).since(Position("e", 3))
    assert (list(recovery.frames), recovery.missing) == ([], None)


def test_each_reason_for_a_gap_names_exactly_what_is_missing() -> None:
    log = filled(9)
    assert gap(log, Position("x", 4)) == Missing(1, 9, "epoch_changed")
    assert gap(log, Position("e", 12)) == Missing(10, 12, "ahead")
    assert gap(log, Position("e", 2)) == Missing(3, 9, "expired")
    assert gap(log, Position("e", 4)) == Missing(5, 9, "too_far")


def test_a_replay_of_too_many_bytes_is_too_far() -> None:
    log = RoomLog("e", LIMITS)
    for offset in (1, 2):
        log.append(message(offset, "x" * 200), 0.0)

    assert gap(log, Position("e", 0)) == Missing(1, 2, "too_far")
    assert [frame.offset for frame in log.newest(5).frames] == [2]


def test_what_is_too_old_goes() -> None:
    log = filled(2)
    log.expire(10.0)
    assert len(log) == 2
    log.expire(10.1)
    assert (len(log), log.bytes, log.offset) == (0, 0, 2)
    assert gap(log, Position("e", 1)) == Missing(2, 2, "expired")
    assert log.since(Position("e", 2)).missing is None


@pytest.mark.parametrize("offset", [0, 1, 2, 4])
def test_an_offset_that_does_not_follow_is_a_bug(offset: int) -> None:
    log = filled(2)
    with pytest.raises(ValueError, match=f"offset {offset} does not follow 2"):
        log.append(message(offset), 0.0)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, 10**16 - 1))
def test_a_position_is_read_as_it_was_written(epoch: str, offset: int) -> None:
    position = Position(epoch, offset)
    assert parse_position(str(position)) == position


@pytest.mark.parametrize("text", ["", "e", "e:", ":1", "e:01", "e:-1", "e:1 ", "e:1\n", "e:٣"])
def test_a_position_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_position(text)

    assert (refusal.value.code, refusal.value.field) == ("bad_since", "since")


@given(st.text(max_size=20))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    with suppress(Refused):
        assert str(parse_position(text)) == text
