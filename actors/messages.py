"""Every message that travels but commands: events out, audio and recognitions between.

Events may grow, and clients must ignore fields that they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

ROOM_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$(?!\n)"
ROOM_RULE = "a room's name is 1 to 128 of the characters A-Z a-z 0-9 _ . : -"

RoomName = Annotated[str, Meta(pattern=ROOM_PATTERN)]
CommandId = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=64)]
Label = Annotated[str, Meta(max_length=64)]


class AudioFrame(msgspec.Struct, frozen=True, gc=False):
    """One binary frame of a speaker, as it came."""

    position: int
    """Byte of the session's audio at which this frame begins."""
    data: bytes
    """Encoded audio; need not end on a sample's boundary."""


class Word(msgspec.Struct, frozen=True, gc=False):
    """One recognized word."""

    text: str
    start: float
    """Seconds from the start of the session's audio."""
    end: float
    confidence: float
    """0 to 1; 1 where the engine does not say."""


class Recognition(msgspec.Struct, frozen=True):
    """What an engine makes of a stretch of audio."""

    segment: int
    """Counts the utterances of the session from 0; its partials and its final share it."""
    revision: int
    """Counts the versions of a segment from 0."""
    final: bool
    text: str
    start: float
    """Seconds from the start of the session's audio."""
    end: float
    words: tuple[Word, ...] = ()
    flushed: bool = False
    """Whether a flush is answered with it; the text may be empty then."""


class AudioSpec(msgspec.Struct, frozen=True):
    """How the audio of a session is encoded, and what is wanted of its recognition."""

    encoding: str = "pcm_s16le"
    rate: int = 16000
    """Hertz."""
    channels: int = 1
    language: str = "en"

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second of 16-bit PCM at this rate."""
        return self.rate * self.channels * 2


class Speaker(msgspec.Struct, frozen=True):
    """Who said it."""

    id: str
    name: str


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    """What a connection is told; a field that does not apply is absent."""


class Hello(Event, frozen=True, kw_only=True):
    """First event of every connection."""

    connection: str
    protocol: str = "roomcast.v1"
    at: float
    """Unix time in seconds."""
    expires: float | UnsetType = UNSET
    """Unix time at which the token expires; absent where it never does."""


class Joined(Event, frozen=True, kw_only=True):
    """The room is joined; events after `offset` follow, missed ones first."""

    id: CommandId | UnsetType = UNSET
    room: str
    epoch: str
    offset: int
    """Newest offset of the room at the join; replayed events end here."""
    recovered: bool | UnsetType = UNSET
    """Present when `since` was asked: whether everything missed is replayed."""


class Transcript(Event, frozen=True, kw_only=True):
    """What a speaker said: partials of a segment replace each other, its final ends it."""

    room: str
    segment: str
    revision: int
    final: bool
    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    speaker: Speaker
    language: str
    at: float
    """Unix time in seconds at which it was recognized."""
    offset: int | UnsetType = UNSET
    """Position in the room's history; finals only."""
    epoch: str | UnsetType = UNSET


class Message(Event, frozen=True, kw_only=True):
    """A value that somebody published to a room."""

    room: str
    data: Any
    sender: str
    at: float
    offset: int | UnsetType = UNSET
    epoch: str | UnsetType = UNSET


class Person(msgspec.Struct, frozen=True, gc=False):
    """Somebody in a room, with one connection or more."""

    id: str
    """Subject of the token, or else the id of the connection; also in `speaker` of transcripts."""
    name: str


class Presence(Event, frozen=True, kw_only=True):
    """Who is in a room: everybody when it is joined, then changes, at most once a second.

    What is told twice means the same as once.
    """

    room: str
    kind: Literal["snapshot", "delta", "count"]
    """`snapshot`: `joined` is everybody, whatever was told before. `delta`: what has changed.
    `count`: there are more than `limits.presence`, and only their number is told."""
    members: int
    """People in the room."""
    joined: tuple[Person, ...] = ()
    left: tuple[Person, ...] = ()


class Gap(Event, frozen=True, kw_only=True):
    """Something is missing, and exactly what: offsets of a room, or bytes of a session's audio."""

    room: str
    first: int = msgspec.field(name="from")
    """First missing offset, or first missing byte when `session` is present."""
    last: int = msgspec.field(name="to")
    """Last missing offset or byte; `from - 1` when nobody can tell what was lost."""
    reason: Literal["epoch_changed", "expired", "too_far", "ahead", "upstream_full", "replay_full"]
    epoch: str | UnsetType = UNSET
    session: str | UnsetType = UNSET


SpeechState = Literal["waiting", "connecting", "ready", "lost", "recovered", "resumed", "ended"]


class Speech(Event, frozen=True, kw_only=True):
    """The state of this connection's speech session."""

    room: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    state: SpeechState
    """`waiting`: audio came before `start` and is held, within `limits.ingress`. `lost`: the engine
    is dialled again and gets what it may have missed, then `recovered` comes. `resumed`: the
    session of a lost connection goes on here, with the byte after `received`."""
    engine: str | UnsetType = UNSET
    received: int = 0
    """Bytes of audio the server has, as they were sent."""
    lag: float = 0.0
    """Seconds of audio that the engine is behind."""
    message: str | UnsetType = UNSET
    """Why the engine was lost."""


class Ack(Event, frozen=True, kw_only=True):
    """A command has been carried out."""

    id: CommandId
    at: float
    room: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    epoch: str | UnsetType = UNSET


class Error(Event, frozen=True, kw_only=True):
    """A command has been refused, or a room is not covered any more; the connection lives."""

    id: CommandId | UnsetType = UNSET
    code: str
    """A key of errors.REPLIES."""
    message: str
    """One sentence for people."""
    field: str | UnsetType = UNSET
    """Path of the offending field."""
    setting: str | UnsetType = UNSET
    """The setting that raises the limit."""
    retry_after: float | UnsetType = UNSET
    """Seconds after which the same may be allowed."""
    room: str | UnsetType = UNSET
    """The room that was left, or in which the speech ended: it is not covered any more. With
    `quota_exceeded` the room whose speaker is read no further for a while."""


class Closing(Event, frozen=True, kw_only=True):
    """Last event before the close frame."""

    code: int
    reason: str
    retry: bool
    message: str = ""
    reconnect_ms: int = 0
    """Wait a random time up to this many milliseconds before coming back."""
    retry_after: float | UnsetType = UNSET
    """Seconds to wait before that."""


RoomEvent = Transcript | Message
AnyEvent = Hello | Joined | Transcript | Message | Presence | Gap | Speech | Ack | Error | Closing
