"""Bytes to messages and back, without I/O; an event is encoded once and its bytes are shared.

JSON travels in text frames. Under MessagePack every binary frame is one value: a map is a command,
a `bin` is audio.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from actors.commands import AnyCommand
from actors.errors import Refused
from actors.made import made_once
from actors.messages import ROOM_RULE, AnyEvent, CommandId, Message, Transcript

Codec = Literal["json", "msgpack"]
Form = Literal["json_frames", "msgpack_frames", "deflated_json_frames", "deflated_msgpack_frames"]
"""How a burst goes over a WebSocket: the name of a property of Burst."""
DEFLATE_FROM = 64
"""Bytes from which on a message may become smaller."""
SUBPROTOCOLS: dict[str, Codec] = {"roomcast.v1": "json", "roomcast.v1.msgpack": "msgpack"}


class _Addressed(msgspec.Struct, frozen=True):
    """Reads no more of a broken command than the id that its answer should carry."""

    id: CommandId | None = None


_to_json = msgspec.json.Encoder()
_to_msgpack = msgspec.msgpack.Encoder()
_from_json: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_from_msgpack: msgspec.msgpack.Decoder[AnyCommand | bytes] = msgspec.msgpack.Decoder(
    AnyCommand | bytes
)
_event_from_json: msgspec.json.Decoder[Transcript | Message] = msgspec.json.Decoder(
    Transcript | Message
)
_id_from_json = msgspec.json.Decoder(_Addressed)
_id_from_msgpack = msgspec.msgpack.Decoder(_Addressed)
_BINS = (b"\xc4", b"\xc5", b"\xc6")
"""How a `bin` of MessagePack begins."""
_PATH = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
_UNKNOWN = re.compile(r"Object (?:contains unknown|missing required) field `(?P<field>[^`]*)")
_TAIL = 200
"""Characters of an error that may hold a path; more is text of the client's own making."""


def holds_audio(data: str | bytes, codec: Codec) -> bool:
    """Say whether a message is audio, by its first byte: nothing is decoded for that."""
    return isinstance(data, bytes) and (codec == "json" or data[:1] in _BINS)


def decode(data: str | bytes, codec: Codec) -> AnyCommand | bytes:
    """Read one WebSocket message: a command, or bytes of audio. Raises Refused, nothing else."""
    try:
        if isinstance(data, str):
            return _from_json.decode(data)

        return data if codec == "json" else _from_msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise _explain(error, data) from None


def encode_json(event: AnyEvent) -> bytes:
    """Encode an event as JSON. Raises Refused("bad_message") if its data has no JSON form."""
    try:
        return _to_json.encode(event)
    except (TypeError, UnicodeError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise Refused("bad_message", f"data cannot be sent as JSON: {error}", "data") from None


def encode_msgpack(event: AnyEvent) -> bytes:
    """Encode an event as MessagePack. Raises Refused("bad_message") if its data has no such form.

    JSON can say more: numbers of MessagePack end at 64 bits.
    """
    try:
        return _to_msgpack.encode(event)
    except (TypeError, UnicodeError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        message = f"data cannot be sent as MessagePack: {error}"
        raise Refused("bad_message", message, "data") from None


def pack_frame(opcode: int, payload: bytes) -> bytes:
    """Build one unmasked, unfragmented WebSocket frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload

    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload

    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def deflate_frame(opcode: int, payload: bytes) -> bytes:
    """Build the frame of a deflated message without context takeover (RFC 7692, section 7.2.1).

    A message that does not become smaller stays as it is.
    """
    if len(payload) < DEFLATE_FROM:
        return pack_frame(opcode, payload)

    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    small = deflated.removesuffix(b"\x00\x00\xff\xff")
    return pack_frame(*((opcode | 0x40, small) if len(small) < len(payload) else (opcode, payload)))


class Frame:
    """One event with its encoded forms, each made at most once and shared by every listener."""

    def __init__(self, event: AnyEvent) -> None:
        self.event = event
        self.offset = 0
        """Position in the room, or 0 for an event outside its history."""
        self.epoch = ""
        """Numbering that the offset belongs to."""
        self.segment: str | None = None
        """Segment of a transcript: what a newer partial replaces and a final ends."""
        self.partial = False
        if isinstance(event, Transcript):
            self.segment, self.partial = event.segment, not event.final

        if isinstance(event, Transcript | Message) and isinstance(event.offset, int):
            self.offset, self.epoch = event.offset, str(event.epoch)

    @made_once
    def json(self) -> bytes:
        """The event as JSON; raises Refused if it has no such form."""
        return encode_json(self.event)

    @made_once
    def text(self) -> str:
        """The JSON as the str that an ASGI server wants."""
        return self.json.decode()

    @made_once
    def msgpack(self) -> bytes:
        """The event as MessagePack; raises Refused if it has no such form."""
        return encode_msgpack(self.event)

    @made_once
    def json_frame(self) -> bytes:
        """The JSON as a whole WebSocket text frame."""
        return pack_frame(0x1, self.json)

    @made_once
    def msgpack_frame(self) -> bytes:
        """The MessagePack as a whole WebSocket binary frame."""
        return pack_frame(0x2, self.msgpack)

    @made_once
    def deflated_json_frame(self) -> bytes:
        """The JSON deflated in a WebSocket text frame."""
        return deflate_frame(0x1, self.json)

    @made_once
    def deflated_msgpack_frame(self) -> bytes:
        """The MessagePack deflated in a WebSocket binary frame."""
        return deflate_frame(0x2, self.msgpack)

    def encoded(self, codec: Codec) -> bytes:
        """Return the payload in this encoding."""
        return self.json if codec == "json" else self.msgpack


class KeptFrame(Frame):
    """An event that was encoded before and is only to be sent again: a replay has many of them."""

    def __init__(
        self, json: bytes, msgpack: bytes, epoch: str, offset: int, segment: str | None
    ) -> None:
        self.json, self.msgpack = json, msgpack
        self.offset, self.epoch, self.segment = offset, epoch, segment
        self.partial = False

    @made_once
    def event(self) -> AnyEvent:
        """The event itself, of which nothing is needed to send it."""
        return _event_from_json.decode(self.json)


class Burst:
    """Frames of one room that leave together, joined once for each encoding."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames

    @made_once
    def json_frames(self) -> bytes:
        """All frames as WebSocket text frames, end to end."""
        frames = self.frames
        if len(frames) == 1:
            return frames[0].json_frame

        return b"".join([frame.json_frame for frame in frames])

    @made_once
    def msgpack_frames(self) -> bytes:
        """All frames as WebSocket binary frames, end to end."""
        return b"".join([frame.msgpack_frame for frame in self.frames])

    @made_once
    def deflated_json_frames(self) -> bytes:
        """All frames as deflated text frames, end to end."""
        return b"".join([frame.deflated_json_frame for frame in self.frames])

    @made_once
    def deflated_msgpack_frames(self) -> bytes:
        """All frames as deflated binary frames, end to end."""
        return b"".join([frame.deflated_msgpack_frame for frame in self.frames])

    @made_once
    def size(self) -> int:
        """Bytes of JSON of all frames, whatever encoding they leave in."""
        return sum(len(frame.json) for frame in self.frames)

    @made_once
    def has_partials(self) -> bool:
        """Whether any frame is a partial."""
        return any(frame.partial for frame in self.frames)

    @made_once
    def first_offset(self) -> int:
        """Smallest offset in the burst, or 0 when nothing in it has one."""
        return min((frame.offset for frame in self.frames if frame.offset), default=0)

    @made_once
    def without_partials(self) -> Burst:
        """The same burst for those who asked for finals only."""
        return Burst([frame for frame in self.frames if not frame.partial])

    def after(self, epoch: str, offset: int) -> Burst:
        """Leave out what a listener who has everything up to `offset` has already."""
        return Burst(
            [
                frame
                for frame in self.frames
                if not 0 < frame.offset <= offset or frame.epoch != epoch
            ]
        )


def _explain(error: Exception, data: str | bytes) -> Refused:
    if isinstance(error, RecursionError):
        return Refused("bad_message", "nested too deeply")

    message = str(error)
    found = _PATH.search(message[-_TAIL:]) or _UNKNOWN.match(message[:_TAIL])
    field = found["field"][:64] if found else ""
    if message.startswith("Expected `str` matching regex"):
        refusal = Refused("bad_room", ROOM_RULE, field)
    else:
        refusal = Refused("bad_message", message[:200], field)

    refusal.id = _read_id(data)
    return refusal


def _read_id(data: str | bytes) -> CommandId | None:
    decoder: Any = _id_from_json if isinstance(data, str) else _id_from_msgpack
    try:
        addressed: _Addressed = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        return None  # too broken to say whom to answer

    return addressed.id
