"""When an engine counts as lost, and how much it may be sent."""

from __future__ import annotations

from actors.limits import Upstream
from actors.progress import Progress
from actors.replay import Ring

RATE = 32_000
LOUD = (8000).to_bytes(2, "little") * 1600
LIMITS = Upstream(stalled_within=5, silent_within=10, replay=15)


def ring_of(seconds: int, data: bytes = LOUD) -> Ring:
    """Return a ring with so many seconds of audio."""
    ring = Ring(15 * RATE)
    for _ in range(seconds * 10):
        ring.add(data)

    return ring


def test_an_engine_that_takes_nothing_while_audio_waits_is_in_trouble() -> None:
    progress, ring = Progress(LIMITS, RATE), ring_of(1)
    progress.begin(0.0, 100.0)
    assert progress.trouble(100.0, 1.0, True, ring) is None
    assert progress.trouble(104.0, 1.0, True, ring) is None
    trouble = progress.trouble(106.0, 1.0, True, ring)
    assert trouble is not None
    assert "took no audio" in trouble.what
    assert trouble.lasted == 6.0


def test_an_engine_that_moves_or_has_nothing_to_do_is_not() -> None:
    progress, ring = Progress(LIMITS, RATE), ring_of(1)
    progress.begin(0.0, 100.0)
    for second in range(100):
        assert progress.trouble(100.0 + second, 1.0 + second, True, ring) is None

    for second in range(100, 200):
        assert progress.trouble(100.0 + second, 99.0, False, ring) is None


def test_speech_without_an_answer_is_trouble_and_patience_grows() -> None:
    progress, ring = Progress(LIMITS, RATE), ring_of(11)
    progress.begin(0.0, 0.0)
    assert progress.trouble(9.0, 11.0, False, ring) is None
    assert "did not answer 10 s" in str(progress.trouble(11.0, 11.0, False, ring))
    progress.begin(0.0, 11.0)
    assert progress.trouble(30.0, 11.0, False, ring) is None
    assert "did not answer 20 s" in str(progress.trouble(32.0, 11.0, False, ring))
    progress.spoke()
    progress.begin(0.0, 32.0)
    assert "did not answer 10 s" in str(progress.trouble(43.0, 11.0, False, ring))


def test_silence_a_cough_and_what_was_answered_are_no_trouble() -> None:
    quiet = Progress(LIMITS, RATE)
    quiet.begin(0.0, 0.0)
    assert quiet.trouble(1000.0, 15.0, False, ring_of(15, bytes(3200))) is None
    cough = ring_of(12, bytes(3200))
    cough.add(LOUD)
    for _ in range(105):
        cough.add(bytes(3200))

    assert quiet.trouble(1000.0, 15.0, False, cough) is None
    quiet.answer(9.0, 999.0)
    assert quiet.trouble(1010.0, 15.0, False, ring_of(11)) is None


def test_an_engine_may_be_sent_a_part_of_the_replay_and_real_time() -> None:
    progress = Progress(LIMITS, RATE)
    progress.begin(0.0, 0.0)
    assert progress.surely_near(3.75)
    assert not progress.surely_near(3.8)
    assert progress.too_far(3.8, 0.0)
    assert not progress.too_far(3.8, 1.0)
    progress.answer(5.0, 1.0)
    progress.answer(4.0, 9.0)
    assert not progress.too_far(8.75, 1.0)
    assert progress.too_far(8.8, 1.0)
