"""The commands: what clients ask of their connections.

They refuse unknown fields, so that a typing error is heard.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.messages import CommandId, Label, RoomName


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
    presence: bool = False
    """Whether to be told who is in the room, and who comes and goes."""


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
