"""Deepgram's protocol without a socket: the query, what a client says, and what it is told."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given

from actors.commands import Flush, Start, Stop
from actors.errors import (
    IDLE,
    NORMAL,
    RESTART,
    SLOW_CONSUMER,
    UPSTREAM_UNAVAILABLE,
    Close,
    Refused,
    ending,
)
from actors.messages import Ack, Error
from server.fronts.deepgram import FLUSHES, DeepgramTranslator
from server.fronts.deepgram_query import read_listen
from server.fronts.translator import Touch
from tests.server.fronts import (
    HELLO,
    MESSAGES,
    check_endings,
    check_never_raises,
    closing,
    said,
    told,
    transcript,
)

RAW = {"encoding": "linear16", "sample_rate": "16000"}
LIVEKIT = (
    "model=nova-3&punctuate=true&smart_format=false&no_delay=true&interim_results=true"
    "&encoding=linear16&vad_events=true&sample_rate=16000&channels=1&endpointing=25"
    "&filler_words=true&profanity_filter=false&numerals=false&mip_opt_out=false&language=en-US"
)
FINALIZE, CLOSE_STREAM = '{"type":"Finalize"}', '{"type":"CloseStream"}'


def stream(**query: str) -> DeepgramTranslator:
    """Make the translator of a stream of raw audio, or of what the query says."""
    listen = read_listen({**RAW, **query}, "id")
    return DeepgramTranslator(listen, "request", 1_700_000_000.0)


def texts(documents: list[dict[str, Any]]) -> list[tuple[str, bool, bool]]:
    """Return text, is_final and from_finalize of the Results."""
    return [
        (
            each["channel"]["alternatives"][0]["transcript"],
            each["is_final"],
            each["from_finalize"],
        )
        for each in documents
        if each["type"] == "Results"
    ]


@pytest.mark.parametrize(
    ("query", "encoding", "rate"),
    [
        (RAW, "pcm_s16le", 16_000),
        *(({"encoding": "linear16", "sample_rate": str(n)}, "pcm_s16le", n) for n in (8000, 44100)),
        ({"encoding": "mulaw"}, "mulaw", 8000),
        ({"encoding": "alaw", "sample_rate": "16000"}, "alaw", 16_000),
        ({"encoding": "opus", "sample_rate": "48000"}, "ogg", None),
        ({"encoding": "ogg-opus"}, "ogg", None),
        ({"encoding": "flac"}, "flac", None),
        ({}, "", None),
        ({"sample_rate": "8000"}, "", 8000),
    ],
)
def test_an_encoding_has_our_name_and_a_rate(
    query: dict[str, str], encoding: str, rate: int | None
) -> None:
    start = read_listen(query, "id").start
    assert (start.encoding, start.rate, start.transcripts) == (encoding, rate, True)


def test_a_query_that_sdks_send_is_understood_and_what_is_unknown_is_ignored() -> None:
    listen = read_listen(dict(pair.split("=") for pair in LIVEKIT.split("&")), "id")
    assert (listen.model, listen.interim, listen.vad_events) == ("nova-3", True, True)
    assert (listen.endpoints, listen.utterance_ends) == (True, False)
    assert (listen.start.language, listen.start.room) == ("en-US", "deepgram:id")
    more = {"room": "r", "engine": "echo", "name": "Ann", "endpointing": "false"}
    other = read_listen({**RAW, **more, "utterance_end_ms": "1000"}, "id")
    assert (other.start.room, other.start.engine, other.start.name) == ("r", "echo", "Ann")
    assert (other.endpoints, other.utterance_ends) == (False, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoding", "speex"),
        ("sample_rate", ""),
        ("sample_rate", "7999"),
        ("sample_rate", "fast"),
        ("channels", "3"),
        ("interim_results", "yes"),
        ("vad_events", "1"),
        ("utterance_end_ms", "999"),
        ("endpointing", "soon"),
        ("language", "e" * 65),
        ("model", "m" * 129),
        ("room", "no room"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_listen({**RAW, name: value}, "id")

    assert (refusal.value.status, refusal.value.field) == (400, name)


def test_a_final_has_its_words_and_begins_where_the_one_before_it_ended() -> None:
    front = stream(model="nova-3")
    assert isinstance(front.first, Start)
    first, second = told(
        front,
        HELLO,
        transcript("Hello, world.", 0.5, 1.5),
        transcript("no", 1.6, 1.9, final=False, segment=1),
        transcript("Yes", 1.75, 2.25, segment=1),
    )
    assert (first["start"], first["duration"]) == (0.0, 1.5)
    assert (second["start"], second["duration"]) == (1.5, 0.75)
    assert (first["is_final"], first["speech_final"], first["from_finalize"]) == (True, True, False)
    assert first["channel_index"] == [0, 1]
    assert first["channel"]["alternatives"][0] == {
        "transcript": "Hello, world.",
        "confidence": 0.5,
        "words": [
            {
                "word": "hello",
                "punctuated_word": "Hello,",
                "start": 0.5,
                "end": 1.0,
                "confidence": 0.5,
            },
            {
                "word": "world",
                "punctuated_word": "world.",
                "start": 1.0,
                "end": 1.5,
                "confidence": 0.5,
            },
        ],
    }
    assert first["metadata"]["request_id"] == "request"
    assert first["metadata"]["model_info"]["name"] == "nova-3"


def test_partials_beginnings_and_ends_are_told_to_who_asks_for_them() -> None:
    front = stream(
        interim_results="true", vad_events="true", utterance_end_ms="1000", endpointing="false"
    )
    documents = told(
        front,
        transcript("", 0.0, 0.1, final=False),
        transcript("one", 0.2, 0.5, final=False),
        transcript("one two", 0.2, 0.8, final=False),
        transcript("one two", 0.2, 1.0),
        transcript("three", 2.0, 3.0, segment=1),
    )
    assert [each["type"] for each in documents] == [
        "Results",
        "SpeechStarted",
        "Results",
        "Results",
        "Results",
        "UtteranceEnd",
        "SpeechStarted",
        "Results",
        "UtteranceEnd",
    ]
    assert documents[1] == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.2}
    assert documents[5] == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0}
    assert not any(each.get("speech_final") for each in documents)


def test_a_partial_gives_way_in_the_mailbox_and_a_final_does_not() -> None:
    front = stream(interim_results="true")
    (partial,) = front.tell(transcript("one", 0.0, 0.5, final=False))
    (final,) = front.tell(transcript("one", 0.0, 1.0))
    assert (partial.segment, partial.partial) == ("s.0", True)
    assert (final.segment, final.partial) == ("s.0", False)


def test_finalize_is_always_answered_once_with_its_final_if_it_brought_one() -> None:
    front = stream()
    (flush,) = front.read(FINALIZE)
    assert isinstance(flush, Flush)
    assert flush.id is not None
    assert told(front, transcript("one", 0.0, 1.0)) == []
    assert texts(told(front, Ack(id=flush.id, at=0))) == [("one", True, True)]
    (empty,) = front.read(FINALIZE)
    assert isinstance(empty, Flush)
    assert empty.id is not None
    (answer,) = told(front, Ack(id=empty.id, at=0), Ack(id=empty.id, at=0))
    assert texts([answer]) == [("", True, True)]
    assert (answer["start"], answer["duration"]) == (1.0, 0.0)
    (late,) = front.read(FINALIZE)
    assert isinstance(late, Flush)
    assert late.id is not None
    assert texts(told(front, Error(id=late.id, code="not_started", message=""))) == [
        ("", True, True)
    ]


def test_what_was_not_the_answer_to_finalize_is_said_before_what_comes_next() -> None:
    front = stream(interim_results="true")
    (flush,) = front.read(FINALIZE)
    assert isinstance(flush, Flush)
    assert flush.id is not None
    documents = told(
        front,
        transcript("one", 0.0, 1.0),
        transcript("two", 1.0, 2.0, segment=1),
        transcript("three", 2.0, 2.5, final=False, segment=2),
        Ack(id=flush.id, at=0),
    )
    assert texts(documents) == [
        ("one", True, False),
        ("two", True, False),
        ("three", False, False),
        ("", True, True),
    ]


def test_finalize_before_any_audio_of_a_container_is_answered_at_once() -> None:
    front = stream(encoding="", sample_rate="")
    assert front.first is None
    assert texts(said(front.read(FINALIZE))) == [("", True, True)]
    assert list(front.read(CLOSE_STREAM)) == [NORMAL]


def test_too_many_finalize_messages_have_to_wait() -> None:
    front = stream()
    for _ in range(FLUSHES):
        assert not front.busy
        list(front.read(FINALIZE))

    assert front.busy
    told(front, Ack(id="finalize-1", at=0))
    assert not front.busy


def test_the_stream_ends_with_what_is_left_and_metadata() -> None:
    front = stream(channels="2")
    audio = [bytes([n]) * 6400 for n in range(10)]
    assert list(front.hear(audio[0])) == [audio[0]]
    for each in audio[1:]:
        front.heard(each)

    assert list(front.hear(b"")) == []
    assert list(front.read(FINALIZE))
    assert [type(step) for step in front.read(CLOSE_STREAM)] == [Stop]
    assert list(front.read(CLOSE_STREAM)) == list(front.read("?")) == list(front.hear(b"x")) == []
    told(front, transcript("one", 0.0, 1.0))
    *results, metadata = told(front, closing(NORMAL))
    assert texts(results) == [("one", True, True)]
    assert metadata == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "request",
        "sha256": sha256(b"".join(audio)).hexdigest(),
        "created": "2023-11-14T22:13:20.000Z",
        "duration": 1.0,
        "channels": 2,
    }
    assert front.end(NORMAL) == Close(1000, "")


def test_a_container_is_as_long_as_what_was_recognized() -> None:
    front = stream(encoding="flac")
    told(front, transcript("one", 0.0, 1.5))
    assert told(front, closing(NORMAL))[-1]["duration"] == 1.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "{}",
        '{"type":"Nonsense"}',
        '{"type":["Finalize"]}',
        "x" * 5000,
        '{"type":"Configure","features":[]}',
        '{"type":"Configure","keyterms":"a"}',
    ],
)
def test_what_is_no_message_is_answered_with_an_error_that_repeats_it(text: str) -> None:
    front = stream()
    (refusal,) = front.read(text)
    assert isinstance(refusal, Refused)
    (error,) = told(front, Error(code=refusal.code, message=refusal.message))
    assert (error["type"], error["variant"]) == ("Error", "SchemaError")
    assert (error["description"], error["message"]) == (refusal.message, text[:1000])
    assert [type(step) for step in front.read('{"type":"KeepAlive"}')] == [Touch]


def test_configure_succeeds_where_it_means_nothing_and_fails_where_it_would() -> None:
    front = stream()
    for fields in ("", ',"features":{"numerals":true}', ',"keyterms":null'):
        (answer,) = said(front.read(f'{{"type":"Configure"{fields}}}'))
        assert answer == {"type": "ConfigureSuccess", "request_id": "request"}

    (failure,) = said(front.read('{"type":"Configure","keyterms":["a"]}'))
    assert (failure["type"], failure["code"]) == (
        "ConfigureFailure",
        "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
    )


@pytest.mark.parametrize(
    ("close", "code", "begins"),
    [
        (IDLE.because("silence"), 1011, "NET-0001: silence"),
        (UPSTREAM_UNAVAILABLE.because("lost"), 1011, "NET-0000: lost"),
        (Close(1007, "invalid_data", "noise"), 1008, "DATA-0000: noise"),
        (RESTART, 1012, "restart"),
        (SLOW_CONSUMER, 1008, "slow_consumer"),
    ],
)
def test_an_abnormal_end_is_told_by_an_error_and_a_code(
    close: Close, code: int, begins: str
) -> None:
    front = stream()
    error, metadata = told(front, closing(close))
    assert (error["type"], metadata["type"]) == ("Error", "Metadata")
    assert error["description"] == (close.message or close.reason)
    assert front.end(close) == Close(code, begins, flush=close.flush)


def test_a_refusal_that_ends_the_stream_is_told_once() -> None:
    codes = {"engine_busy": 1013, "engine_unauthorized": 1011, "unsupported_audio": 1008}
    for refused, code in {**codes, "bad_audio": 1008}.items():
        front = stream()
        close = ending(Refused(refused, "why"))
        documents = told(front, Error(code=refused, message="why"), closing(close))
        assert [each["type"] for each in documents] == ["Error", "Metadata"]
        assert documents[0]["variant"] == refused
        assert front.end(close).code == code


@given(MESSAGES)
def test_no_message_of_a_client_is_too_strange(messages: list[str | bytes]) -> None:
    check_never_raises(stream(), messages)
    check_never_raises(stream(encoding="", interim_results="true", vad_events="true"), messages)


def test_every_ending_fits_a_close_frame() -> None:
    check_endings(stream())
