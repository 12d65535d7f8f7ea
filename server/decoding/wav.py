"""WAV as it is streamed: with a size, or with none because its writer could not know.

Its one rule: the header is believed, for nothing in the samples says what they are. So what was cut
within a sample cannot be mended.
"""

from __future__ import annotations

from server.decoding.demux import ELEMENT_BYTES, Demuxer, Item, Malformed, Packet, Track

CODECS = {
    (1, 8): "pcm_u8",
    (1, 16): "pcm_s16le",
    (1, 24): "pcm_s24le",
    (1, 32): "pcm_s32le",
    (3, 32): "pcm_f32le",
    (3, 64): "pcm_f64le",
    (6, 8): "pcm_alaw",
    (7, 8): "pcm_mulaw",
}
"""By the number of the format and the bits of a sample."""
EXTENSIBLE = 0xFFFE
ENDLESS = 0x7FFF_0000
"""A size from here on, or of 0, says that the writer did not know it."""
PACKET_BYTES = 16_384


class Wav(Demuxer):
    """The samples of a WAV stream."""

    name = "WAV"
    magic = b"RIFF"

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget the stream before: a new one begins."""
        self._align = 0
        self._left: int | None = 0
        """Bytes of samples yet to come; None: without an end."""

    def anew(self, data: bytes) -> bool:
        """Return whether a piece is the beginning of a new stream."""
        return data.startswith(self.magic) and data[8:12] in (b"WAVE", b"")

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed. Raises Malformed."""
        while self._left is not None and self._left < max(self._align, 1):
            if self._left:  # less than a sample
                self._pass_over(self._left)
                self._left = 0
                if not self._skipped():
                    return None

            track = self._chunk()
            if track is not None:
                return track

            if self._left == 0 and (not self._skipped() or self._short()):
                return None

            if self._idles():
                return None

        size = min(self.pending, PACKET_BYTES, self._left or PACKET_BYTES)
        size -= size % self._align
        if self._left is not None:
            self._left -= size

        return Packet(self._take(size)) if size else None

    def _short(self) -> bool:
        """Return whether the next chunk is not there yet, as far as it has to be read."""
        head = bytes(self._data[self._at : self._at + 8])
        if len(head) < 8 or (head.startswith(self.magic) and self.pending < 12):
            return True

        size = int.from_bytes(head[4:], "little")
        return head.startswith(b"fmt ") and self.pending < 8 + min(size, ELEMENT_BYTES)

    def _chunk(self) -> Track | None:
        """Read one chunk that is there; a track if it says what the samples are."""
        if self._short():
            return None

        kind, size = self._take(4), int.from_bytes(self._take(4), "little")
        if kind == self.magic:
            if self._take(4) != b"WAVE":
                raise Malformed("this is not WAV: it is another kind of RIFF")
        elif kind == b"fmt ":
            return self._format(self._take(min(size + size % 2, ELEMENT_BYTES)))
        elif kind == b"data":
            if not self._align:
                raise Malformed("WAV does not say what its samples are")

            self._left = None if not 0 < size < ENDLESS else size
        else:
            self._pass_over(size + size % 2)

        return None

    def _format(self, body: bytes) -> Track:
        tag, channels = (int.from_bytes(body[at : at + 2], "little") for at in (0, 2))
        rate, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
        if tag == EXTENSIBLE:
            tag = int.from_bytes(body[24:26], "little")

        codec = CODECS.get((tag, bits))
        if codec is None or not 1 <= channels <= 2 or not 8000 <= rate <= 192_000:
            kind = f"format {tag}, {bits} bits, {rate} Hz and {channels} channels"
            raise Malformed(f"WAV of {kind} is not taken")

        self._align = channels * bits // 8
        return Track(codec, rate, channels)
