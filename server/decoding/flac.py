"""FLAC (RFC 9639), pushed frame by frame.

Its one rule: a frame ends where the next one's head, whose checksum is right, begins. So a frame is
heard when the next has begun; what was put together from two halves is left to the decoder, which
finds its checksum wrong.
"""

from __future__ import annotations

import re

from server.decoding.demux import Demuxer, Item, Malformed, Packet, Track

FRAME_BYTES = 524_288
"""Bytes of the largest frame: 65535 samples of two channels with 32 bits."""
SYNC = re.compile(rb"\xff[\xf8\xf9]")
HEAD_BYTES = 16
"""Of the longest head of a frame."""
INFO_BYTES = 34


def _table() -> bytes:
    """Compute the checksum of every byte: the polynomial is x^8 + x^2 + x + 1."""
    table = bytearray()
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value << 1 ^ (7 if value & 128 else 0)) & 255

        table.append(value)

    return bytes(table)


CRC8 = _table()


class Flac(Demuxer):
    """A FLAC stream; pictures and comments are passed over."""

    name = "FLAC"
    magic = b"fLaC"

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget the stream before: a new one begins."""
        self._fresh = self._in_head = True
        self._known = False
        self._number = -1
        """Of the frame at hand, or of the sample that it begins with; -1 before the first."""
        self._seen = 0
        """Bytes of the frame at hand in which no next one begins."""

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed. Raises Malformed."""
        if self._fresh:
            self._take(len(self.magic))
            self._fresh = False

        while self._in_head:
            if self.pending < 4 + INFO_BYTES and not (self._ended and self.pending >= 4):
                return None

            track = self._metadata()
            if track is not None:
                return track

            if not self._skipped() or self._idles():
                return None

        if not self._known:
            raise Malformed("FLAC has no header that can be read")

        return self._frame()

    def _metadata(self) -> Track | None:
        """Read a block of metadata; a track if it says what the stream is. Raises Malformed."""
        kind = self._data[self._at]
        size = int.from_bytes(self._data[self._at + 1 : self._at + 4])
        self._take(4)
        self._in_head = kind < 128
        if kind & 127:
            self._pass_over(size)
            return None

        info = self._take(INFO_BYTES)
        if size != INFO_BYTES or len(info) != INFO_BYTES:
            raise Malformed("FLAC has no header that can be read")

        rate, channels = int.from_bytes(info[10:13]) >> 4, (info[12] >> 1 & 7) + 1
        if not 8000 <= rate <= 192_000 or channels > 2:
            raise Malformed(f"FLAC of {rate} Hz and {channels} channels is not taken")

        self._known = True
        return Track("flac", rate, channels, info)

    def _frame(self) -> Packet | None:
        """Return the frame at hand once the next has begun. Raises Malformed."""
        data, at = self._data, self._at
        for hit in SYNC.finditer(data, at + self._seen):
            begins = hit.start()
            if begins + HEAD_BYTES > len(data) and not self._ended:
                self._seen = begins - at
                break

            number = frame_number(data[begins : begins + HEAD_BYTES])
            if number <= self._number:
                continue

            sound, self._number, self._seen = self._number >= 0, number, 2
            if sound:
                return Packet(self._take(begins - at))

            self._miss(begins - at)
            self._lost, at = 0, begins

        else:
            self._seen = max(len(data) - 1 - self._at, 0)

        if self._ended and self.pending and self._number >= 0:
            return Packet(self._take(self.pending))

        if self.pending > FRAME_BYTES:
            raise Malformed(f"FLAC has a frame of over {FRAME_BYTES} bytes")

        return None


def frame_number(head: bytes | bytearray) -> int:
    """Return the number in the head of a frame; -1 if it is no head of a frame."""
    if len(head) < 6 or head[2] < 16 or head[2] & 15 == 15 or head[3] > 175 or head[3] & 1:
        return -1

    first = head[4]
    width = max(8 - (first ^ 255).bit_length(), 1)
    number = first if first < 128 else first & (127 >> width)
    for byte in head[5 : 4 + width]:
        number = number << 6 | byte & 63

    block, rate = head[2] >> 4, head[2] & 15
    ends = 4 + width + {6: 1, 7: 2}.get(block, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    checksum = 0
    for byte in head[: ends + 1]:
        checksum = CRC8[checksum ^ byte]

    return -1 if checksum or ends >= len(head) else number
