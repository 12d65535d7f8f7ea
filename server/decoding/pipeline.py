"""One session's way from encoded bytes to PCM, without tasks or threads.

Its one rule: the same bytes give the same PCM, however they were cut, and no call gives more than
it was asked for by more than one packet, which is nine seconds at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.decoding.codec import BadPacket, Codec
from server.decoding.demux import Demuxer, Malformed, Track
from server.decoding.flac import Flac
from server.decoding.ogg import Ogg
from server.decoding.packets import OpusPackets
from server.decoding.wav import Wav
from server.decoding.webm import WebM

BAD_PACKETS = 8
"""Packets in a row that may be undecodable, as after a loss; with one more the audio is refused."""
TURN_COST = 1024
"""Packets after which `work` pauses: some 20 ms, however little PCM they hold."""
TRACK_COST = 32
"""Packets for which a new track counts, since it opens a codec."""
BACKLOG_BYTES = 1_048_576
"""Encoded bytes that may wait because they make more PCM than is returned at once."""


def _opus(first: bytes) -> Demuxer:
    """Opus is in Ogg, if it begins so, or each piece is a packet."""
    return Ogg() if first.startswith(Ogg.magic) else OpusPackets()


DEMUXERS: Mapping[str, Callable[[bytes], Demuxer]] = {
    "flac": lambda _: Flac(),
    "ogg": lambda _: Ogg(),
    "ogg-opus": lambda _: Ogg(),
    "opus": _opus,
    "wav": lambda _: Wav(),
    "webm": lambda _: WebM(),
    "webm-opus": lambda _: WebM(),
}


class Pipeline:
    """The reader of a container and the codec of its track."""

    def __init__(self, encoding: str) -> None:
        self.stopped = False
        """Set from any thread: `work` returns at its next packet."""
        self.paused = False
        """Whether `work` ended because its turn is over, and not for want of bytes."""
        self._make = DEMUXERS[encoding]
        self._demuxer: Demuxer | None = None
        self._codec: Codec | None = None
        self._bad = 0
        """Packets in a row that could not be decoded."""
        self._good = False
        """Whether any could."""
        self._reason = ""

    def feed(self, data: bytes) -> None:
        """Take a piece. Raises Malformed if too much waits already."""
        if not data:
            return

        demuxer = self._demuxer = self._demuxer or self._make(data)
        if demuxer.pending > BACKLOG_BYTES:
            raise Malformed(f"over {BACKLOG_BYTES} bytes wait: they hold far more than they take")

        demuxer.feed(data)

    def work(self, wanted: int) -> bytes:
        """Decode until there are so many bytes of PCM, all is decoded, or it paused.

        Raises Malformed.
        """
        pcm, cost = bytearray(), 0
        self.paused = False
        while self._demuxer is not None and len(pcm) < wanted and not self.stopped:
            if cost >= TURN_COST:
                self.paused = True
                break

            item = self._demuxer.next()
            if item is None:
                self.paused = self._demuxer.paused
                break

            cost += TRACK_COST if isinstance(item, Track) else 1

            if isinstance(item, Track):
                pcm += self._rest()
                self._codec = Codec(item)
            elif self._codec is not None:
                try:
                    pcm += self._codec.decode(item)
                    self._bad, self._good = 0, True
                except BadPacket as error:
                    self._count(str(error))

        return bytes(pcm)

    def end(self) -> None:
        """No more bytes come."""
        if self._demuxer is not None:
            self._demuxer.end()

    def finish(self) -> bytes:
        """Return the last PCM, after `work` had no more. Raises Malformed if all was in vain."""
        if self._bad and not self._good:
            raise Malformed(f"it cannot be decoded: {self._reason}")

        pcm = self._rest()
        self._demuxer = self._codec = None
        return pcm

    def _rest(self) -> bytes:
        return b"" if self._codec is None else self._codec.finish()

    def _count(self, reason: str) -> None:
        self._bad, self._reason = self._bad + 1, reason
        if self._bad > BAD_PACKETS:
            raise Malformed(f"it cannot be decoded: {reason}")
