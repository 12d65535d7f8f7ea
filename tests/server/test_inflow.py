"""What a provider sends says the same however it is cut, whoever parses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from actors.wire import pack_frame
from server.engines.inflow import Event, Inflow, Misconduct
from server.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT

LIMIT = 3000

texts = st.text(max_size=60).map(lambda text: [(text, pack_frame(TEXT, text.encode()))])
long = st.integers(120, 2100).map(lambda size: [("x" * size, pack_frame(TEXT, b"x" * size))])
binaries = st.binary(max_size=40).map(lambda data: [(data, pack_frame(BINARY, data))])
pings = st.just([(None, pack_frame(PING, b"?"))])
fragments = st.text(max_size=40).map(
    lambda text: [
        (None, bytes((TEXT, len(text.encode()))) + text.encode()),
        (text + "!", pack_frame(CONTINUATION, b"!")),
    ]
)
said = st.lists(st.one_of(texts, long, binaries, pings, fragments), max_size=12)


def inflow(limit: int = LIMIT) -> Inflow:
    """Make that of a connection which is open."""
    return Inflow(ClientProtocol(parse_uri("ws://any/"), state=OPEN, max_size=limit), limit)


def heard(flow: Inflow, data: bytes) -> list[Event]:
    """Give it bytes, and return what they say."""
    flow.feed(data)
    events: list[Event] = []
    while flow.waiting:
        flow.parse()
        while (event := flow.next(0.0)) is not None:
            events.append(event)

    return events


@given(said, st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_the_same_however_they_are_cut(
    script: list[list[tuple[str | bytes | None, bytes]]], cuts: list[int]
) -> None:
    parts = [part for message in script for part in message]
    wanted = [message for message, _ in parts if message is not None]
    flow = inflow()
    assert [event for _, data in parts for event in heard(flow, data)] == wanted
    whole, flow, found = b"".join(data for _, data in parts), inflow(), list[Event]()
    for cut in cuts:
        found += heard(flow, whole[:cut])
        whole = whole[cut:]

    assert found + heard(flow, whole) == wanted


def test_a_text_within_a_fragmented_message_breaks_the_protocol() -> None:
    wire = ClientProtocol(parse_uri("ws://any/"), state=OPEN)
    flow = Inflow(wire, LIMIT)
    assert heard(flow, b"\x01\x01a") == []
    assert heard(flow, pack_frame(TEXT, b"b")) == []
    assert wire.parser_exc is not None


@pytest.mark.parametrize("data", [pack_frame(TEXT, b"x" * 11), b"\x81\x85abcdhello", b"\xc1\x01x"])
def test_what_may_not_come_is_no_text(data: bytes) -> None:
    wire = ClientProtocol(parse_uri("ws://any/"), state=OPEN, max_size=10)
    assert heard(Inflow(wire, 10), data) == []
    assert wire.parser_exc is not None


def test_a_text_that_is_not_utf8_is_misconduct() -> None:
    with pytest.raises(Misconduct, match="UTF-8"):
        heard(inflow(), pack_frame(TEXT, b"\xff"))


def test_nothing_is_said_behind_a_close() -> None:
    flow = inflow()
    (close,) = heard(flow, pack_frame(CLOSE, b"\x03\xe8"))
    assert isinstance(close, Frame)
    assert heard(flow, pack_frame(TEXT, b"late")) == []
