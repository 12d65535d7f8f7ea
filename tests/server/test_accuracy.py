"""Word errors: known cases, and what makes them a distance."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cli.accuracy import read_transcripts, word_error_rate, word_errors, words

texts = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7)
examples = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("", "", 0),
        ("one two", "", 2),
        ("", "one two", 2),
        ("one two three", "one three", 1),
        ("one three", "one two three", 1),
        ("one two three", "one too three", 1),
        ("k i t t e n", "s i t t i n g", 3),
        ("a b", "b a", 2),
    ],
)
def test_known_cases(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


@examples
@given(texts, texts)
def test_no_errors_means_equal_and_equal_means_no_errors(a: list[str], b: list[str]) -> None:
    assert (word_errors(a, b) == 0) == (a == b)
    assert word_errors(a, a) == 0


@examples
@given(texts, texts)
def test_it_counts_the_same_both_ways_and_within_the_lengths(a: list[str], b: list[str]) -> None:
    assert word_errors(a, b) == word_errors(b, a)
    assert abs(len(a) - len(b)) <= word_errors(a, b) <= max(len(a), len(b))


@examples
@given(texts, texts, texts)
def test_a_detour_is_never_shorter(a: list[str], b: list[str], c: list[str]) -> None:
    assert word_errors(a, c) <= word_errors(a, b) + word_errors(b, c)


def test_case_punctuation_and_spelling_are_no_errors() -> None:
    assert words("Mister John's, well-bred;  Missus") == ["mr", "john's", "well", "bred", "mrs"]
    assert word_error_rate(["Mister Dashwood."], ["mr dashwood"]) == 0


def test_the_rate_is_over_all_texts() -> None:
    assert word_error_rate(["one two three", "four"], ["one two", "for"]) == 0.5
    assert word_error_rate([], []) == 0
    assert word_error_rate([""], ["one"]) == 1
    with pytest.raises(ValueError, match="zip"):
        word_error_rate(["one"], [])


def test_transcripts_are_read_by_the_name_of_the_recording(tmp_path: Path) -> None:
    file = tmp_path / "transcription"
    file.write_text("<s> one two </s> (first)\nno transcript\n<s> three </s> (second)\n")
    assert read_transcripts(file) == {"first": "one two", "second": "three"}
