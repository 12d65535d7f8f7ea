"""Bytes of a peer to messages: the same however they are cut, and nothing but a Violation."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.frames import (
    FRAGMENT_BYTES,
    FRAGMENTS,
    NO_CODE,
    REASON_BYTES,
    FrameReader,
    Payload,
    Violation,
    client_frame,
    close_frame,
    read_close,
)
from tests import rawframes
from tests.rawframes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATED,
    FIN,
    PING,
    PONG,
    TEXT,
    deflated,
    masked,
)

LIMIT = 1000
BIG = 1_000_000
Found = tuple[int, Payload] | tuple[str, int, str]
"""A message, or the violation that ends them."""

masks = st.binary(min_size=4, max_size=4)
cuts = st.lists(st.integers(0, 6000), max_size=8)
controls = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125))
bodies = st.tuples(st.just(TEXT), st.text(max_size=300)) | st.tuples(
    st.just(BINARY), st.binary(max_size=LIMIT)
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, Payload]]]:
    """Draw messages in random fragments with control frames between, and what should be read."""
    wire, read = bytearray(), list[tuple[int, Payload]]()
    for opcode, body in draw(st.lists(bodies | controls, max_size=5)):
        data = body.encode() if isinstance(body, str) else body
        if opcode < CLOSE:
            places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
            pieces = [data[a:b] for a, b in pairwise([0, *places, len(data)])]
        else:
            pieces = [data]

        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            wire += masked(0 if number else opcode, piece, last, draw(masks))
            if not last and draw(st.booleans()):
                control = draw(controls)
                wire += masked(*control, mask=draw(masks))
                read.append(control)

        read.append((opcode, body))

    return bytes(wire), read


noise = st.binary(max_size=300)
plausible = st.builds(
    lambda first, second, rest: bytes((first, second)) + rest,
    st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xC2, 0x41]),
    st.sampled_from([0x80, 0x81, 0x85, 0xFD, 0xFE, 0xFF, 0x05]),
    noise,
)
garbage = st.lists(noise | plausible | conversations().map(lambda drawn: drawn[0]), max_size=4).map(
    b"".join
)


def split(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut data at these places, as far as it reaches."""
    inside = sorted(place for place in places if place < len(data))
    return (data[a:b] for a, b in pairwise([0, *inside, len(data)]) if a < b)


def read(pieces: Iterable[bytes], limit: int = LIMIT, inflates: bool = False) -> list[Found]:
    """Read pieces one after the other, up to the first violation."""
    reader, found = FrameReader(limit, inflates), list[Found]()
    for piece in pieces:
        reader.feed(piece)
        try:
            while (message := reader.next()) is not None:
                found.append(message)
        except Violation as violation:
            return [*found, ("violation", violation.code, violation.reason)]

    return found


def code_of(*pieces: bytes, limit: int = LIMIT, inflates: bool = False) -> int:
    """Return the code of the violation that ends these frames, 0 if none does."""
    found = read(pieces, limit, inflates)
    return int(found[-1][1]) if found and found[-1][0] == "violation" else 0


@given(garbage, cuts, st.booleans())
def test_any_bytes_in_any_split_are_messages_or_a_violation_and_always_the_same(
    data: bytes, places: list[int], inflates: bool
) -> None:
    whole = read([data], inflates=inflates)
    assert read(split(data, places), inflates=inflates) == whole
    assert read((bytes([byte]) for byte in data), inflates=inflates) == whole
    assert all(len(each[1]) <= LIMIT for each in whole if not isinstance(each[1], int))


@given(conversations(), cuts)
def test_what_was_sent_is_read_in_any_split(
    conversation: tuple[bytes, list[tuple[int, Payload]]], places: list[int]
) -> None:
    wire, sent = conversation
    assert read(split(wire, places)) == sent


@given(conversations(), cuts)
def test_what_is_not_read_at_once_is_read_later(
    conversation: tuple[bytes, list[tuple[int, Payload]]], places: list[int]
) -> None:
    """One message is taken after each piece, as from a sink that holds."""
    wire, sent = conversation
    reader = FrameReader(LIMIT)
    found = []
    for piece in split(wire, places):
        reader.feed(piece)
        if (message := reader.next()) is not None:
            found.append(message)

    while (message := reader.next()) is not None:
        found.append(message)

    assert found == sent


@given(conversations(), st.integers(1, 5))
def test_no_more_is_kept_than_the_rest_of_a_frame(
    conversation: tuple[bytes, list[tuple[int, Payload]]], missing: int
) -> None:
    wire, _ = conversation
    reader = FrameReader(LIMIT)
    reader.feed(wire)
    while reader.next() is not None:
        pass

    assert held(reader) == b""
    last = masked(BINARY, bytes(50))
    reader.feed(wire + last[:-missing])
    while reader.next() is not None:
        pass

    assert held(reader) == last[:-missing]


def held(reader: FrameReader) -> bytes:
    """Return the bytes that a reader keeps."""
    return bytes(reader._data)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, BIG])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_every_form_of_the_length_is_read(opcode: int, size: int) -> None:
    data = b"x" * size
    body = data if opcode == BINARY else data.decode()
    frame = masked(opcode, data, mask=b"\x01\x80\xff\x37")
    assert read([frame], BIG) == [(opcode, body)]
    assert read([frame[:7], frame[7:]], BIG) == [(opcode, body)]


@pytest.mark.parametrize("form", [b"\xfe\x00\x05", b"\xff" + bytes(7) + b"\x05"])
def test_a_length_in_a_longer_form_than_it_needs_is_read(form: bytes) -> None:
    assert read([b"\x82" + form + bytes(4) + b"hello"]) == [(BINARY, b"hello")]


@pytest.mark.parametrize("size", [LIMIT + 1, 65536, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_over_the_limit_is_refused_by_its_head(opcode: int, size: int) -> None:
    *most, last = (bytes([byte]) for byte in rawframes.head(FIN | opcode, size)[:-4])
    assert code_of(*most) == 0
    assert code_of(*most, last) == 1009


@given(st.lists(st.integers(0, LIMIT), min_size=2, max_size=6))
@example([LIMIT, 0])
@example([LIMIT, 1])
def test_the_fragment_that_makes_a_message_too_big_is_refused_by_its_head(
    sizes: list[int],
) -> None:
    total, expected = 0, 0
    pieces = []
    for number, size in enumerate(sizes):
        total += size
        opcode = CONTINUATION if number else BINARY
        if total > LIMIT:
            pieces.append(rawframes.head(opcode, size)[:-4])
            expected = 1009
            break

        pieces.append(masked(opcode, bytes(size), fin=False))

    assert code_of(*pieces) == expected


@pytest.mark.parametrize("crumb", [0, 1, 2, 31])
@pytest.mark.parametrize("between", [b"", masked(PING)])
def test_a_message_of_crumbs_may_have_128_fragments(crumb: int, between: bytes) -> None:
    start, more = masked(BINARY, bytes(crumb), fin=False), masked(0, bytes(crumb), fin=False)
    most = [start] + [between + more] * (FRAGMENTS - 2)
    assert code_of(*most, masked(0, bytes(crumb)), limit=BIG) == 0
    assert code_of(*most, more, limit=BIG) == 0
    assert code_of(*most, more, masked(0, bytes(crumb)), limit=BIG) == 1009
    assert code_of(*most, more, more, limit=BIG) == 1009


def test_a_message_of_32_bytes_a_fragment_may_have_any_number() -> None:
    start, more = masked(BINARY, bytes(32), fin=False), masked(0, bytes(32), fin=False)
    pieces = [start, *[more] * 9998, masked(0, bytes(32))]
    assert read(pieces, BIG) == [(BINARY, bytes(320_000))]
    rich = masked(BINARY, bytes(32 * 1000), fin=False)
    empty = [masked(0, fin=False)] * 999
    assert code_of(rich, *empty, limit=BIG) == 0
    assert code_of(rich, *empty, masked(0, fin=False), limit=BIG) == 1009


def test_the_fragments_of_one_message_do_not_count_for_the_next() -> None:
    message = masked(BINARY, b"", fin=False) + masked(0, b"", fin=False) * 100 + masked(0, b"!")
    assert read([message * 5]) == [(BINARY, b"!")] * 5


@pytest.mark.parametrize("inflates", [True, False])
def test_each_first_byte_is_legal_or_refused(inflates: bool) -> None:
    for first in range(256):
        bits, opcode = first & 0x70, first & 15
        control = opcode in (PING, PONG, CLOSE) and first >= FIN and not bits
        data = opcode in (TEXT, BINARY) and (not bits or (bits == DEFLATED and inflates))
        expected = 0 if control or data else 1002
        assert code_of(rawframes.head(first, 0), inflates=inflates) == expected, first
        assert code_of(bytes((first, 0)), inflates=inflates) == 1002, "it is not masked"


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_short_and_whole(opcode: int) -> None:
    assert read([masked(opcode, bytes(125))]) == [(opcode, bytes(125))]
    assert code_of(masked(opcode, bytes(126))[:2]) == 1002
    assert code_of(bytes((FIN | opcode, 0xFF))) == 1002
    assert code_of(masked(opcode, b"", fin=False)[:2], bytes(4)) == 1002


def test_a_fragment_out_of_order_is_refused() -> None:
    assert code_of(masked(CONTINUATION, b"x")) == 1002
    assert code_of(masked(CONTINUATION, b"x", fin=False)) == 1002
    assert code_of(masked(TEXT, b"x", fin=False), masked(TEXT, b"x")) == 1002
    assert code_of(masked(TEXT, b"x", fin=False), masked(BINARY, b"x", fin=False)) == 1002
    assert code_of(masked(TEXT, b"x", fin=False), masked(0, b"x"), masked(0, b"x")) == 1002


NO_TEXT = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x80"]


@pytest.mark.parametrize("data", NO_TEXT)
def test_text_that_is_not_utf_8_is_refused(data: bytes) -> None:
    assert code_of(masked(TEXT, data)) == 1007
    assert code_of(masked(TEXT, data, fin=False), masked(0)) == 1007
    assert code_of(masked(BINARY, data)) == 0
    assert code_of(masked(DEFLATED | TEXT, deflated(data)), inflates=True) == 1007


def test_a_character_may_be_cut_between_fragments() -> None:
    euro = "€".encode()
    cut = masked(TEXT, euro[:1], fin=False) + masked(0, euro[1:2], fin=False) + masked(0, euro[2:])
    assert read([cut]) == [(TEXT, "€")]


@given(st.text(max_size=300), st.lists(st.integers(0, 400), max_size=4), cuts)
def test_deflated_messages_are_read_in_any_fragments(
    text: str, places: list[int], tcp: list[int]
) -> None:
    data = deflated(text.encode())
    pieces = list(split(data, places)) or [b""]
    wire = bytearray()
    for number, piece in enumerate(pieces):
        opcode = 0 if number else DEFLATED | TEXT
        wire += masked(opcode, piece, number == len(pieces) - 1)

    plain = masked(BINARY, b"plain")
    both = bytes(wire) + plain
    assert read(split(both, tcp), 2 * LIMIT, True) == [(TEXT, text), (BINARY, b"plain")]


def test_a_bomb_is_refused_before_it_exists() -> None:
    limit, size = 100_000, 100_000_000
    assert (
        code_of(masked(DEFLATED | BINARY, deflated(bytes(limit))), limit=limit, inflates=True) == 0
    )
    over = deflated(bytes(limit + 1))
    assert code_of(masked(DEFLATED | BINARY, over), limit=limit, inflates=True) == 1009
    bomb = masked(DEFLATED | BINARY, deflated(bytes(size)))
    assert len(bomb) < limit
    tracemalloc.start()
    assert code_of(bomb, limit=limit, inflates=True) == 1009
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * limit


@pytest.mark.parametrize("data", [b"\x07", b"\xff" * 10, deflated(b"x" * 99) + b"\x06junk"])
def test_what_is_not_deflate_is_refused(data: bytes) -> None:
    assert code_of(masked(DEFLATED | BINARY, data), inflates=True) == 1007


def test_memory_for_a_message_that_never_comes_is_not_taken() -> None:
    tracemalloc.start()
    reader = FrameReader(100_000_000)
    reader.feed(rawframes.head(FIN | BINARY, 100_000_000))
    assert reader.next() is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


LEGAL = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_each_code_is_legal_or_refused() -> None:
    for code in range(65536):
        payload = code.to_bytes(2, "big") + b"why"
        if code in LEGAL:
            assert read_close(payload) == code
        else:
            with pytest.raises(Violation) as violation:
                read_close(payload)

            assert violation.value.code == 1002


def test_a_close_without_a_code_is_legal_and_half_a_code_is_not() -> None:
    assert read_close(b"") == NO_CODE
    with pytest.raises(Violation) as half:
        read_close(b"\x03")

    assert half.value.code == 1002


@pytest.mark.parametrize("reason", NO_TEXT)
def test_the_reason_of_a_close_is_utf_8(reason: bytes) -> None:
    with pytest.raises(Violation) as violation:
        read_close(b"\x03\xe8" + reason)

    assert violation.value.code == 1007


@given(st.sampled_from(sorted(LEGAL)), st.text(max_size=200))
def test_a_reason_that_is_too_long_is_cut_between_characters(code: int, reason: str) -> None:
    ((first, payload),) = rawframes.frames(close_frame(code, reason))
    assert first == FIN | CLOSE
    assert read_close(payload) == code
    said = payload[2:].decode()
    assert reason.startswith(said)
    assert len(payload) <= 125
    assert said == reason or len(said.encode()) > REASON_BYTES - 4


def test_no_code_makes_an_empty_close_frame() -> None:
    assert close_frame(NO_CODE, "unsaid") == b"\x88\x00"


def test_the_average_of_a_crumb_is_what_the_tests_say() -> None:
    assert (FRAGMENTS, FRAGMENT_BYTES) == (128, 32)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 640, 65_535, 65_536])
def test_a_client_s_frame_is_read_as_it_was_written(size: int) -> None:
    payload = bytes(n % 251 for n in range(size))
    reader = FrameReader(65_536)
    first, second = (client_frame(BINARY, payload) for _ in range(2))
    assert first[: -size or None] != second[: -size or None]  # each has a mask of its own
    for frame in (first, second):
        reader.feed(frame)
        assert reader.next() == (BINARY, payload)


@given(st.sampled_from([BINARY, TEXT]), st.binary(max_size=LIMIT + 300), masks, st.booleans())
def test_bytes_that_are_one_binary_message_are_taken_as_such(
    opcode: int, body: bytes, mask: bytes, more: bool
) -> None:
    reader, data = FrameReader(LIMIT), masked(opcode, body, mask=mask) + b"\x82" * more
    found = reader.whole(data)
    alone = opcode == BINARY and not more and 2 <= len(body) <= LIMIT
    assert found == (body if alone else None)


def test_a_binary_message_behind_half_of_one_is_not_whole() -> None:
    reader, data = FrameReader(LIMIT), masked(BINARY, b"1234", mask=b"mask")
    reader.feed(data[:3])
    assert reader.whole(data) is None
    reader = FrameReader(LIMIT)
    reader.feed(masked(TEXT, b"1234", fin=False))
    assert reader.next() is None
    assert reader.whole(data) is None
    assert FrameReader(LIMIT).whole(b"\x82\x041234") is None, "it is not masked"


def test_a_length_of_64_bits_is_none_of_seven() -> None:
    frame = client_frame(BINARY, bytes(65_536))
    for end in range(len(frame) - 1, 0, -1):
        assert FrameReader(70_000).whole(frame[:end]) is None

    assert FrameReader(70_000).whole(frame) is None  # left to `feed`, as all that is as long
