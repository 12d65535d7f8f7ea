"""What a front's translator is: messages of its clients in, steps out; our events in, words out.

Translators are pure: they do no I/O and never wait. The actor of the front carries out the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Protocol

import msgspec

from actors.commands import AnyCommand, Start
from actors.errors import Close, Refused
from actors.messages import AnyEvent
from actors.wire import Frame

REASON_BYTES = 123
"""Longest reason that fits a close frame (RFC 6455, section 5.5)."""
_json = msgspec.json.Encoder()


class Say(Frame):
    """One message in the vendor's words; in the mailbox it counts and conflates like an event."""

    def __init__(self, document: Any, segment: str | None = None, partial: bool = False) -> None:
        """Encode a document; name the segment that a newer partial may replace."""
        self.json = _json.encode(document)
        self.offset, self.epoch = 0, ""
        self.segment, self.partial = segment, partial


class Touch(Enum):
    """A step of its own kind: the client is alive, though it sends no audio."""

    ALIVE = auto()


class Drained(msgspec.Struct, frozen=True):
    """Wait until the engine has taken all audio, then say what `reply` returns."""

    reply: Callable[[], Iterable[Say]]


Step = AnyCommand | bytes | Say | Close | Refused | Touch | Drained
"""What is to be done: a command, audio, words, an ending, a complaint, or one of the two above."""


class Translator(Protocol):
    """One connection's interpreter."""

    direct: bool
    """Whether audio of a running session may go past `hear`."""
    counts: bool
    """Whether `heard` is to be told of such audio."""

    @property
    def first(self) -> Start | None:
        """The command to begin the connection with, if it can begin already."""

    @property
    def busy(self) -> bool:
        """Whether something must be answered before another message is read."""

    def read(self, text: str) -> Iterable[Step]:
        """Return what a text message asks for. Raises nothing."""

    def hear(self, data: bytes) -> Iterable[Step]:
        """Return what a binary message asks for: as a rule, to pass it on. Raises nothing."""

    def heard(self, data: bytes) -> None:
        """Note audio that was passed on without asking."""

    def tell(self, event: AnyEvent) -> Iterable[Say]:
        """Say an event in the vendor's words, or nothing."""

    def end(self, close: Close) -> Close:
        """Return an ending in the vendor's codes."""


def fit(reason: str) -> str:
    """Cut a reason to what a close frame holds."""
    return reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")


def public(code: int) -> int:
    """Return a close code that means to other protocols what it means here: not one of our own."""
    return code if code < 4000 else 1008


def read_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text holds, or None if it holds none."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        return None

    return found if isinstance(found, dict) else None
