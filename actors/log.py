"""A room's history: contiguous offsets within an epoch, a bounded ring, and an honest `since`.

An epoch names one unbroken numbering. Whoever asks for what came after a position gets all of it
or the verdict "gap", never a part.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Literal

import msgspec

from actors.errors import Refused
from actors.limits import History
from actors.wire import Frame, KeptFrame

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,15})")


class Position(msgspec.Struct, frozen=True):
    """A place in a room: `offset` events have happened in `epoch`."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        """Write it as `EPOCH:OFFSET`, the form of `since`."""
        return f"{self.epoch}:{self.offset}"


class Repeated(Position, frozen=True):
    """The place that a publish got when it was made first; this time nothing was published."""


class Missing(msgspec.Struct, frozen=True):
    """Offsets that cannot be replayed, and why."""

    first: int
    last: int
    reason: Literal["epoch_changed", "expired", "too_far", "ahead"]


class Recovery(msgspec.Struct, frozen=True):
    """The answer to a resume: everything up to `top`, or what is missing."""

    top: Position
    """Newest position of the room."""
    frames: Sequence[Frame] = ()
    """Events to replay, oldest first; empty when something is missing."""
    missing: Missing | None = None


def parse_position(text: str) -> Position:
    """Read `EPOCH:OFFSET`. Raises Refused("bad_since")."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise Refused(
            "bad_since", "since must look like EPOCH:OFFSET, as in a received event", "since"
        )

    return Position(found[1], int(found[2]))


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One event as a history keeps it: encoded, for the object itself takes many times as much."""

    at: float
    """Monotonic seconds at which it came."""
    json: bytes
    msgpack: bytes
    segment: str | None
    """That of a final."""

    @property
    def size(self) -> int:
        """Bytes kept."""
        return len(self.json) + len(self.msgpack)


class Remembered(msgspec.Struct, frozen=True):
    """What a tenant's rooms remember."""

    rooms: int
    """Rooms with a listener or a history."""
    events: int
    bytes: int
    """Of encoded events."""


class Stock:
    """What is kept in all rooms together."""

    __slots__ = ("bytes", "events", "evicted", "rooms")

    def __init__(self) -> None:
        self.rooms = self.events = 0
        self.bytes = 0
        """Of encoded events."""
        self.evicted = 0
        """Events that were let go before their time, ever."""


class RoomLog:
    """The newest events of one room, within a count, a size and an age."""

    __slots__ = ("_entries", "bytes", "epoch", "limits", "offset")

    def __init__(self, epoch: str, limits: History) -> None:
        self.epoch, self.limits = epoch, limits
        self.offset = 0
        """Offset of the newest event; 0 before the first."""
        self.bytes = 0
        """Bytes of encoded events that the ring holds."""
        self._entries: deque[Kept] = deque()

    def __len__(self) -> int:
        """Events held."""
        return len(self._entries)

    @property
    def top(self) -> Position:
        """Position of the newest event."""
        return Position(self.epoch, self.offset)

    def append(self, frame: Frame, now: float) -> None:
        """Keep a frame whose event carries the next offset; let go of what is over a bound."""
        if frame.offset != self.offset + 1:
            raise ValueError(f"offset {frame.offset} does not follow {self.offset}")

        self.offset = frame.offset
        kept = Kept(now, frame.json, frame.msgpack, frame.segment)
        self._entries.append(kept)
        self.bytes += kept.size
        while len(self._entries) > self.limits.messages or self.bytes > self.limits.bytes:
            self._forget()

        self.expire(now)

    def expire(self, now: float) -> None:
        """Let go of what is older than the limit at monotonic time `now`."""
        while self._entries and now - self._entries[0].at > self.limits.age:
            self._forget()

    def shrink(self, count: int) -> None:
        """Let go of so many of the oldest events."""
        for _ in range(min(count, len(self._entries))):
            self._forget()

    def newest(self, count: int) -> Recovery:
        """Return up to `count` of the newest events, within the bytes that one resume may take."""
        entries: list[Kept] = []
        size = 0
        for kept in islice(reversed(self._entries), count):
            size += len(kept.json)
            if size > self.limits.replay_bytes:
                break

            entries.append(kept)

        return self._recover(entries[::-1])

    def since(self, position: Position) -> Recovery:
        """Return everything after `position`, or what is missing; never a part."""
        missed = self.offset - position.offset
        oldest = self.offset - len(self._entries) + 1
        if position.epoch != self.epoch:
            return self._gap(1, self.offset, "epoch_changed")

        if missed < 0:
            return self._gap(self.offset + 1, position.offset, "ahead")

        if position.offset + 1 < oldest:
            return self._gap(position.offset + 1, self.offset, "expired")

        if missed > self.limits.replay:
            return self._gap(position.offset + 1, self.offset, "too_far")

        held = len(self._entries)
        entries = list(islice(self._entries, held - missed, held))
        if sum(len(kept.json) for kept in entries) > self.limits.replay_bytes:
            return self._gap(position.offset + 1, self.offset, "too_far")

        return self._recover(entries)

    def _recover(self, newest: Sequence[Kept]) -> Recovery:
        """Return the newest entries as frames."""
        first = self.offset - len(newest) + 1
        frames = [
            KeptFrame(kept.json, kept.msgpack, self.epoch, offset, kept.segment)
            for offset, kept in enumerate(newest, first)
        ]
        return Recovery(self.top, frames)

    def _gap(
        self, first: int, last: int, reason: Literal["epoch_changed", "expired", "too_far", "ahead"]
    ) -> Recovery:
        return Recovery(self.top, missing=Missing(first, last, reason))

    def _forget(self) -> None:
        self.bytes -= self._entries.popleft().size
