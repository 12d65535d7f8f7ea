"""What a speech session is about, and what it needs of the node and of its connection."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

import msgspec

from actors.commands import Start
from actors.errors import Close, Refused, UpstreamLost
from actors.intake import Tallies
from actors.limits import Limits
from actors.log import Position
from actors.messages import AnyEvent, AudioSpec, Recognition, Speaker, SpeechState, Transcript
from actors.ports import Clock, Observer


def stem_of(session: str) -> str:
    """Name a session for all to hear: whoever knows its own name may resume it."""
    return urlsafe_b64encode(sha256(session.encode()).digest()[:9]).decode()


class Subject(msgspec.Struct, frozen=True):
    """What a session is about: whose audio it is, and to which room its words go."""

    session: str
    key: str
    """The room within the node: tenant and name."""
    room: str
    speaker: Speaker
    audio: AudioSpec
    """As it is sent."""
    transcripts: bool = False
    """Whether the speaker is told them."""
    owner: str = ""
    """The subject of the token that it was started with; nobody else may resume it."""

    @property
    def tenant(self) -> str:
        """Whose room it is."""
        return self.key.partition("/")[0]

    def check_resume(self, command: Start) -> None:
        """Raise Refused("bad_message") if a command that resumes says what cannot be."""
        usual, audio = AudioSpec(), self.audio
        said = {
            "encoding": (command.encoding, usual.encoding, audio.encoding),
            "rate": (command.rate or 0, 0, audio.rate),
            "channels": (command.channels, usual.channels, audio.channels),
        }
        for field, (wanted, default, true) in said.items():
            if wanted not in (default, true):
                message = f"the session to resume has the {field} {true}; leave it out"
                raise Refused("bad_message", message, field)


class Outlet(Protocol):
    """What a session needs of the node."""

    clock: Clock
    limits: Limits
    limits_of: Callable[[str], Limits]
    """Says by which limits the sessions of a tenant go."""
    observer: Observer
    audio: Tallies

    async def publish_final(self, key: str, event: Transcript) -> Position:
        """Store and deliver a final; return its place in the room's history."""

    async def publish_partial(self, key: str, event: Transcript) -> None:
        """Deliver a partial."""

    def flush(self) -> None:
        """Deliver at once what waits for the end of the tick."""


class Holder(Protocol):
    """The connection that a session belongs to."""

    def tell(self, event: AnyEvent) -> None:
        """Send an event to this connection alone."""

    def close(self, close: Close) -> None:
        """End the connection."""

    def replaced(self) -> None:
        """Another connection has resumed the session; let go of it."""

    def over(self, error: Exception | None) -> None:
        """The session is over, in good order or not."""


class Owner(Protocol):
    """What a line tells the session that it belongs to."""

    async def recognized(self, heard: Recognition) -> None:
        """Something was recognized."""

    def answered(self) -> None:
        """A flush was answered."""

    def hole(self, first: int, after: int, sent: bool) -> None:
        """Audio will not be recognized: the bytes from `first` to before `after`.

        They count the audio that was `sent` to an engine, or all audio of the session.
        """

    def unserved(self, failure: Refused | UpstreamLost) -> None:
        """An engine has not taken the stream of a session that has not begun."""

    def stands(self, state: SpeechState, message: str = "") -> None:
        """The state of the line has changed."""

    def finishing(self) -> None:
        """All audio has been sent."""
