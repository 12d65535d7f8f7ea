"""permessage-deflate: what is agreed on, and that both ends read each other."""

from __future__ import annotations

import zlib
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions import permessage_deflate
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionName

from actors.wire import DEFLATE_FROM, Burst, deflate_frame
from server.deflate import ANSWER, BadDeflate, TooBig, inflate, negotiate
from server.frames import FrameReader
from tests.actors.node import message
from tests.rawframes import BINARY, DEFLATED, FIN, TEXT, deflated, frames

NAME = ExtensionName("permessage-deflate")
TAKEN = [
    [NAME],
    [f"{NAME}; client_max_window_bits"],
    [f"{NAME}; client_max_window_bits=8"],
    [f"{NAME}; client_max_window_bits=15"],
    [f"{NAME}; client_no_context_takeover"],
    [f"{NAME}; server_no_context_takeover"],
    [f"{NAME}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"],
    [f"{NAME}; server_max_window_bits=10, {NAME}"],
    [f"{NAME}; server_max_window_bits=10", NAME],
    [f"x-unknown, {NAME}"],
    ["x-unknown; a=1", f"{NAME};client_max_window_bits"],
]
LEFT = [
    [],
    ["x-unknown"],
    ["Permessage-Deflate"],
    [f"{NAME}; server_max_window_bits"],
    [f"{NAME}; server_max_window_bits=8"],
    [f"{NAME}; server_max_window_bits=14"],
    [f"{NAME}; server_max_window_bits=16"],
    [f"{NAME}; client_max_window_bits=7"],
    [f"{NAME}; client_max_window_bits=16"],
    [f"{NAME}; client_max_window_bits=08"],
    [f"{NAME}; client_max_window_bits=x"],
    [f"{NAME}; client_no_context_takeover=1"],
    [f"{NAME}; server_no_context_takeover=true"],
    [f"{NAME}; client_no_context_takeover; client_no_context_takeover"],
    [f"{NAME}; client_max_window_bits; client_max_window_bits=10"],
    [f"{NAME}; unknown"],
    [f"{NAME}; unknown=1"],
    [f"{NAME};"],
    [f"{NAME} client_max_window_bits"],
    ["="],
]


@pytest.mark.parametrize("offers", TAKEN, ids=repr)
def test_an_offer_that_can_be_kept_is_taken(offers: list[str]) -> None:
    assert negotiate(offers) == ANSWER


@pytest.mark.parametrize("offers", LEFT, ids=repr)
def test_an_offer_that_cannot_be_kept_is_left(offers: list[str]) -> None:
    assert negotiate(offers) is None


@pytest.mark.parametrize("server_bits", [None, 10, 15])
@pytest.mark.parametrize("client_bits", [None, True, 9, 15])
@pytest.mark.parametrize("takeover", [True, False])
def test_the_answer_is_one_that_a_client_takes(
    server_bits: int | None, client_bits: int | bool | None, takeover: bool
) -> None:
    offer = permessage_deflate.ClientPerMessageDeflateFactory(
        not takeover, not takeover, server_bits, client_bits
    )
    answer = negotiate([build_extension([(NAME, offer.get_request_params())])])
    if server_bits == 10:
        assert answer is None
        return

    assert answer is not None
    ((name, parameters),) = parse_extension(answer)
    agreed = offer.process_response_params(parameters, [])
    assert name == NAME
    assert agreed.remote_no_context_takeover
    assert agreed.local_no_context_takeover


texts = st.text(max_size=500) | st.text("ab", min_size=DEFLATE_FROM, max_size=2000)


@given(st.lists(texts, min_size=1, max_size=3))
@example(["", "x" * DEFLATE_FROM, "x" * 100_000])
def test_the_websockets_client_reads_what_is_deflated(messages: list[str]) -> None:
    peer = permessage_deflate.PerMessageDeflate(True, True, 15, 15)
    for text in messages:
        data = text.encode()
        ((first, payload),) = frames(deflate_frame(TEXT, data))
        frame = Frame(Opcode.TEXT, payload, rsv1=bool(first & DEFLATED))
        assert peer.decode(frame).data == data
        assert len(payload) <= len(data)


@given(st.lists(texts, min_size=1, max_size=3))
def test_what_the_websockets_client_deflates_is_read(messages: list[str]) -> None:
    peer = permessage_deflate.PerMessageDeflate(True, True, 15, 15)
    reader = FrameReader(200_000, inflates=True)
    for text in messages:
        reader.feed(Frame(Opcode.TEXT, text.encode()).serialize(mask=True, extensions=[peer]))

    assert [reader.next() for _ in messages] == [(TEXT, text) for text in messages]


@given(st.binary(max_size=3000), st.integers(0, 4000))
def test_a_message_is_inflated_if_it_is_within_the_limit(data: bytes, limit: int) -> None:
    small = deflated(data)
    if len(data) <= limit:
        assert inflate(small, limit) == data
    else:
        with pytest.raises(TooBig):
            inflate(small, limit)


@given(st.binary(max_size=100))
def test_any_bytes_inflate_or_are_refused(data: bytes) -> None:
    with suppress(BadDeflate, TooBig):
        assert len(inflate(data, 50)) <= 50


@pytest.mark.parametrize("level", range(10))
def test_every_level_of_zlib_is_read(level: int) -> None:
    deflater = zlib.compressobj(level, wbits=-15)
    data = deflater.compress(b"abcabc" * 99) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert inflate(data.removesuffix(b"\0\0\xff\xff"), 1000) == b"abcabc" * 99


def test_a_message_that_ends_its_deflate_stream_is_read() -> None:
    """RFC 7692, section 7.2.3.4: the last block may say that it is the last."""
    deflater = zlib.compressobj(wbits=-15)
    final = deflater.compress(b"Hello") + deflater.flush() + b"\0"
    assert inflate(final, 100) == b"Hello"


def test_a_message_that_gains_nothing_stays_as_it_is() -> None:
    short, noise = b"x" * (DEFLATE_FROM - 1), bytes(range(256))
    assert list(frames(deflate_frame(BINARY, short))) == [(FIN | BINARY, short)]
    assert list(frames(deflate_frame(BINARY, noise))) == [(FIN | BINARY, noise)]
    ((first, payload),) = frames(deflate_frame(BINARY, bytes(DEFLATE_FROM)))
    assert first == FIN | DEFLATED | BINARY
    assert len(payload) < DEFLATE_FROM


def test_an_event_is_deflated_once_for_all_who_hear_it() -> None:
    frame = message(1, "x" * 1000)
    one, two = Burst([frame]), Burst([frame])
    assert one.deflated_json_frames is one.deflated_json_frames
    assert one.deflated_json_frames == two.deflated_json_frames == frame.deflated_json_frame
    assert frame.deflated_json_frame is frame.deflated_json_frame
    assert frame.deflated_msgpack_frame is frame.deflated_msgpack_frame
    assert len(frame.deflated_json_frame) < len(frame.json_frame) / 5
