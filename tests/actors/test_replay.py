"""What is sent again, and how streams are joined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Recognition, Word
from actors.replay import Ring, Splice, pieces

LOUD = (8000).to_bytes(2, "little") * 320
QUIET = bytes(640)


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.integers(0, 200)), max_size=60))
def test_the_ring_keeps_the_newest_that_is_not_forgotten(script: list[bytes | int]) -> None:
    ring, everything, forgotten = Ring(100), b"", 0
    for step in script:
        if isinstance(step, bytes):
            ring.add(step)
            everything += step
        else:
            ring.forget(step)
            forgotten = max(forgotten, min(step, len(everything)))

        kept = b"".join(data for _, data in ring.frames())
        assert kept == everything[ring.start : ring.end]
        assert ring.end == len(everything)
        assert len(kept) <= 100
        assert ring.start >= forgotten
        positions = [position for position, _ in ring.frames()]
        assert positions == sorted(positions)
        joined = list(pieces(ring.frames(), 64))
        assert b"".join(data for _, data in joined) == kept
        assert all(everything[at : at + len(data)] == data for at, data in joined)
        assert all(len(data) <= 64 for _, data in joined)


def test_forgetting_what_has_not_come_yet_keeps_the_count_right() -> None:
    ring = Ring(100)
    ring.add(b"1234")
    ring.forget(10)
    assert (ring.start, ring.end, ring.frames()) == (4, 4, [])


def test_a_frame_larger_than_the_bound_is_not_kept() -> None:
    ring = Ring(10)
    ring.add(bytes(11))
    assert (ring.start, ring.end) == (11, 11)


def test_only_what_may_be_speech_counts_as_lost() -> None:
    ring = Ring(1920)
    for data in (QUIET, QUIET, QUIET, LOUD, QUIET, QUIET):
        ring.add(data)

    assert ring.lost_first >= ring.lost_after
    ring.add(QUIET)
    ring.add(QUIET)
    assert (ring.lost_first, ring.lost_after) == (3 * 640, 4 * 640)
    ring.forget(4 * 640)
    assert ring.lost_first >= ring.lost_after


def test_audible_counts_from_the_first_sound() -> None:
    ring = Ring(10_000)
    for data in (QUIET, LOUD, QUIET, LOUD, b"\x01"):
        ring.add(data)

    assert ring.audible(0) == (1280, 3 * 640 + 1)
    assert ring.audible(2 * 640) == (640, 641)
    assert ring.audible(9000) == (0, 0)


def heard(text: str, start: float, end: float, final: bool = True) -> Recognition:
    """Make a recognition whose words are spread evenly."""
    texts = text.split()
    width = (end - start) / max(1, len(texts))
    words = tuple(
        Word(each, start + n * width, start + (n + 1) * width, 1.0) for n, each in enumerate(texts)
    )
    return Recognition(7, 7, final, text, start, end, words)


def test_segments_are_numbered_through_and_times_go_on() -> None:
    splice = Splice()
    first = splice.take(heard("one", 0.0, 1.0))
    partial = splice.take(heard("tw", 1.0, 1.5, final=False))
    splice.begin(1.0, replayed=True)
    again = splice.take(heard("two", 0.0, 1.0, final=False))
    second = splice.take(heard("two", 0.0, 1.0))
    assert first is not None
    assert partial is not None
    assert again is not None
    assert second is not None
    assert [(each.segment, each.revision) for each in (first, partial, again, second)] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert (second.start, second.end, second.words[0].start) == (1.0, 2.0, 1.0)


def test_what_was_said_is_not_said_again() -> None:
    splice = Splice()
    assert splice.take(heard("one two", 0.0, 2.0)) is not None
    splice.begin(1.0, replayed=True)
    assert splice.take(heard("two", 0.0, 1.0)) is None
    overlapping = splice.take(heard("two three", 0.0, 2.0))
    assert overlapping is not None
    assert (overlapping.text, overlapping.start, overlapping.end) == ("three", 2.0, 3.0)
    silent = Recognition(0, 0, True, "no words", 0.0, 0.5)
    assert splice.take(silent) is None


def test_an_empty_final_only_clears_what_was_shown() -> None:
    splice = Splice()
    assert splice.take(heard("", 0.0, 1.0)) is None
    assert splice.take(heard("hm", 0.0, 1.0, final=False)) is not None
    cleared = splice.take(heard("", 0.0, 1.0))
    assert cleared is not None
    assert (cleared.text, cleared.segment, cleared.revision) == ("", 0, 1)
    assert splice.take(heard("", 1.0, 1.0)) is None


def test_a_partial_without_audio_becomes_a_final() -> None:
    splice = Splice()
    assert splice.settle() is None
    splice.take(heard("half a", 0.0, 1.0, final=False))
    settled = splice.settle()
    assert settled is not None
    assert (settled.final, settled.text, settled.revision) == (True, "half a", 1)
    assert splice.reached == 1.0
    assert splice.settle() is None


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12))
def test_any_cuts_leave_each_second_said_once(script: list[tuple[int, bool]]) -> None:
    """An engine that says each second as a word, in finals of some seconds, lost now and then."""
    splice, base, at, said = Splice(), 0, 0, []
    for seconds, lost in script:
        text = " ".join(f"w{at + n}" for n in range(seconds))
        final = splice.take(heard(text, at - base, at - base + seconds))
        assert final is not None
        said += final.text.split()
        at += seconds
        if lost:  # the next stream is sent some of it again
            base = max(0, at - 3)
            splice.begin(base, replayed=True)
            splice.take(heard(" ".join(f"w{n}" for n in range(base, at)), 0, at - base))

    assert said == [f"w{n}" for n in range(at)]
    assert splice.reached == at


@given(st.lists(st.integers(1, 700), min_size=1, max_size=200))
def test_small_frames_are_joined_and_audible_sees_each_byte_once(sizes: list[int]) -> None:
    whole, ring, fresh = Ring(15_000), Ring(15_000), 0
    for count, size in enumerate(sizes):
        data = (8000).to_bytes(2, "little") * size if count % 3 else bytes(2 * size)
        whole.add(data)
        ring.add(data)
        fresh += len(data)
        if count % 5 == 0:
            ring.audible(0)

    assert (
        b"".join(data for _, data in ring.frames())[-100:]
        == b"".join(data for _, data in whole.frames())[-100:]
    )
    assert len(ring.frames()) <= 15_000 // 50 + 2
    loud, since = ring.audible(0)
    assert loud <= since <= fresh
