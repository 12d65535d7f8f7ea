"""WebM and Matroska (RFC 9559) as browsers record it: the Opus track's packets, pushed.

Its one rule: the tree is read flat. Segments and clusters are only entered, never left, so that a
live stream of unknown sizes is nothing special, and a stream that lost bytes goes on at the next
cluster or block that is followed by another element.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from server.decoding.demux import (
    ELEMENT_BYTES,
    SKIPPED_BYTES,
    Demuxer,
    Item,
    Malformed,
    Packet,
    Track,
    opus_track,
)
from server.decoding.ebml import Unsound, children, number
from server.decoding.lacing import unlace

EBML, SEGMENT, TRACKS, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
SIMPLE_BLOCK, GROUP, BLOCK, PADDING, TIME = 0xA3, 0xA0, 0xA1, 0x75A2, 0xE7
ENTRY, NUMBER, CODEC, PRIVATE, ENCODINGS = 0xAE, 0xD7, 0x86, 0x63A2, 0x6D80
LONG = (0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469, 0x75A1, 0x8E, 0xEC)
"""Seek head, info, cues, tags, chapters, attachments, additions, slices, void: passed over."""
SHORT = (TIME, 0xA7, 0xAB, 0xBF, 0x9B, 0xFB, 0xA4, 0xFA, PADDING)
"""Times, positions, checksums and the like: passed over, and never long."""
ENTERED = frozenset((SEGMENT, CLUSTER))
KNOWN = ENTERED | {*LONG, *SHORT, EBML, TRACKS, SIMPLE_BLOCK, GROUP, BLOCK}
BOUNDS = {SEGMENT: 2**56, CLUSTER: 2**56, **dict.fromkeys(SHORT, 64)}
"""Bytes of an element; SKIPPED_BYTES of any other."""
SOUND = re.compile(rb"\x1a\x45\xdf\xa3|\x1f\x43\xb6\x75|[\xa3\xa0]")
"""What may be a sound place: the beginning of a recording, of a cluster, of a block."""
AWAITED = 64
"""Places of a damaged stream that wait to be judged; more are taken for unsound."""


class Element(NamedTuple):
    """The head of an element: what it is, and where its body is."""

    id: int
    begins: int
    ends: int | None
    """None: unknown, for what is written live."""


class WebM(Demuxer):
    """The first Opus track of a recording."""

    name = "WebM"
    magic = b"\x1a\x45\xdf\xa3"

    def __init__(self) -> None:
        super().__init__()
        self._found: deque[Item] = deque()
        self._track = 0
        self._numbers: frozenset[int] = frozenset()
        self._searched = 0
        """Where the search of a damaged stream stands, counted as `_lost` is."""
        self._awaited: list[tuple[int, int]] = []
        """Places yet to be judged, counted so, and how far bytes must reach for it."""

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed. Raises Malformed."""
        while not self._found:
            try:
                if self._lost and not self._resume():
                    return None

                if not self._step():
                    return None
            except Unsound:
                if not self._numbers:
                    raise Malformed("WebM has no header that can be read") from None

                self._awaited.clear()
                self._searched = 0
                self._miss(1)

            if not self._found and self._idles():
                return None

        return self._found.popleft()

    def _step(self) -> bool:
        """Read one element; False until more is fed. Raises Unsound and Malformed."""
        element = self._head(self._at)
        if element is None:
            return False

        if element.id in ENTERED:
            self._take(element.begins - self._at)
            return True

        if element.ends is None:
            raise Unsound

        if element.id in (SIMPLE_BLOCK, BLOCK, GROUP):
            return self._block(element, element.ends)

        if element.id == TRACKS:
            return self._tracks(element.begins, element.ends)

        return self._pass_over(element.ends - self._at)

    def _head(self, at: int) -> Element | None:
        """Read the head of an element; None until more is fed. Raises Unsound."""
        data = self._data
        if at >= len(data):
            return None

        width = 9 - data[at].bit_length()
        if width > 4:
            raise Unsound

        if len(data) <= at + width:
            return None

        name = int.from_bytes(data[at : at + width], "big")
        if name not in KNOWN:
            raise Unsound

        size, begins = number(data, at + width)
        if not begins:
            return None

        if size is not None and size > BOUNDS.get(name, SKIPPED_BYTES):
            raise Unsound

        return Element(name, begins, None if size is None else begins + size)

    def _tracks(self, begins: int, ends: int) -> bool:
        """Read which tracks there are; False until more is fed. Raises Malformed."""
        if ends - begins > ELEMENT_BYTES:
            raise Malformed(f"the header of WebM is over {ELEMENT_BYTES} bytes")

        if ends > len(self._data):
            return False

        entries = [
            dict(children(entry))
            for name, entry in children(bytes(self._data[begins:ends]))
            if name == ENTRY
        ]
        self._take(ends - self._at)
        self._numbers = frozenset(int.from_bytes(each.get(NUMBER, b"")) for each in entries)
        for entry in entries:
            if entry.get(CODEC, b"").rstrip(b"\0") == b"A_OPUS":
                self._found.append(self._choose(entry))
                return True

        codecs = ", ".join(each.get(CODEC, b"")[:32].decode("ascii", "replace") for each in entries)
        raise Malformed(f"WebM holds no Opus, but {codecs[:64] or 'nothing'}")

    def _choose(self, entry: dict[int, bytes]) -> Track:
        if ENCODINGS in entry:
            raise Malformed("the track of WebM is compressed or encrypted")

        self._track = int.from_bytes(entry.get(NUMBER, b""))
        return opus_track(entry.get(PRIVATE, b""))

    def _block(self, element: Element, ends: int) -> bool:
        """Take a block, alone or in its group; False until more is fed. Raises Unsound."""
        data, begins = self._data, element.begins
        if element.id == GROUP:
            if ends - begins > ELEMENT_BYTES:  # a picture: its block is passed over by itself
                self._take(begins - self._at)
                return True
        else:
            track, body = number(data, begins)
            if not body:
                return False

            if track not in self._numbers:
                raise Unsound

            if track != self._track:
                return self._pass_over(ends - self._at)

            if ends - begins > ELEMENT_BYTES:
                raise Unsound

        if ends > len(data):
            return False

        if self._seam and (sound := self._sound(ends)) is not True:
            if sound is False:
                raise Unsound

            if not self._ended:
                return False

        self._take(begins - self._at)
        self._keep(element.id, self._take(ends - begins))
        return True

    def _keep(self, name: int, body: bytes) -> None:
        """Keep the packets of a block."""
        padding = 0
        if name == GROUP:
            parts = dict(children(body))
            body = parts.get(BLOCK, b"")
            padding = max(int.from_bytes(parts.get(PADDING, b""), signed=True), 0)

        track, at = number(body, 0)
        if track != self._track or len(body) < at + 3:
            return

        packets = unlace(body[at + 2] >> 1 & 3, body[at + 3 :])
        trim = min(padding, 10**9) * 48_000 // 10**9
        last = len(packets) - 1
        self._found += [Packet(each, trim if n == last else 0) for n, each in enumerate(packets)]

    def _sound(self, at: int) -> bool | None:
        """Return whether an element begins here; None while that is not to be seen yet."""
        try:
            element = self._head(at)
            if element is None:
                # Chromium ends its blobs behind the first byte of the next block: not to be awaited
                return bytes(self._data[at:]) in (b"\xa3", b"\xa0") or None

            if element.id == GROUP:
                first = self._data[element.begins : element.begins + 1]
                return first == bytes([BLOCK]) if first else None

            if element.id in (SIMPLE_BLOCK, BLOCK):
                track, begins = number(self._data, element.begins)
                return track in self._numbers if begins else None
        except Unsound:
            return False

        # Any other id of one byte is in every fiftieth place of a packet. WebM has no checksums:
        # two halves that fit by chance, about one in a hundred, are heard as one odd packet.
        return element.id > 255 or (element.id == TIME and self._data[at + 1] <= 0x88)

    def _resume(self) -> bool:
        """Go to the next sound place; False if there is none in sight.

        No byte is searched twice, and a place is judged anew only when what it needs is there.
        """
        size, base = len(self._data), self._lost - self._at
        waiting, self._awaited = self._awaited, []
        for place, needs in waiting:
            if needs > size + base:
                self._awaited.append((place, needs))
            elif self._judge(place - base, base):
                return True

        begins, ends = max(self._searched - base, self._at), size - 3
        for hit in SOUND.finditer(self._data, begins):
            begins = hit.end()
            if self._judge(hit.start(), base):
                return True

            if self._idles():
                ends = begins
                break

        self._searched = max(begins, ends) + base
        keep = min([self._searched, *(place for place, _ in self._awaited)])
        self._miss(max(keep - self._lost, 0))
        return False

    def _judge(self, at: int, base: int) -> bool:
        """Go on from here if it is sound; keep it in mind if that is not to be seen yet."""
        size = len(self._data)
        sound, ends = self._sound(at), size
        element = self._head(at) if sound else None
        if element is not None:
            ends = element.begins if element.id in ENTERED else element.ends or at
            sound = self._sound(ends) if ends - at <= ELEMENT_BYTES else False
        elif sound:
            sound = None

        if sound:
            self._miss(at - self._at)
            self._lost = 0
        elif sound is None and len(self._awaited) < AWAITED:
            self._awaited.append((at + base, max(ends, size) + base + 1))

        return bool(sound)
