"""Ogg (RFC 3533) with Opus (RFC 7845), pushed page by page.

Its one rule: a page counts if its checksum does. So a page that was cut, or put together from two
halves, is never heard, and the stream goes on at the next whole one.
"""

from __future__ import annotations

import zlib
from collections import deque

from server.decoding.demux import (
    ELEMENT_BYTES,
    Demuxer,
    Item,
    Malformed,
    Packet,
    opus_samples,
    opus_track,
)

HEAD = 27
CONTINUED, BEGINS, ENDS = 1, 2, 4
MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Ogg(Demuxer):
    """The Opus stream in Ogg; streams beside it are passed over, one that comes after goes on."""

    name = "Ogg"
    magic = b"OggS"

    def __init__(self) -> None:
        super().__init__()
        self._found: deque[Item] = deque()
        self._serial = b""
        self._partial = bytearray()
        self._whole = True
        """Whether the packet at hand is kept from its beginning."""
        self._granule = -1
        """Samples at the end of the page before; -1 while that is not known."""

    def anew(self, data: bytes) -> bool:
        """Return whether a piece is the beginning of a new stream."""
        return data.startswith(self.magic) and len(data) > 5 and bool(data[5] & BEGINS)

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed. Raises Malformed."""
        while not self._found:
            at = self._data.find(self.magic, self._at)
            if at != self._at:
                end = at if at >= 0 else max(len(self._data) - 3, self._at)
                self._miss(end - self._at)
                if at < 0:
                    return None

            size = self._page_bytes()
            if size is None or size > self.pending:
                if not self._ended or not self.pending:
                    return None

                self._miss(1)
            elif self._data[self._at + 4] or not intact(self._data[self._at : self._at + size]):
                # Counted whole: heads may overlap, and each costs a checksum of its page
                self._miss(1)
                self._lost += size
            else:
                self._lost = 0
                self._page(self._take(size))

        return self._found.popleft()

    def _page_bytes(self) -> int | None:
        """Return the size of the page at hand; None until its table is there."""
        at = self._at
        if self.pending < HEAD or self.pending < HEAD + self._data[at + 26]:
            return None

        segments = self._data[at + 26]
        return HEAD + segments + sum(self._data[at + HEAD : at + HEAD + segments])

    def _page(self, page: bytes) -> None:
        """Read one intact page. Raises Malformed."""
        flags, serial = page[5], page[14:18]
        at = HEAD + page[26]
        if flags & BEGINS and page[at : at + 8] == b"OpusHead":
            self._found.append(opus_track(page[at : at + 19]))
            self._serial, self._granule = serial, 0
            self._partial.clear()
            return

        if not self._serial and not flags & BEGINS:
            raise Malformed("Ogg holds no Opus")

        if serial == self._serial:
            packets = self._packets(page, at, bool(flags & CONTINUED))
            granule = int.from_bytes(page[6:14], "little", signed=True)
            self._keep(packets, granule, ends=bool(flags & ENDS))

    def _packets(self, page: bytes, at: int, continued: bool) -> list[bytes]:
        """Return the packets that end in this page."""
        found = []
        if not continued:
            self._partial.clear()
            self._whole = True
        elif not self._partial:
            self._whole = False  # its beginning was lost

        for segment in page[HEAD : HEAD + page[26]]:
            self._whole = self._whole and len(self._partial) < ELEMENT_BYTES
            if self._whole:
                self._partial += page[at : at + segment]

            at += segment
            if segment < 255:
                if self._whole and not self._partial.startswith(b"OpusTags"):
                    found.append(bytes(self._partial))

                self._partial.clear()
                self._whole = True

        return found

    def _keep(self, packets: list[bytes], granule: int, *, ends: bool) -> None:
        """Keep packets; of a stream's last page only as much as its position says."""
        held = sum(map(opus_samples, packets))
        trim = 0
        if ends and self._granule >= 0 and granule >= 0:
            trim = min(max(self._granule + held - granule, 0), held)

        for number, packet in enumerate(packets):
            rest = held - sum(map(opus_samples, packets[: number + 1]))
            own = opus_samples(packet)
            if trim - rest < own or not own:
                self._found.append(Packet(packet, max(trim - rest, 0)))

        if granule >= 0:
            self._granule = granule


def intact(page: bytes | bytearray) -> bool:
    """Return whether the checksum of a page is right.

    It is that of zlib with all bits the other way round, which no one else computes as fast.
    """
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(MIRROR)
    found = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(MIRROR) == page[22:26]
