"""Every message that travels: commands in, events out, audio and recognitions between.

Inbound messages refuse unknown fields, so that a typing error is heard; outbound ones may grow,
and clients must ignore fields that they do not know.
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


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, forbid_unknown_fields=True):
    """What a client asks of its connection."""

    id: CommandId | None = None
    """Comes back in the answer; without it only errors are answered."""


class Join(Command, frozen=True, kw_only=True):
    """Listen to a room; answered by `joined`, then by what was missed."""

    room: RoomName
    since: Annotated[str, Meta(max_length=128)] | None = None
    """`EPOCH:OFFSET` of the last event seen: replay everything after it, or say `gap`."""
    history: Annotated[int, Meta(ge=0)] = 0
    """Newest events to replay when `since` is absent."""
    partials: bool = True
    """Whether partial transcripts are wanted too."""


class Leave(Command, frozen=True, kw_only=True):
    """Stop listening to a room."""

    room: RoomName


class Start(Command, frozen=True, kw_only=True):
    """Begin a speech session in a room: from here on binary frames are its audio."""

    room: RoomName
    encoding: Label = "pcm_s16le"
    rate: int | None = None
    """Samples a second and channel, in hertz: 16000, or 8000 for `mulaw` and `alaw`."""
    channels: int = 1
    language: Label = "en"
    engine: Annotated[str, Meta(max_length=512)] = ""
    """Name of a configured engine, or its address; empty for the node's own choice."""
    name: Label = ""
    """Name of the speaker, shown to listeners."""
    transcripts: bool = False
    """Whether this connection is told what it said, without joining the room."""
    resume: Label = ""
    """A session of a connection that was lost: it goes on with the byte that the server names."""


class Stop(Command, frozen=True, kw_only=True):
    """End the speech session: acknowledged when the last final has been published."""


class Flush(Command, frozen=True, kw_only=True):
    """Ask for the final of what was said so far: acknowledged when it has been published."""


class Publish(Command, frozen=True, kw_only=True):
    """Send any value to the listeners of a room."""

    room: RoomName
    data: Any


class Refresh(Command, frozen=True, kw_only=True):
    """Replace the token that this connection was opened with."""

    token: Annotated[str, Meta(max_length=8192)]


class Ping(Command, frozen=True, kw_only=True):
    """Ask for an `ack`."""


AnyCommand = Join | Leave | Start | Stop | Flush | Publish | Refresh | Ping


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
AnyEvent = Hello | Joined | Transcript | Message | Gap | Speech | Ack | Error | Closing
