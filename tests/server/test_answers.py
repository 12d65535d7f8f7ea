"""What a generator may yield, and what is said of everything else."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused, UpstreamLost
from actors.messages import Recognition, Word
from server.engines.answers import REASON, Answers, BadAnswer, outcome

WORDS = [{"text": "one", "start": 0.1, "end": 0.4}, {"text": "two", "start": 0.5, "end": 0.9}]
FULL = {"text": "one two", "final": True, "start": 0.1, "end": 0.9, "words": WORDS}


def test_a_result_that_says_everything_is_taken_at_its_word() -> None:
    found = Recognition(
        0, 0, True, "one two", 0.1, 0.9, (Word("one", 0.1, 0.4, 1), Word("two", 0.5, 0.9, 1))
    )
    for result in (FULL, MappingProxyType(FULL), json.dumps(FULL), json.dumps(FULL).encode()):
        assert Answers().read(result, heard=1.0) == (found,)


def test_results_are_numbered_and_have_the_time_since_the_last_final() -> None:
    answers = Answers()
    results = [("one", False, 0.5), ("one two", False, 1.0), ("one two.", True, 1.2)]
    results += [("three", True, 2.0), ("four", False, 2.5)]
    found = [
        each
        for text, final, heard in results
        for each in answers.read({"text": text, "final": final, "more": object()}, heard)
    ]
    assert [(each.segment, each.revision) for each in found] == [
        *((0, 0), (0, 1), (0, 2)),
        *((1, 0), (2, 0)),
    ]
    assert [(each.start, each.end) for each in found] == [
        *((0, 0.5), (0, 1.0), (0, 1.2)),
        *((1.2, 2.0), (2.0, 2.5)),
    ]


def test_times_are_kept_in_order_and_within_the_audio() -> None:
    answers = Answers()
    answers.read(FULL, heard=1.0)
    words = [{"text": "late", "start": 0.2, "end": 9, "confidence": 7}]
    result = {"text": "late", "final": True, "start": -1, "end": 99.5, "words": words}
    (found,) = answers.read(result, heard=2.0)
    assert (found.start, found.end) == (0.9, 2.0)
    assert found.words == (Word("late", 0.9, 2.0, 1.0),)


def test_a_recognition_is_passed_on_as_it_is() -> None:
    found = Recognition(7, 3, False, "as it is", 5.0, 6.0, (Word("as", 5.0, 5.1, 0.5),))
    assert Answers().read(found, heard=0.0) == (found,)


NO_SHAPE = "a result of the wrong shape: "
NO_TIME = "a Recognition with a time that is not within any audio"
NO_TEXT = "a result with a text that is not Unicode"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "NoneType, which is no Recognition, mapping or JSON object"),
        (7, "int, which is no Recognition, mapping or JSON object"),
        ([FULL], "list, which is no Recognition, mapping or JSON object"),
        ("[]", "list, which is no Recognition, mapping or JSON object"),
        ("", "a text that is no JSON"),
        (b"\xff", "a text that is no JSON"),
        ("[" * 100_000, "a text that is no JSON"),
        ({}, f"{NO_SHAPE}Object missing required field `text`"),
        ({"text": "x"}, f"{NO_SHAPE}Object missing required field `final`"),
        ({**FULL, "text": None}, f"{NO_SHAPE}Expected `str`, got `null` - at `$.text`"),
        ({**FULL, "final": 1}, f"{NO_SHAPE}Expected `bool`, got `int` - at `$.final`"),
        ({**FULL, "start": "1"}, f"{NO_SHAPE}Expected `float | null`, got `str` - at `$.start`"),
        ({**FULL, "words": ["one"]}, f"{NO_SHAPE}Expected `object`, got `str` - at `$.words[0]`"),
        ({**FULL, "text": object()}, f"{NO_SHAPE}Encoding objects of type object is unsupported"),
        ({**FULL, "end": math.inf}, "a result with a number that is not finite"),
        ({**FULL, "words": [{**WORDS[0], "end": math.nan}]}, "a result with a number that is not"),
        (Recognition(0, 0, True, "x", math.nan, 1.0), "a result with a number that is not finite"),
        (Recognition(0, 0, True, "x", 0.0, 1e305), NO_TIME),
        (Recognition(0, 0, True, "x", -1.0, 1.0), NO_TIME),
        (Recognition(0, 0, True, "x", 0.0, 10**300), NO_TIME),
        (Recognition(0, 0, True, "x", 0.0, 1.0, (Word("x", 0.0, 1e305, 1.0),)), NO_TIME),
        ({**FULL, "text": "\ud800"}, NO_TEXT),
        ({**FULL, "words": [{**WORDS[0], "text": "\udfff"}]}, NO_TEXT),
        (Recognition(0, 0, True, "\ud800", 0.0, 1.0), NO_TEXT),
        ('{"text": "\\ud800", "final": true}', "a text that is no JSON"),
        (
            Recognition(0, 0, True, None, 0.0, 1.0),  # type: ignore[arg-type]
            f"{NO_SHAPE}Expected `str`, got `null` - at `$.text`",
        ),
    ],
    ids=lambda value: ascii(value)[:40].partition(" at 0x")[0],
)
def test_garbage_is_refused_with_a_sentence(result: object, words: str) -> None:
    with pytest.raises(BadAnswer) as bad:
        Answers().read(result, heard=1.0)

    assert str(bad.value).startswith(words)


NUMBERS = st.floats() | st.integers()
LOOSE = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RESULTS = st.fixed_dictionaries(
    {"text": st.text() | LOOSE, "final": st.booleans() | LOOSE},
    optional={"start": NUMBERS | LOOSE, "end": NUMBERS, "words": st.just(WORDS) | LOOSE},
)


@given(st.lists(RESULTS | LOOSE | RESULTS.map(str) | RESULTS.map(repr)), st.floats(0, 1e6))
def test_whatever_is_yielded_gives_orderly_recognitions_or_a_bad_answer(
    results: list[Any], heard: float
) -> None:
    answers, reached, numbers = Answers(), 0.0, []
    for result in results:
        try:
            found = answers.read(result, heard)
        except BadAnswer:
            continue

        for each in found:
            assert reached <= each.start <= each.end <= max(heard, reached)
            numbers.append((each.segment, each.revision))
            if each.final:
                reached = each.end

    assert numbers == sorted(set(numbers))


def test_a_stream_ends_in_order_only_if_its_audio_did() -> None:
    assert isinstance(outcome("own", None, True), anyio.EndOfStream)
    assert str(outcome("own", None, False)) == "the own engine ended before the audio did"


def test_what_was_raised_is_told_in_one_short_line() -> None:
    for error in (Refused("engine_busy", "full"), UpstreamLost("gone")):
        assert outcome("own", error, True) is error

    assert str(outcome("own", BadAnswer("a fish"), True)) == "the own engine yielded a fish"
    told = str(outcome("own", ValueError("a\nb\0" + "x" * 1000), True))
    assert told.startswith("the own engine raised ValueError: a b xxx")
    assert told.endswith("x...")
    assert len(told) == REASON
