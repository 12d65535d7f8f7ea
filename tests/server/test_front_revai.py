"""Rev.ai's protocol without a socket: the query, what a client says, and what it is told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from actors.commands import Start, Stop
from actors.errors import (
    IDLE,
    NORMAL,
    OVERLOAD,
    REPLIES,
    RESTART,
    SLOW_CONSUMER,
    UPSTREAM_UNAVAILABLE,
    Close,
    Refused,
    ending,
)
from actors.messages import Error, Speech
from server.fronts.revai import RevaiTranslator, ending_of, read_stream
from tests.server.fronts import (
    HELLO,
    MESSAGES,
    check_endings,
    check_never_raises,
    closing,
    told,
    transcript,
)

RAW = "audio/x-raw;layout=interleaved;rate=16000;format=S16LE;channels=1"
READY = Speech(state="ready")


def stream(content_type: str = RAW, **query: str) -> RevaiTranslator:
    """Make the translator of a stream."""
    return RevaiTranslator(read_stream({"content_type": content_type, **query}, "id"))


@pytest.mark.parametrize(
    ("content_type", "encoding", "rate", "channels"),
    [
        (RAW, "pcm_s16le", 16_000, 1),
        (
            "audio/x-raw; channels=2; format=S16LE; rate=8000; layout=interleaved",
            "pcm_s16le",
            8000,
            2,
        ),
        ("audio/x-flac", "flac", None, 1),
        ("audio/x-wav", "wav", None, 1),
        ("audio/*", "", None, 1),
    ],
)
def test_a_content_type_is_one_of_our_encodings(
    content_type: str, encoding: str, rate: int | None, channels: int
) -> None:
    start = read_stream({"content_type": content_type, "room": "r"}, "id").start
    assert (start.encoding, start.rate, start.channels) == (encoding, rate, channels)
    assert (start.room, start.transcripts) == ("r", True)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "video/mp4",
        "audio/x-raw",
        *(RAW.replace(field, "x") for field in ("layout", "rate", "format", "channels")),
        *(RAW.replace("16000", rate) for rate in ("7999", "48001", "fast", "")),
        RAW.replace("S16LE", "s16le"),
        RAW.replace("interleaved", "planar"),
        RAW.replace("channels=1", "channels=3"),
        RAW + ";" + "x" * 256,
    ],
)
def test_a_wrong_content_type_is_a_bad_request_that_names_it(content_type: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_stream({"content_type": content_type}, "id")

    code, reason = ending_of(refusal.value.code, refusal.value.message)
    assert code == 4002
    assert "content_type" in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metadata", "x" * 513),
        ("start_ts", "later"),
        ("start_ts", "-1"),
        ("detailed_partials", "maybe"),
        ("language", "e" * 65),
        ("room", "no room"),
    ],
)
def test_a_wrong_parameter_is_a_bad_request_that_names_it(name: str, value: str) -> None:
    with pytest.raises(Refused) as refusal:
        stream(**{name: value})

    assert ending_of(refusal.value.code, refusal.value.message)[0] == 4002
    assert refusal.value.field == name


def test_connected_comes_once_when_the_engine_is_ready_and_has_an_id() -> None:
    front = stream()
    assert isinstance(front.first, Start)
    assert told(front, HELLO, Speech(state="connecting")) == []
    assert told(front, READY, READY) == [{"type": "connected", "id": "abc"}]


def test_who_says_no_type_is_connected_at_once_for_the_audio_has_to_say_it() -> None:
    front = stream("audio/*")
    assert front.first is None
    assert told(front, HELLO, READY) == [{"type": "connected", "id": "abc"}]
    start, audio = front.hear(b"fLaC" + bytes(20))
    assert isinstance(start, Start)
    assert (start.encoding, audio) == ("flac", b"fLaC" + bytes(20))


def test_a_partial_is_words_and_a_final_has_spaces_and_punctuation_of_its_own() -> None:
    partial, final = told(
        stream(),
        transcript("Hello, world", 1.0, 2.0, final=False),
        transcript("Hello, world. ...", 1.0, 2.5),
    )
    assert partial == {
        "type": "partial",
        "ts": 1.0,
        "end_ts": 2.0,
        "elements": [{"type": "text", "value": "Hello,"}, {"type": "text", "value": "world"}],
    }
    assert "".join(each["value"] for each in final["elements"]) == "Hello, world. ..."
    assert final == {
        "type": "final",
        "ts": 1.0,
        "end_ts": 2.5,
        "elements": [
            {"type": "text", "value": "Hello", "ts": 1.0, "end_ts": 1.5, "confidence": 0.5},
            {"type": "punct", "value": ","},
            {"type": "punct", "value": " "},
            {"type": "text", "value": "world", "ts": 1.5, "end_ts": 2.0, "confidence": 0.5},
            {"type": "punct", "value": "."},
            {"type": "punct", "value": " "},
            {"type": "punct", "value": "..."},
        ],
    }


def test_detailed_partials_have_times_and_every_time_has_the_offset() -> None:
    front = stream(detailed_partials="true", start_ts="10.5")
    (partial,) = told(front, transcript("hi", 1.0, 2.0, final=False))
    assert (partial["ts"], partial["end_ts"]) == (11.5, 12.5)
    assert partial["elements"] == [
        {"type": "text", "value": "hi", "ts": 11.5, "end_ts": 12.5, "confidence": 0.5}
    ]


def test_a_final_without_words_has_those_of_its_text() -> None:
    bare = msgspec.structs.replace(transcript("one two", 0.0, 1.0), words=())
    (final,) = told(stream(), bare)
    assert [each["value"] for each in final["elements"]] == ["one", " ", "two"]


def test_eos_ends_the_audio_and_nothing_else_may_be_said() -> None:
    front = stream()
    assert [type(step) for step in front.read("EOS")] == [Stop]
    assert list(front.read("EOS")) == list(front.read("?")) == list(front.hear(b"x")) == []
    assert front.end(NORMAL) == Close(1000, "Normal Closure.")
    assert list(stream("audio/*").read("EOS")) == [NORMAL]
    for text in ("", "eos", "EOS ", '{"type":"EOS"}', "x" * 10_000):
        (close,) = stream().read(text)
        assert isinstance(close, Close)
        assert stream().end(close).code == 1007


def test_an_empty_message_is_nothing() -> None:
    front = stream()
    assert list(front.hear(b"")) == []
    assert list(front.hear(b"x")) == [b"x"]


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        (RESTART, 4010, "Shutting Down"),
        (OVERLOAD, 4013, "Try Again Later"),
        (UPSTREAM_UNAVAILABLE.because("lost"), 4013, "Try Again Later"),
        (IDLE.because("silence"), 1008, "silence"),
        (SLOW_CONSUMER, 1008, "slow_consumer"),
    ],
)
def test_an_ending_has_the_code_that_the_vendor_has_for_it(
    close: Close, code: int, reason: str
) -> None:
    front = stream()
    assert told(front, closing(close)) == []
    assert front.end(close) == Close(code, reason, flush=close.flush)


def test_a_refused_session_ends_by_what_was_refused() -> None:
    codes = {"engine_busy": 4013, "unsupported_audio": 4002, "bad_audio": 4002}
    for refused, code in {**codes, "room_limit": 4029, "engine_unpaid": 4013}.items():
        front = stream()
        told(front, Error(code=refused, message="why"))
        assert front.end(ending(Refused(refused, "why"))).code == code


def test_every_refusal_has_a_code_of_the_vendor() -> None:
    codes = {code: ending_of(code, "why")[0] for code in REPLIES}
    assert set(codes.values()) == {4001, 4002, 4010, 4013, 4029}
    assert (codes["unauthorized"], codes["draining"], codes["overload"]) == (4001, 4010, 4029)


@given(MESSAGES)
def test_no_message_of_a_client_is_too_strange(messages: list[str | bytes]) -> None:
    check_never_raises(stream(), messages)
    check_never_raises(stream("audio/*", detailed_partials="true"), messages)


def test_every_ending_fits_a_close_frame() -> None:
    check_endings(stream())
