"""Bytes to messages and back: the same on both ways, and never more than a refusal."""

from __future__ import annotations

import zlib
from time import process_time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as WebSocketFrame
from websockets.streams import StreamReader

from actors.commands import AnyCommand, Join, Leave, Ping, Publish, Refresh, Start, Stop
from actors.errors import Refused
from actors.messages import (
    Ack,
    AnyEvent,
    Closing,
    Error,
    Gap,
    Hello,
    Joined,
    Message,
    Speaker,
    Speech,
    Transcript,
    Word,
)
from actors.wire import (
    Burst,
    Codec,
    Frame,
    decode,
    deflate_frame,
    encode_json,
    encode_msgpack,
    pack_frame,
)
from tests.actors.node import message, transcript

text = st.text(max_size=20)
label = st.text(max_size=64)
room = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
number = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**53), 2**53)
ids = st.one_of(whole, label)
maybe_id = st.one_of(st.none(), ids)
scalar = st.one_of(st.none(), st.booleans(), whole, number, text)
json_value = st.recursive(
    scalar, lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(text, deeper, max_size=3)
)
commands: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(Join, id=maybe_id, room=room, since=st.none() | label, history=st.integers(0, 9)),
    st.builds(Leave, id=maybe_id, room=room),
    st.builds(Start, id=maybe_id, room=room, rate=whole, language=label, name=label),
    st.builds(Stop, id=maybe_id),
    st.builds(Publish, id=maybe_id, room=room, data=json_value),
    st.builds(Refresh, id=maybe_id, token=text),
    st.builds(Ping, id=maybe_id),
)
words = st.lists(st.builds(Word, text, number, number, number), max_size=2).map(tuple)
events: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Hello, connection=text, at=number),
    st.builds(Joined, id=ids, room=room, epoch=text, offset=whole, recovered=st.booleans()),
    st.builds(
        Transcript,
        room=room,
        segment=text,
        revision=whole,
        final=st.booleans(),
        text=text,
        start=number,
        end=number,
        words=words,
        speaker=st.builds(Speaker, text, text),
        language=label,
        at=number,
    ),
    st.builds(Message, room=room, data=json_value, sender=text, at=number, offset=whole),
    st.builds(Gap, room=room, first=whole, last=whole, reason=st.sampled_from(["ahead"])),
    st.builds(Speech, state=st.sampled_from(["ready"]), received=whole, lag=number),
    st.builds(Ack, id=ids, at=number),
    st.builds(Error, code=text, message=text),
    st.builds(Closing, code=whole, reason=text, retry=st.booleans()),
)
codecs: st.SearchStrategy[Codec] = st.sampled_from(["json", "msgpack"])
from_json: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
from_msgpack: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)
CODES = {"bad_message", "bad_room"}


def refused(data: str | bytes, codec: Codec = "json") -> Refused:
    """Return the refusal of a message."""
    with pytest.raises(Refused) as refusal:
        decode(data, codec)

    return refusal.value


def attempt(data: str | bytes, codec: Codec) -> None:
    """Read anything; if it is refused, the refusal can be told."""
    try:
        assert isinstance(decode(data, codec), bytes | AnyCommand)
    except Refused as refusal:
        told = Error(code=refusal.code, message=refusal.message, field=refusal.field)
        assert from_json.decode(encode_json(told)) == told
        assert from_msgpack.decode(encode_msgpack(told)) == told


def parse(data: bytes) -> list[WebSocketFrame]:
    """Parse frames with somebody else's parser."""
    reader, frames = StreamReader(), []
    reader.feed_data(data)
    reader.feed_eof()
    while True:
        parser = WebSocketFrame.parse(reader.read_exact, mask=False)
        try:
            next(parser)
        except StopIteration as parsed:
            frames.append(parsed.value)
        except EOFError:
            return frames


@given(commands)
def test_a_command_is_read_as_it_was_written(command: AnyCommand) -> None:
    assert decode(msgspec.json.encode(command).decode(), "json") == command
    assert decode(msgspec.msgpack.encode(command), "msgpack") == command


@given(events)
def test_an_event_is_read_as_it_was_written(event: AnyEvent) -> None:
    frame = Frame(event)
    assert from_json.decode(frame.json) == event
    assert from_msgpack.decode(frame.msgpack) == event
    assert frame.text.encode() == frame.encoded("json") == frame.json
    assert frame.encoded("msgpack") == frame.msgpack


@given(st.binary(max_size=200), codecs)
def test_any_bytes_are_a_command_or_audio_or_refused(data: bytes, codec: Codec) -> None:
    attempt(data, codec)


@given(st.text(st.characters(codec=None), max_size=200), codecs)
def test_any_text_is_a_command_or_refused(data: str, codec: Codec) -> None:
    attempt(data, codec)


@given(commands, st.data())
def test_a_damaged_command_is_a_command_or_refused(
    command: AnyCommand, data: st.DataObject
) -> None:
    whole_json = msgspec.json.encode(command).decode()
    packed = msgspec.msgpack.encode(command)
    start = data.draw(st.integers(0, len(whole_json)))
    attempt(whole_json[:start] + data.draw(text) + whole_json[start + 1 :], "json")
    start = data.draw(st.integers(0, len(packed)))
    attempt(packed[:start] + data.draw(st.binary(max_size=4)) + packed[start + 1 :], "msgpack")


@given(st.dictionaries(text, json_value, max_size=5), st.sampled_from(["ping", "join", "publish"]))
def test_any_table_is_a_command_or_refused(table: dict[str, object], kind: str) -> None:
    data = {**table, "type": kind}
    attempt(msgspec.json.encode(data).decode(), "json")
    attempt(msgspec.msgpack.encode(data), "msgpack")


def test_binary_is_audio_under_json_and_a_value_under_msgpack() -> None:
    assert decode(b"\x00\x01", "json") == b"\x00\x01"
    assert decode(msgspec.msgpack.encode(b"\x00\x01"), "msgpack") == b"\x00\x01"
    assert refused(b"\x00\x01", "msgpack").code == "bad_message"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ('{"type":"ping","regex":1}', "regex"),
        ('{"type":"join"}', "room"),
        ('{"type":"join","room":5}', "room"),
        ('{"type":"start","room":"a","rate":"x"}', "rate"),
        ('{"type":"shout"}', "type"),
        ("{}", "type"),
        ("[]", ""),
        ("", ""),
    ],
)
def test_a_refusal_names_the_field(data: str, field: str) -> None:
    refusal = refused(data)
    assert (refusal.code, refusal.field) == ("bad_message", field)


def test_a_room_of_another_form_is_a_refusal_of_its_own() -> None:
    refusal = refused('{"type":"join","room":"a b"}')
    assert (refusal.code, refusal.field) == ("bad_room", "room")


@pytest.mark.parametrize(
    ("table", "answer_to"),
    [
        ({"type": "join", "id": 7}, 7),
        ({"type": "shout", "id": "x"}, "x"),
        ({"type": "ping", "id": 1.5}, None),
        ({"type": "ping", "id": "x" * 65}, None),
        ([], None),
    ],
)
def test_a_refusal_carries_the_id_where_it_can_be_read(
    table: object, answer_to: int | str | None
) -> None:
    assert refused(msgspec.json.encode(table).decode()).id == answer_to
    assert refused(msgspec.msgpack.encode(table), "msgpack").id == answer_to


def test_a_lone_surrogate_is_refused() -> None:
    assert refused('"\ud800"').code == "bad_message"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_without_end_is_refused(opening: str) -> None:
    data = '{"type":"publish","room":"a","data":' + opening * 20_000
    assert refused(data).message == "nested too deeply"


def test_a_hostile_field_name_costs_no_time() -> None:
    data = '{"type":"ping","' + " - at `$" * 8000 + '\\n":1}'
    began = process_time()
    refusal = refused(data)
    assert process_time() - began < 0.5  # reading it naively takes seconds
    assert len(refusal.field) <= 64
    assert len(refusal.message) <= 200


@pytest.mark.parametrize("data", [{(1, 2): 3}, object(), "\ud800", msgspec.msgpack.Ext(5, b"")])
def test_data_without_a_json_form_is_refused(data: object) -> None:
    with pytest.raises(Refused) as refusal:
        _ = message(1, data).json

    assert (refusal.value.code, refusal.value.field) == ("bad_message", "data")


@pytest.mark.parametrize("data", [2**64, -(2**63) - 1, object(), "\ud800"])
def test_data_without_a_msgpack_form_is_refused(data: object) -> None:
    with pytest.raises(Refused) as refusal:
        _ = message(1, data).msgpack_frame

    assert (refusal.value.code, refusal.value.field) == ("bad_message", "data")


@given(st.sampled_from([1, 2, 8]), st.binary(max_size=300))
def test_a_packed_frame_is_read_by_another_parser(opcode: int, payload: bytes) -> None:
    (frame,) = parse(pack_frame(opcode, payload))
    assert (frame.opcode, frame.data, frame.fin) == (opcode, payload, True)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_every_form_of_the_length_is_read_by_another_parser(size: int) -> None:
    (frame,) = parse(pack_frame(2, b"x" * size))
    assert frame.data == b"x" * size


@given(st.lists(events, max_size=4))
def test_a_burst_is_its_frames_end_to_end(batch: list[AnyEvent]) -> None:
    burst = Burst([Frame(event) for event in batch])
    as_json, as_msgpack = parse(burst.json_frames), parse(burst.msgpack_frames)
    assert [from_json.decode(frame.data) for frame in as_json] == batch
    assert [from_msgpack.decode(frame.data) for frame in as_msgpack] == batch
    assert {frame.opcode for frame in as_json} <= {1}
    assert {frame.opcode for frame in as_msgpack} <= {2}


def test_a_frame_knows_its_place_and_its_segment() -> None:
    final = transcript("s", True, offset=4, epoch="e")
    assert (final.offset, final.epoch, final.segment, final.partial) == (4, "e", "s", False)
    partial = transcript("s", False)
    assert (partial.offset, partial.epoch, partial.segment, partial.partial) == (0, "", "s", True)
    plain = message(7)
    assert (plain.offset, plain.epoch, plain.segment, plain.partial) == (7, "e", None, False)
    joined = Frame(Joined(room="a", epoch="e", offset=9))
    assert (joined.offset, joined.segment) == (0, None)


def test_a_burst_leaves_out_what_a_listener_has() -> None:
    partial = transcript("s", False)
    burst = Burst([message(3), partial, message(4), message(5)])
    assert burst.first_offset == 3
    assert [frame.offset for frame in burst.after("e", 4).frames] == [0, 5]
    assert [frame.offset for frame in burst.after("another", 4).frames] == [3, 0, 4, 5]


def test_a_burst_leaves_out_partials() -> None:
    burst = Burst([transcript("s", False), transcript("s", True, offset=1, epoch="e")])
    assert burst.has_partials
    assert [frame.partial for frame in burst.without_partials.frames] == [False]
    assert not burst.without_partials.has_partials
    assert Burst([transcript("s", False)]).first_offset == 0


@given(st.binary(max_size=2000), st.sampled_from([0x1, 0x2]))
def test_a_deflated_frame_inflates_to_what_it_was_and_is_never_longer(
    payload: bytes, opcode: int
) -> None:
    frame = deflate_frame(opcode, payload)
    plain = pack_frame(opcode, payload)
    assert len(frame) <= len(plain)
    if frame[0] & 0x40:
        head = 2 if frame[1] < 126 else 4
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        assert inflater.decompress(frame[head:] + b"\x00\x00\xff\xff") == payload
    else:
        assert frame == plain


def test_what_repeats_itself_is_deflated_once_and_shared() -> None:
    frame = message(1, "again and " * 20)
    burst, other = Burst([frame, message(2, "x")]), Burst([frame])
    assert frame.deflated_json_frame[0] == 0xC1
    assert frame.deflated_msgpack_frame[0] == 0xC2
    assert burst.deflated_json_frames.startswith(frame.deflated_json_frame)
    assert burst.deflated_msgpack_frames.startswith(frame.deflated_msgpack_frame)
    assert other.deflated_json_frames == frame.deflated_json_frame
    assert frame.deflated_json_frame is frame.deflated_json_frame
    short = message(0, None)
    assert deflate_frame(0x1, b"{}") == pack_frame(0x1, b"{}")
    assert len(short.deflated_json_frame) <= len(short.json_frame)
