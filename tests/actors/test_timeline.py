"""The time of a session's audio: holes move it, and what came when is remembered in bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Word
from actors.timeline import HOLES, MARK_EVERY, MARKS, Timeline

RATE = 32_000


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=20))
def test_the_engines_time_becomes_the_audios_time_whatever_is_missing(
    script: list[tuple[int, int]],
) -> None:
    """A step is audio that the engine hears, in hundredths of a second, then what it misses."""
    timeline, fed, heard = Timeline(RATE), 0, 0
    for hears, misses in script:
        begins, ends = heard / 100, (heard + hears) / 100
        assert timeline.shift(begins) == pytest.approx(fed / 100, abs=0.002)
        assert timeline.shift(ends, ends=True) == pytest.approx((fed + hears) / 100, abs=0.002)
        heard, fed = heard + hears, fed + hears
        timeline.add_hole(fed * RATE // 100, (fed + misses) * RATE // 100)
        fed += misses


def test_a_word_is_moved_as_a_whole_and_never_ends_before_it_begins() -> None:
    timeline, word = Timeline(RATE), Word("a", 0.5, 1.5, 1.0)
    assert timeline.shift_word(word) is word
    timeline.add_hole(RATE, 2 * RATE)
    assert timeline.shift_word(word) == Word("a", 0.5, 2.5, 1.0)
    assert timeline.shift_word(Word("b", 1.0, 1.0, 1.0)) == Word("b", 2.0, 2.0, 1.0)


def test_when_audio_came_is_noted_now_and_then_only() -> None:
    timeline = Timeline(RATE)
    for position in range(0, RATE, 64):
        timeline.note(position, position / RATE)

    assert 0.55 <= timeline.came_at(0.55, 9.0) <= 0.55 + MARK_EVERY
    assert timeline.came_at(5.0, 9.0) == 9.0


def test_what_is_remembered_is_bounded() -> None:
    timeline = Timeline(RATE)
    for second in range(2 * MARKS):
        timeline.note(second * RATE, second)

    assert timeline.came_at(0.0, 9.0) == MARKS


def test_more_holes_than_are_kept_leave_the_newest_times_right() -> None:
    timeline = Timeline(1000)
    for count in range(2 * HOLES):
        timeline.add_hole(count * 20 + 10, count * 20 + 20)

    last = (2 * HOLES - 1) * 10 + 5
    assert timeline.place(last) == last + (2 * HOLES - 1) * 10
    assert timeline.place(last + 10) == last + 10 + 2 * HOLES * 10
    assert timeline.shift(0.001) > 0.001, "what is too old to be told gets the oldest that is known"
