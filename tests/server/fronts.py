"""Our events as a front's translator is told them, and what it says then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st

from actors.errors import CLOSES, Close, Refused
from actors.messages import (
    Ack,
    AnyEvent,
    Closing,
    Error,
    Gap,
    Hello,
    Speaker,
    Speech,
    Transcript,
    Word,
)
from server.fronts.translator import REASON_BYTES, Drained, Say, Step, Touch, Translator

HELLO = Hello(connection="abc", at=0.0)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
NAMES = ("Finalize", "CloseStream", "KeepAlive", "Configure", "config", "eof", "reset")
DOCUMENTS = st.builds(
    lambda name, value: str(msgspec.json.encode({"type": name, name: value}), "utf-8"),
    st.sampled_from(NAMES),
    JSON_VALUES,
)
MESSAGES = st.lists(st.text(max_size=40) | DOCUMENTS | st.binary(max_size=40), max_size=12)


def transcript(
    text: str, start: float, end: float, final: bool = True, segment: int = 0
) -> Transcript:
    """Make a transcript whose words divide its time evenly."""
    texts = text.split()
    width = (end - start) / max(1, len(texts))
    return Transcript(
        room="r",
        segment=f"s.{segment}",
        revision=0,
        final=final,
        text=text,
        start=start,
        end=end,
        words=tuple(
            Word(each, start + width * n, start + width * (n + 1), 0.5)
            for n, each in enumerate(texts)
        ),
        speaker=Speaker("1", "Ann"),
        language="en",
        at=0.0,
    )


def closing(close: Close) -> Closing:
    """Make the event that announces an ending."""
    return Closing(code=close.code, reason=close.reason, retry=close.retry, message=close.message)


def said(words: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the documents among some steps."""
    return [msgspec.json.decode(each.json) for each in words if isinstance(each, Say)]


def told(translator: Translator, *events: AnyEvent) -> list[dict[str, Any]]:
    """Tell events, and return what was said."""
    return [document for event in events for document in said(translator.tell(event))]


def check_endings(translator: Translator) -> None:
    """Whatever ends a connection has a code that may be sent, and a reason that fits."""
    for close in CLOSES:
        for message in ("", "é" * 200):
            end = translator.end(close.because(message))
            assert 1000 <= end.code < 5000
            assert len(end.reason.encode()) <= REASON_BYTES
            assert end.flush == close.flush


def check_never_raises(translator: Translator, messages: list[str | bytes]) -> list[Step]:
    """Any message is a row of steps; so is any event between them."""
    events: list[AnyEvent] = [
        HELLO,
        Speech(state="ready"),
        transcript("one, two.", 0.0, 1.0),
        transcript("", 1.0, 1.0),
        transcript("three", 1.0, 2.0, final=False, segment=1),
        Gap(room="r", first=0, last=1, reason="upstream_full"),
        Error(code="bad_message", message="no"),
        Ack(id="reset", at=0.0),
        Ack(id="finalize-1", at=0.0),
    ]
    steps: list[Step] = []
    for count, message in enumerate(messages):
        heard = translator.read(message) if isinstance(message, str) else translator.hear(message)
        steps += heard
        told(translator, events[count % len(events)])

    assert all(isinstance(step, Kinds) for step in steps)
    told(translator, closing(CLOSES[0]))
    check_endings(translator)
    return steps


Kinds = msgspec.Struct | bytes | Say | Close | Refused | Touch | Drained
