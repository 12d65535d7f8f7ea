"""The dialects without I/O: what is said and meant, and that nothing received can break them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec, Recognition
from server.engines.deepgram import DeepgramDialect
from server.engines.dialect import Dialect
from server.engines.mapped import MappedDialect, find
from server.engines.options import Answers, Deepgram, RevAi, Vosk, WebSocket
from server.engines.revai import RevAiDialect
from server.engines.vosk import VoskDialect

SPEC = AudioSpec()
SECRET = "s3cret+/= and more"
GENERIC = Answers(partial="partial", final="final", start="start", end="end", words="result")


def revai(**settings: Any) -> RevAiDialect:
    return RevAiDialect(RevAi(token=SECRET, **settings), SPEC)


def deepgram(**settings: Any) -> DeepgramDialect:
    return DeepgramDialect(Deepgram(key=SECRET, **settings), SPEC)


def vosk(**settings: Any) -> VoskDialect:
    return VoskDialect(Vosk(url="ws://vosk:2700", **settings), SPEC)


def mapped(**settings: Any) -> MappedDialect:
    settings = {"url": "ws://any/", "answers": GENERIC, "headers": {"X-Key": SECRET}, **settings}
    return MappedDialect(WebSocket(**settings), SPEC)


DIALECTS: tuple[Callable[[], Dialect], ...] = (revai, deepgram, vosk, mapped)


def hear(dialect: Dialect, *messages: Any, seconds: float = 10.0) -> list[Recognition]:
    """Return what messages bring after so much audio."""
    dialect.sent(int(seconds * SPEC.bytes_per_second))
    return [found for each in messages for found in dialect.received(json.dumps(each))]


def texts(found: Sequence[Recognition]) -> list[str]:
    return [each.text for each in found]


def query(dialect: Dialect) -> dict[str, str]:
    return dict(parse_qsl(dialect.address.query, strict_parsing=True))


# What may stand anywhere in an answer: the words of the protocols, and everything else.
FIELDS = (
    "type ts end_ts elements value confidence start duration end channel alternatives transcript "
    "words word punctuated_word is_final from_finalize partial text result conf final description"
)
NAMES = tuple(FIELDS.split())
TYPES = ("connected", "partial", "final", "text", "punct", "Results", "Metadata", "Error")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(TYPES)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
NUMBERS = st.floats(-10, 20) | st.integers(-3, 3) | st.just(1e300)


def near(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with these fields, some of which are missing."""
    return st.fixed_dictionaries({}, optional=fields)


WORD = near(
    word=st.text(max_size=3),
    text=st.text(max_size=3),
    start=NUMBERS,
    end=NUMBERS,
    conf=NUMBERS,
    confidence=NUMBERS,
)
ELEMENT = near(
    type=st.sampled_from(["text", "punct"]), value=st.text(max_size=3), ts=NUMBERS, end_ts=NUMBERS
)
ANSWERS = st.one_of(
    VALUES,
    near(
        type=st.sampled_from(["partial", "final"]),
        ts=NUMBERS,
        end_ts=NUMBERS,
        elements=st.lists(ELEMENT, max_size=4),
    ),
    st.builds(
        lambda start, duration, final, words: {
            "type": "Results",
            "start": start,
            "duration": duration,
            "is_final": final,
            "from_finalize": final,
            "channel": {"alternatives": [{"transcript": "a b", "words": words}]},
        },
        NUMBERS,
        NUMBERS,
        st.booleans(),
        st.lists(WORD, max_size=3),
    ),
    near(partial=st.text(max_size=3)),
    near(
        text=st.text(max_size=3),
        result=st.lists(WORD, max_size=3),
        start=NUMBERS,
        end=NUMBERS,
        final=st.booleans(),
    ),
)
MESSAGES = st.one_of(
    ANSWERS.map(json.dumps), ANSWERS.map(json.dumps), st.text(), st.binary(max_size=8)
)


def assert_sane(found: list[Recognition], seconds: float) -> None:
    """Segments and revisions count, and times are in order and within the audio."""
    segment, revision, reached = 0, 0, 0.0
    for each in found:
        assert (each.segment, each.revision) == (segment, revision)
        times = [time for word in each.words for time in (word.start, word.end)]
        times = [reached, each.start, *times, each.end, seconds]
        assert all(a <= b for a, b in pairwise(times))
        assert all(0 <= word.confidence <= 1 for word in each.words)
        segment, revision = (segment + 1, 0) if each.final else (segment, revision + 1)
        reached = each.end if each.final else reached


@pytest.mark.parametrize("make", DIALECTS)
@given(messages=st.lists(MESSAGES, max_size=12), ended=st.booleans())
def test_whatever_is_received_is_a_recognition_or_a_loss(
    make: Callable[[], Dialect], messages: list[str | bytes], ended: bool
) -> None:
    dialect, found = make(), list[Recognition]()
    dialect.ended = ended
    for message in messages:
        dialect.sent(16_000)
        with suppress(UpstreamLost):
            found += dialect.received(message)

    assert_sane(found, dialect.seconds)
    assert 0 <= dialect.heard <= dialect.seconds
    msgspec.json.encode(found)


@pytest.mark.parametrize("make", DIALECTS)
@given(
    code=st.integers(1000, 4999), reason=st.text() | st.just(f"no {SECRET}"), ended=st.booleans()
)
def test_whatever_closes_is_an_end_a_loss_or_a_refusal(
    make: Callable[[], Dialect], code: int, reason: str, ended: bool
) -> None:
    dialect = make()
    dialect.ended = ended
    error = dialect.closed(code, reason)
    if error is None:
        assert ended
        return

    assert isinstance(error, UpstreamLost | Refused)
    assert str(error).isprintable()
    assert len(str(error)) < 300
    assert SECRET not in str(error) or make is vosk  # which has none


KEYED = "?key=k%2Fy-0f-the-url"
TALKATIVE: tuple[Callable[[], Dialect], ...] = (
    lambda: revai(url=f"ws://any/{KEYED}"),
    lambda: deepgram(url=f"ws://any/{KEYED}", parameters={"tag": ("k/y-0f-the-url", "x")}),
    lambda: deepgram(parameters={"tag": "k/y-0f-the-url"}),
    lambda: VoskDialect(Vosk(url=f"ws://any/{KEYED}"), SPEC),
    lambda: mapped(url=f"ws://any/{KEYED}"),
    lambda: mapped(first='{"login": ["me", {"key": "k/y-0f-the-url"}]}'),
    lambda: mapped(first="k/y-0f-the-url"),
)


@pytest.mark.parametrize("make", TALKATIVE)
def test_a_provider_that_repeats_a_secret_of_the_settings_is_not_quoted(
    make: Callable[[], Dialect],
) -> None:
    for form in ("k/y-0f-the-url", "k%2Fy-0f-the-url"):
        assert make().printable(f"no {form}, sorry") == "no ***, sorry"


@pytest.mark.parametrize("make", DIALECTS)
@given(status=st.integers(100, 999), words=st.text() | st.just(f"{SECRET} {SECRET}"))
def test_whatever_refuses_the_upgrade_is_a_loss_or_a_refusal(
    make: Callable[[], Dialect], status: int, words: str
) -> None:
    error = make().refused(status, {"dg-error": words})
    assert isinstance(error, Refused) == (status < 500 and status not in (408, 421, 425))
    assert SECRET not in str(error)


def test_revai_is_asked_for_what_is_set_and_for_nothing_else() -> None:
    asked = query(revai())
    assert asked == {
        "access_token": SECRET,
        "content_type": "audio/x-raw;layout=interleaved;rate=16000;format=S16LE;channels=1",
        "language": "en",
    }
    everything: dict[str, Any] = {
        "language": "fr",
        "metadata": "a & b",
        "custom_vocabulary_id": "cv",
        "filter_profanity": True,
        "remove_disfluencies": True,
        "detailed_partials": True,
        "max_segment_duration_seconds": 7,
        "transcriber": "machine_v2",
        "enable_speaker_switch": True,
        "skip_postprocessing": True,
        "priority": "accuracy",
        "max_connection_wait_seconds": 3,
        "delete_after_seconds": 0,
    }
    fixed = {key: asked[key] for key in ("access_token", "content_type")}
    wanted = {key: str(value).lower() for key, value in everything.items()}
    assert query(revai(**everything)) == {**fixed, **wanted, "metadata": "a & b"}


def test_revai_joins_partials_with_blanks_and_finals_with_what_they_bring() -> None:
    partial, final = hear(
        revai(),
        {"type": "connected", "id": "x"},
        {
            "type": "partial",
            "ts": 1.01,
            "end_ts": 2.2,
            "elements": [{"type": "text", "value": "one"}, {"type": "text", "value": "tooth"}],
        },
        {
            "type": "final",
            "ts": 1.01,
            "end_ts": 3.2,
            "speaker_id": 1,
            "elements": [
                {"type": "text", "value": "One", "ts": 1.04, "end_ts": 1.55, "confidence": 0.5},
                {"type": "punct", "value": " "},
                {"type": "text", "value": "two", "ts": 1.84, "end_ts": 2.15},
                {"type": "punct", "value": "."},
            ],
        },
    )
    assert (partial.text, partial.words, partial.final) == ("one tooth", (), False)
    assert (partial.start, partial.end) == (1.01, 2.2)
    assert (final.text, final.final) == ("One two.", True)
    words = [msgspec.structs.astuple(word) for word in final.words]
    assert words == [("One", 1.04, 1.55, 0.5), ("two.", 1.84, 2.15, 1.0)]


def test_revai_is_ready_when_it_says_so() -> None:
    dialect = revai()
    assert not dialect.ready
    hear(dialect, {"type": "connected"})
    assert dialect.ready


def test_deepgram_is_asked_for_what_is_set() -> None:
    dialect = deepgram(
        endpointing=0, parameters={"keyterm": ("a b", "c&d"), "numerals": True, "tag": "x"}
    )
    asked = parse_qs(dialect.address.query)
    assert asked == {
        "encoding": ["linear16"],
        "sample_rate": ["16000"],
        "channels": ["1"],
        "language": ["en"],
        "model": ["nova-3"],
        "punctuate": ["true"],
        "smart_format": ["false"],
        "interim_results": ["true"],
        "endpointing": ["false"],
        "keyterm": ["a b", "c&d"],
        "numerals": ["true"],
        "tag": ["x"],
    }
    assert dialect.headers == [("Authorization", f"Token {SECRET}")]
    assert SECRET not in dialect.address.query


def results(text: str, start: float, final: bool, **more: Any) -> dict[str, Any]:
    return {
        "type": "Results",
        "start": start,
        "duration": 1.0,
        "is_final": final,
        "channel": {"alternatives": [{"transcript": text}]},
        **more,
    }


def test_each_final_result_of_deepgram_is_a_final_and_an_empty_one_takes_back_a_partial() -> None:
    found = hear(
        deepgram(),
        results("", 0, True),
        results("a", 1, False),
        results("a", 1, False),
        results("a b", 1, False),
        results("a b.", 1, True, speech_final=False),
        results("c.", 2, True, speech_final=True),
        results("d", 3, False),
        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 9.54},
        results("", 3, True),
    )
    assert [(each.text, each.final) for each in found] == [
        ("a", False),
        ("a b", False),
        ("a b.", True),
        ("c.", True),
        ("d", False),
        ("", True),
    ]
    assert_sane(found, 10)


def test_a_flush_of_deepgram_is_answered_once_whatever_came_of_it() -> None:
    dialect = deepgram()
    assert texts(hear(dialect, results("", 0, True, from_finalize=True))) == []
    dialect.asked = 1
    (answer,) = hear(dialect, results("", 0, True, from_finalize=True))
    assert answer.flushed
    assert dialect.asked == 0
    dialect.asked = 1
    (answer,) = dialect.flushed()
    assert (answer.text, answer.flushed, answer.final) == ("", True, True)
    assert dialect.asked == 0
    assert not any(each.flushed for each in hear(dialect, results("x", 1, True)))


def test_vosk_is_told_the_rate_and_its_answers_are_progress() -> None:
    dialect = vosk(phrases=("yes", "no"))
    assert json.loads(dialect.first[0]) == {
        "config": {"sample_rate": 16000, "words": 1, "phrase_list": ["yes", "no"]}
    }
    for _ in range(3):
        dialect.sent(32_000)

    assert (dialect.heard, dialect.unanswered) == (0, 3)
    (partial,) = dialect.received('{"partial" : "one"}')
    assert (dialect.heard, dialect.unanswered, partial.end) == (1, 2, 1)
    assert dialect.received('{"partial" : "one"}') == ()
    word = {"conf": 0.5, "end": 1.11, "start": 0.84, "word": "one"}
    (final,) = dialect.received(json.dumps({"result": [word], "text": "one"}))
    assert (final.start, final.end, final.words[0].confidence) == (0.84, 1.11, 0.5)
    dialect.ended = True
    assert dialect.received('{"text" : ""}') == ()
    assert dialect.done
    assert dialect.last == '{"eof" : 1}'


def test_vosk_may_answer_with_alternatives() -> None:
    answer = {"alternatives": [{"confidence": 99.0, "text": "one"}, {"text": "won"}]}
    assert texts(hear(vosk(), answer)) == ["one"]


def test_vosk_takes_one_channel() -> None:
    with pytest.raises(Refused) as refusal:
        VoskDialect(Vosk(url="ws://vosk"), AudioSpec(channels=2))

    assert (refusal.value.code, refusal.value.field) == ("unsupported_audio", "channels")


@pytest.mark.parametrize(
    ("tree", "path", "found"),
    [
        ({"a": {"b": [1, {"c": 5}]}}, "a.b.1.c", 5),
        ({"a": [1]}, "a.1", None),
        ({"a": [1]}, "a.-1", None),
        ({"a": [1]}, "a.x", None),
        ({"a": [1]}, "a.99999999999999999999", None),
        ({"a": 1}, "a.b", None),
        ([{"0": 1}], "0.0", 1),
        ({"": 1}, "", None),
        (None, "a", None),
    ],
)
def test_a_path_leads_somewhere_or_to_nothing(tree: Any, path: str, found: Any) -> None:
    assert find(tree, path) == found


def test_a_mapping_fills_in_the_session_and_nothing_breaks_out_of_its_place() -> None:
    language = 'en"},&x=/{rate}'
    options = WebSocket(
        url="wss://any/{language}?rate={rate}&c={channels}&e={encoding}&l={language}",
        first='{"rate":{rate},"language":"{language}"}',
    )
    dialect = MappedDialect(options, AudioSpec(rate=8000, channels=2, language=language))
    assert json.loads(dialect.first[0]) == {"rate": 8000, "language": language}
    assert query(dialect) == {"rate": "8000", "c": "2", "e": "pcm_s16le", "l": language}
    assert "/" not in dialect.address.path[1:]


def test_a_mapping_reads_times_in_milliseconds_and_a_flag_that_equals_something() -> None:
    answers = Answers(
        text="alt.0.t",
        final="state",
        final_equals="2",
        start="s",
        end="e",
        words="alt.0.w",
        word="x",
        word_start="s",
        word_end="e",
        word_confidence="p",
        unit="milliseconds",
    )
    word = {"x": "hi", "s": 1000, "e": 1500, "p": 0.25}
    message = {"alt": [{"t": " hi ", "w": [word, {"x": "untimed"}]}], "s": 900, "e": 2000}
    partial, final = hear(mapped(answers=answers), {**message, "state": 1}, {**message, "state": 2})
    assert (partial.final, final.final, final.text) == (False, True, "hi")
    assert (final.start, final.end) == (0.9, 2.0)
    assert [msgspec.structs.astuple(each) for each in final.words] == [("hi", 1.0, 1.5, 0.25)]


def test_a_mapping_may_have_a_path_for_partials_and_no_flag() -> None:
    dialect = mapped(answers=Answers(partial="partial"))
    found = hear(dialect, {"partial": "a"}, {"meta": 1}, {"text": None}, {"text": "a b"})
    assert [(each.text, each.final) for each in found] == [("a", False), ("a b", True)]


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: RevAiDialect(RevAi(), SPEC), "engines.revai.token"),
        (lambda: DeepgramDialect(Deepgram(), SPEC), "engines.deepgram.key"),
        (lambda: VoskDialect(Vosk(), SPEC), "engines.vosk.url"),
        (lambda: MappedDialect(WebSocket(), SPEC), "engines.websocket.url"),
    ],
)
def test_without_a_key_or_an_address_the_setting_is_named(
    make: Callable[[], Dialect], setting: str
) -> None:
    with pytest.raises(Refused) as refusal:
        make()

    assert (refusal.value.code, refusal.value.setting) == ("engine_unconfigured", setting)
    assert setting in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        RevAi(token=SECRET),
        Deepgram(key=SECRET),
        Vosk(url=f"ws://vosk/?key={SECRET.split()[-1]}"),
        WebSocket(url="ws://any/?key=hidden-key", headers={"X-Key": SECRET}),
    ],
)
def test_no_secret_is_in_a_repr(options: Any) -> None:
    shown = repr(options) + str(options) + repr([options])
    assert not any(part in shown for part in (SECRET, "hidden-key", "more"))


@pytest.mark.parametrize("make", DIALECTS)
def test_no_secret_is_in_the_repr_of_an_address(make: Callable[[], Dialect]) -> None:
    assert "s3cret" not in repr(make().address)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RevAi, {"url": "http://revai"}),
        (RevAi, {"url": "wss://user:pass@revai/"}),
        (RevAi, {"priority": "high"}),
        (RevAi, {"metadata": "x" * 513}),
        (RevAi, {"delete_after_seconds": -2}),
        (Deepgram, {"parameters": {"model": "nova-2"}}),
        (Deepgram, {"parameters": {"callback": "https://evil"}}),
        (Deepgram, {"parameters": {"multichannel": True}}),
        (Deepgram, {"parameters": {"keyterm": {"no": "table"}}}),
        (Vosk, {"url": "vosk:2700"}),
        (WebSocket, {"url": "wss://{language}.any/"}),
        (WebSocket, {"hosts": ["any/path"]}),
        (WebSocket, {"hosts": ["user@any"]}),
        (WebSocket, {"hosts": ["*.any"]}),
        (WebSocket, {"answers": {"unit": "minutes"}}),
        (WebSocket, {"nothing": 1}),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_read(
    kind: type, settings: dict[str, Any]
) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(settings, kind)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (AudioSpec(encoding="opus"), "encoding"),
        (AudioSpec(rate=7999), "rate"),
        (AudioSpec(rate=48001), "rate"),
        (AudioSpec(channels=3), "channels"),
    ],
)
def test_audio_that_no_provider_is_sent_is_refused(spec: AudioSpec, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        DeepgramDialect(Deepgram(key=SECRET), spec)

    assert (refusal.value.code, refusal.value.field) == ("unsupported_audio", field)
