"""WebSocket frames as a load client needs them, and the ledger that finds what went wrong.

Pure: bytes in, offsets out.
"""

from __future__ import annotations

from collections import Counter

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LARGEST = 1 << 22
"""Bytes of a frame that no server has reason to send."""
STAMP_DIGITS = 19
"""Digits of a time in nanoseconds, at the beginning of a published value."""
_TAG = len(b'{"type":"')
_DATA, _OFFSET = b'"data":"', b'"offset":'
EVENTS = (b"messa", b"trans")
"""How the types of a room's events begin."""


def pack(opcode: int, payload: bytes) -> bytes:
    """Build one client frame. The mask is zero: a server unmasks it like any other."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        raise ValueError(f"a load client sends no frame of {size} bytes")

    return head + bytes(4) + payload


class Chunk:
    """The whole frames at the beginning of some bytes."""

    __slots__ = ("data", "offsets", "others", "run", "size", "stamps")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = 0
        """Bytes of the whole frames; what follows them is the beginning of another."""
        self.offsets: list[int] = []
        """Offsets of the room's events in their order; 0 for a partial, which has none."""
        self.stamps: list[int] = []
        """Nanoseconds at which the messages among them were published."""
        self.others: list[tuple[int, bytes]] = []
        """Opcode and payload of every other frame."""
        self.run = False
        """Whether the offsets are one unbroken run."""


def parse(data: bytes, events: tuple[bytes, ...] = EVENTS) -> Chunk:
    """Read the frames of a server; of these events only what has to be counted."""
    chunk = Chunk(data)
    start, total = 0, len(data)
    while start + 2 <= total:
        size, begin = data[start + 1], start + 2
        if size == 126:
            begin += 2
            size = int.from_bytes(data[start + 2 : begin], "big")
        elif size == 127:
            begin += 8
            size = int.from_bytes(data[start + 2 : begin], "big")

        end = begin + size
        if end > total:
            break

        if data[start] & 15 == TEXT and data[begin + _TAG : begin + _TAG + 5] in events:
            _count(chunk, begin, end)
        else:
            chunk.others.append((data[start] & 15, data[begin:end]))

        start = end

    chunk.size = start
    first = chunk.offsets[0] if chunk.offsets else 0
    chunk.run = first > 0 and chunk.offsets == list(range(first, first + len(chunk.offsets)))
    return chunk


def _count(chunk: Chunk, begin: int, end: int) -> None:
    data = chunk.data
    found = data.rfind(_OFFSET, begin, end)
    if found < 0:
        chunk.offsets.append(0)
        return

    begins = found + len(_OFFSET)
    chunk.offsets.append(int(data[begins : data.index(b",", begins, end)]))
    stamp = data.find(_DATA, begin, end)
    if stamp >= 0:
        stamp += len(_DATA)
        chunk.stamps.append(int(data[stamp : stamp + STAMP_DIGITS]))


class Ledger:
    """The offsets that one listener has seen: which are lost, came late, or came twice."""

    __slots__ = ("_missing", "following", "late", "twice")

    def __init__(self, following: int) -> None:
        self.following = following
        """The offset that should come next."""
        self._missing: set[int] = set()
        self.late = self.twice = 0

    def note(self, chunk: Chunk) -> None:
        """Look at the offsets of a chunk."""
        if chunk.run and chunk.offsets[0] == self.following:
            self.following += len(chunk.offsets)
            return

        for offset in chunk.offsets:
            if offset:
                self.see(offset)

    def lost(self, last: int = 0) -> int:
        """Count the offsets that never came: those left out, and those up to the `last` one."""
        return len(self._missing) + max(0, last + 1 - self.following)

    def audit(self, found: Counter[str], last: int = 0) -> None:
        """Add what is wrong to what was found so far."""
        found["lost"] += self.lost(last)
        found["out of order"] += self.late
        found["delivered twice"] += self.twice

    def see(self, offset: int) -> None:
        """Look at one offset."""
        if offset == self.following:
            self.following += 1
        elif offset > self.following:
            self._missing.update(range(self.following, offset))
            self.following = offset + 1
        elif offset in self._missing:
            self._missing.discard(offset)
            self.late += 1
        else:
            self.twice += 1
