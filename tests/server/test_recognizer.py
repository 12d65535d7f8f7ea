"""The decoding of the embedded engine, tried with human speech and with noise."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from actors.messages import AudioSpec, Recognition
from server.engines import recognizer
from server.engines.recognizer import Recognizer, load
from tests.engine_contract import (
    CARDS,
    DATA,
    LIBRIVOX,
    SILENCE,
    assert_orderly,
    finals,
    recording,
    transcripts,
    word_errors,
)

SPEC = AudioSpec()
DECODER = load()
READ_ALOUD = {path: recording(path) + SILENCE for path in transcripts(LIBRIVOX)}
GO_FORWARD = recording(DATA / "goforward.raw")
NUMBERS = recording(DATA / "numbers.raw")


def recognize(audio: bytes, spec: AudioSpec = SPEC, size: int = 640) -> list[Recognition]:
    session = Recognizer(DECODER, spec)
    found = []
    for start in range(0, len(audio), size):
        found += session.feed(audio[start : start + size])

    assert session.heard == len(audio) / spec.bytes_per_second
    return found + session.finish()


def pcm(samples: NDArray[np.float64]) -> bytes:
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def white_noise(rms: float, seconds: float) -> bytes:
    return pcm(np.random.default_rng(7).normal(0, rms, round(16_000 * seconds)))


def converted(audio: bytes, rate: int, channels: int) -> bytes:
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    return pcm(np.repeat(soxr.resample(samples, 16_000, rate), channels))


@pytest.fixture(scope="module")
def session() -> list[Recognition]:
    """All of the reading as one live session, a second of silence after each sentence."""
    return recognize(b"".join(READ_ALOUD.values()))


def test_read_speech_comes_back_with_few_wrong_words(session: list[Recognition]) -> None:
    said = [word for words in transcripts(LIBRIVOX).values() for word in words]
    heard = " ".join(finals(session)).split()
    assert word_errors(said, heard) / len(said) <= 0.25


def test_every_sentence_comes_back_at_its_time(session: list[Recognition]) -> None:
    assert_orderly(session, sum(map(len, READ_ALOUD.values())) / 32_000)
    spoken = iter(each for each in session if each.final)
    begins = 0.0
    for audio in READ_ALOUD.values():
        final = next(spoken)
        ends = begins + len(audio) / 32_000
        assert begins <= final.words[0].start < final.words[-1].end <= ends - 1
        begins = ends

    assert next(spoken, None) is None


def test_partials_come_along_with_the_speech(session: list[Recognition]) -> None:
    partials = [each for each in session if not each.final]
    assert len(partials) >= 10 * len(READ_ALOUD)
    growth = [each.end for each in partials]
    assert growth == sorted(growth)


def test_word_times_point_at_the_word() -> None:
    audio = recording(CARDS / "005.wav")
    (final,) = [each for each in recognize(audio + SILENCE) if each.final]
    assert final.text == "eight of spades four of clubs seven of hearts"
    for word in (final.words[2], final.words[8]):
        cut = audio[round(word.start * 16_000) * 2 : round(word.end * 16_000) * 2]
        assert finals(recognize(SILENCE + cut + SILENCE)) == [word.text]


def test_words_keep_their_distance_from_the_start_of_the_session() -> None:
    early = [each for each in recognize(GO_FORWARD) if each.final]
    late = [each for each in recognize(3 * SILENCE + GO_FORWARD) if each.final]
    assert finals(late) == finals(early) == ["go forward ten meters"]
    for before, after in zip(early[0].words, late[0].words, strict=True):
        assert after.start == pytest.approx(before.start + 3, abs=0.03)
        assert after.end == pytest.approx(before.end + 3, abs=0.03)


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (16_000, 2), (24_000, 1), (44_100, 1), (48_000, 2)]
)
def test_any_rate_and_stereo_give_the_same_words(rate: int, channels: int) -> None:
    """Except that 8 kHz lacks half the band that the model was trained on."""
    spec = AudioSpec(rate=rate, channels=channels)
    audio = converted(NUMBERS, rate, channels)
    found = recognize(audio, spec, spec.bytes_per_second // 50)
    said = ["thirty", "three", "four", "or", "six", "ninety", "two"]
    assert word_errors(said, " ".join(finals(found)).split()) <= (2 if rate == 8_000 else 0)
    assert_orderly(found, len(audio) / spec.bytes_per_second)


@pytest.mark.parametrize("spec", [SPEC, AudioSpec(rate=24_000, channels=2)], ids=["mono", "stereo"])
def test_where_the_audio_is_cut_makes_no_difference(spec: AudioSpec) -> None:
    audio = converted(recording(CARDS / "001.wav"), spec.rate, spec.channels)
    whole = recognize(audio, spec, len(audio))
    assert finals(whole) == ["ten of clubs"]
    for size in (1, 3, 7, 641):
        assert recognize(audio, spec, size) == whole


def test_half_a_sample_at_the_end_is_dropped() -> None:
    assert finals(recognize(GO_FORWARD + b"\x7f")) == ["go forward ten meters"]


def test_nothing_of_an_earlier_session_is_left() -> None:
    cards = recording(CARDS / "003.wav")
    first = recognize(cards)
    assert finals(recognize(GO_FORWARD)) == ["go forward ten meters"]
    assert recognize(cards) == first


def test_a_final_depends_on_nothing_but_its_own_audio(session: list[Recognition]) -> None:
    path, audio = list(READ_ALOUD.items())[1]
    assert "0880" in path.name
    assert finals(recognize(audio)) == [finals(session)[1]]


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(bytes(96_000), id="digital-silence"),
        pytest.param(white_noise(300, 5), id="white-noise-300"),
        pytest.param(white_noise(1000, 5), id="white-noise-1000"),
        pytest.param(SILENCE + white_noise(1000, 5) + SILENCE, id="burst-of-noise"),
        pytest.param(SILENCE + pcm(np.full(40, 20_000.0)) + SILENCE, id="click"),
        pytest.param(SILENCE + white_noise(8000, 0.025) + SILENCE, id="knock"),
        pytest.param(pcm(3000 * np.sin(np.arange(48_000) * 0.173)), id="tone-of-440-hz"),
    ],
)
def test_noise_is_not_shown_as_words(audio: bytes) -> None:
    assert recognize(audio) == []


@pytest.mark.parametrize("index", [0, 2])
def test_a_single_word_is_not_taken_for_noise(index: int) -> None:
    audio = recording(CARDS / "003.wav")
    (final,) = [each for each in recognize(audio + SILENCE) if each.final]
    assert final.text == "seven of clubs"
    word = final.words[index]
    cut = audio[round(word.start * 16_000) * 2 : round(word.end * 16_000) * 2]
    assert finals(recognize(SILENCE + cut + SILENCE)) == [word.text]


def test_a_shown_partial_that_was_noise_is_cleared_by_an_empty_final() -> None:
    found = recognize(SILENCE + white_noise(2000, 2.5) + SILENCE + GO_FORWARD)
    assert not found[0].final
    assert finals(found) == ["", "go forward ten meters"]
    assert_orderly(found, 2 + 2.5 + len(GO_FORWARD) / 32_000)


@pytest.mark.parametrize(("at_pause", "at_last"), [(1.5, 9.0), (9.0, 2.0)], ids=["pause", "word"])
def test_endless_speech_is_cut_and_goes_on_in_the_next_segment(
    monkeypatch: pytest.MonkeyPatch, at_pause: float, at_last: float
) -> None:
    monkeypatch.setattr(recognizer, "CUT_AT_PAUSE", at_pause)
    monkeypatch.setattr(recognizer, "CUT", at_last)
    found = recognize(NUMBERS)
    assert_orderly(found, len(NUMBERS) / 32_000)
    first, second = [each for each in found if each.final]
    assert min(at_pause, at_last) <= first.end - first.start <= at_last
    assert second.start == pytest.approx(first.end)
    assert first.text.startswith("thirty three")
    assert second.text
