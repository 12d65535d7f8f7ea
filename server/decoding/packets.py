"""Opus without a container: each piece is one packet.

Its one rule: a piece is taken as it came, so it must be sent as one message of the socket.
"""

from __future__ import annotations

from collections import deque

from server.decoding.demux import Demuxer, Item, Packet, opus_track

HEAD = b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0\0\0"
"""Of two channels, which takes packets of one as well."""


class OpusPackets(Demuxer):
    """Packets as they come."""

    name = "Opus"

    def __init__(self) -> None:
        super().__init__()
        self._found: deque[Item] = deque((opus_track(HEAD),))

    def feed(self, data: bytes) -> None:
        """Take a packet."""
        if data:
            self._found.append(Packet(data))

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed."""
        return self._found.popleft() if self._found else None

    @property
    def pending(self) -> int:
        """Bytes that wait to be read."""
        return sum(len(each.data) for each in self._found if isinstance(each, Packet))
