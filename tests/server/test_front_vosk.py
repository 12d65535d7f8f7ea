"""The protocol of vosk-server without a socket: one reply for each message that has one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from actors.commands import Flush, Start, Stop
from actors.errors import IDLE, NORMAL, RESTART, Close, Refused
from actors.messages import Ack, Error
from server.fronts.translator import Drained
from server.fronts.vosk import FINALS, VoskTranslator, read_vosk
from tests.server.fronts import (
    MESSAGES,
    check_endings,
    check_never_raises,
    closing,
    said,
    told,
    transcript,
)

EOF, RESET = '{"eof" : 1}', '{"reset" : 1}'


def stream(setting: str = "", **query: str) -> VoskTranslator:
    """Make the translator of a stream; `setting` is the room of the settings."""
    return VoskTranslator(read_vosk(query, setting, "id"))


def reply(front: VoskTranslator, data: bytes = b"x") -> dict[str, Any]:
    """Send audio and return the reply."""
    drained = list(front.hear(data))[-1]
    assert isinstance(drained, Drained)
    (document,) = said(drained.reply())
    return document


@pytest.mark.parametrize(
    ("setting", "query", "expected"),
    [("", {}, "vosk:id"), ("r", {}, "r"), ("r", {"room": "q"}, "q")],
)
def test_the_room_is_that_of_the_query_or_the_setting_or_a_private_one(
    setting: str, query: dict[str, str], expected: str
) -> None:
    start, audio, _ = stream(setting, **query).hear(b"x")
    assert isinstance(start, Start)
    assert (start.room, start.rate, start.transcripts, audio) == (expected, 16_000, True, b"x")


def test_every_binary_message_has_one_reply_also_an_empty_one() -> None:
    front = stream()
    assert reply(front, b"") == {"partial": ""}
    told(front, transcript("one", 0.0, 0.5, final=False))
    assert reply(front) == {"partial": "one"}
    told(front, transcript("one two", 0.0, 1.0), transcript("three", 1.0, 2.0, segment=1))
    told(front, transcript("four", 2.0, 2.5, final=False, segment=2))
    assert reply(front) == {
        "result": [
            {"conf": 0.5, "end": 0.5, "start": 0.0, "word": "one"},
            {"conf": 0.5, "end": 1.0, "start": 0.5, "word": "two"},
        ],
        "text": "one two",
    }
    assert reply(front)["text"] == "three"
    assert reply(front) == {"partial": "four"}
    told(front, transcript("four", 2.0, 3.0, segment=2))
    assert [reply(front, b"").get(key) for key in ("text", "partial")] == ["four", ""]


def test_eof_ends_with_everything_that_is_left_in_one_result() -> None:
    front = stream()
    reply(front)
    assert [type(step) for step in front.read(EOF)] == [Stop]
    assert list(front.read(EOF)) == list(front.hear(b"x")) == []
    told(front, transcript("one", 0.0, 1.0), transcript("", 1.0, 1.0), transcript("two", 1.0, 2.0))
    (last,) = told(front, closing(NORMAL))
    assert last["text"] == "one two"
    assert [word["word"] for word in last["result"]] == ["one", "two"]
    assert front.end(NORMAL) == Close(1000, "")


def test_eof_before_any_audio_ends_with_nothing() -> None:
    front = stream()
    assert list(front.read(EOF)) == [NORMAL]
    assert told(front, closing(NORMAL)) == [{"text": ""}]


@pytest.mark.parametrize(
    "answer", [Ack(id="reset", at=0.0), Error(id="reset", code="not_started", message="")]
)
def test_a_reset_is_replied_to_before_anything_else_is_read(answer: Ack | Error) -> None:
    front = stream()
    assert said(front.read(RESET)) == [{"text": ""}]
    reply(front)
    waits = [front.busy]
    (flush,) = front.read(RESET)
    assert isinstance(flush, Flush)
    waits.append(front.busy)
    told(front, transcript("one", 0.0, 0.5, final=False))
    assert told(front, transcript("one", 0.0, 1.0)) == []
    assert [document["text"] for document in told(front, answer)] == ["one"]
    assert [*waits, front.busy] == [False, True, False]
    assert reply(front) == {"partial": ""}


def test_a_config_is_read_leniently_and_not_replied_to() -> None:
    front = stream()
    for rate in ("8000", '"8000"', "8000.0"):
        config = f'{{"config":{{"sample_rate":{rate},"model":"/etc","phrase_list":["a"]}}}}'
        assert list(front.read(config)) == []

    start, *_ = front.hear(b"x")
    assert isinstance(start, Start)
    assert start.rate == 8000
    for rate in ("7999", "48001", '"fast"', "null", "1e30", "[]", "NaN"):
        found = list(stream().read(f'{{"config":{{"sample_rate":{rate}}}}}'))
        assert [type(step) for step in found] == ([Refused] if rate == "NaN" else [Close])


def test_words_and_alternatives_are_as_configured() -> None:
    front = stream()
    front.read('{"config":{"words":0}}')
    told(front, transcript("one", 0.0, 1.0))
    assert reply(front) == {"text": "one"}
    front.read('{"config":{"words":true,"max_alternatives":2}}')
    told(front, transcript("two", 1.0, 2.0))
    word = {"end": 2.0, "start": 1.0, "word": "two"}
    assert reply(front) == {"alternatives": [{"confidence": 1.0, "text": "two", "result": [word]}]}


@pytest.mark.parametrize("text", ["", "x", "{}", '{"config":1}', "[" * 2000, "x" * 10_000])
def test_another_text_is_refused_and_not_replied_to(text: str) -> None:
    front = stream()
    (refusal,) = front.read(text)
    assert isinstance(refusal, Refused)
    assert told(front, Error(code=refusal.code, message=refusal.message)) == []
    assert reply(front) == {"partial": ""}


def test_who_does_not_ask_for_finals_has_them_joined() -> None:
    front = stream()
    reply(front)
    said_so = [f"w{n}" for n in range(FINALS + 50)]
    told(front, *(transcript(text, n, n + 1, segment=n) for n, text in enumerate(said_so)))
    front.read(EOF)
    (last,) = told(front, closing(NORMAL))
    assert last["text"].split() == said_so
    assert len(last["result"]) == len(said_so)


def test_what_was_recognized_is_not_lost_at_an_end_that_nobody_asked_for() -> None:
    front = stream()
    assert told(front, closing(RESTART)) == []
    told(front, transcript("one", 0.0, 1.0))
    assert told(front, closing(RESTART))[0]["text"] == "one"
    assert front.end(RESTART) == Close(1012, "restart")
    assert front.end(IDLE.because("silence")) == Close(1008, "silence")


@given(MESSAGES)
def test_every_binary_message_before_the_end_has_exactly_one_reply(
    messages: list[str | bytes],
) -> None:
    front = stream()
    steps = check_never_raises(front, messages)
    ended = [n for n, step in enumerate(steps) if isinstance(step, Stop) or step == NORMAL]
    replies = sum(isinstance(step, Drained) for step in steps)
    if not ended:
        assert replies == sum(isinstance(message, bytes) for message in messages)


def test_every_ending_fits_a_close_frame() -> None:
    check_endings(stream())
