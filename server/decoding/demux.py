"""What the readers of containers share: bytes are pushed in, tracks and packets are pulled out.

    feed -> next, next, next ... None -> feed -> ... -> end -> next ... None

Its one rule: a reader never waits and keeps no more than one unfinished element. libavformat pulls:
it would need a thread for each session, and decides by itself how much of a stream it buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

LOST_BYTES = 262_144
"""Bytes that are searched for the next sound place of a damaged stream; then it is refused."""
ELEMENT_BYTES = 65_536
"""Bytes of a header or a packet that is kept whole; larger ones are refused."""
TURN_ELEMENTS = 1024
"""Elements without audio after which reading pauses, some 5 ms: others have their turn."""
IDLE_ELEMENTS = 16_384
"""Elements without audio in a row; with one more the audio is refused."""
SKIPPED_BYTES = 16_777_216
"""Bytes of one element of no interest, which are dropped as they come."""


class Malformed(Exception):
    """This is not what it was said to be, or nothing that can be decoded."""


@dataclass(frozen=True, slots=True)
class Track:
    """What the next packets are: a stream begins, or begins anew."""

    codec: str
    """By libav's name."""
    rate: int
    channels: int
    private: bytes = b""
    """The header that the codec wants; with Opus it also says how much to drop at the beginning."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What a codec decodes at once."""

    data: bytes
    trim: int = 0
    """Samples to drop at the end."""


Item = Track | Packet


class Demuxer:
    """The bytes of a container that are not read yet, and where reading stands."""

    name = ""
    magic = b""
    """How every stream of this container begins."""

    def __init__(self) -> None:
        self.missed = 0
        """Bytes dropped in search of a sound place."""
        self.paused = False
        """Whether `next` gave None because its turn is over, and not for want of bytes."""
        self._idle = 0
        """Elements without audio since the last packet."""
        self._data = bytearray()
        self._at = 0
        self._skip = 0
        """Bytes yet to come that are of no interest."""
        self._seam = False
        """Whether the element at hand was cut between two pieces, and bytes may be lost there."""
        self._lost = 0
        """Bytes searched since the stream was sound."""
        self._begun = self._ended = False

    @property
    def pending(self) -> int:
        """Bytes that wait to be read."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Take a piece; one that begins like a stream is a new stream, whatever came before."""
        del self._data[: self._at]
        self._at = 0
        if self._begun and self.anew(data):
            self._data.clear()
            self._skip, self._lost = 0, 0
            self.reset()

        self._seam = bool(self._data)
        self._data += data

    def end(self) -> None:
        """No more bytes come: what waits for a look at the next is complete."""
        self._ended = True

    def next(self) -> Item | None:
        """Return what comes next; None until more is fed, or if paused. Raises Malformed."""
        self.paused = False
        if not self._begun:
            head = self._data[: len(self.magic)]
            if not self.magic.startswith(head):
                raise Malformed(f"this is not {self.name}: it begins with {bytes(head).hex(' ')}")

            self._begun = len(head) == len(self.magic)

        item = self.read() if self._begun and self._skipped() else None
        if isinstance(item, Packet):
            self._idle = 0

        return item

    def read(self) -> Item | None:
        """Return what comes next; None until more is fed. Raises Malformed."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the stream before: a new one begins."""

    def anew(self, data: bytes) -> bool:
        """Return whether a piece is the beginning of a new stream."""
        return data.startswith(self.magic)

    def _idles(self) -> bool:
        """Count an element without audio; True if reading has to pause. Raises Malformed."""
        self._idle += 1
        if self._idle > IDLE_ELEMENTS:
            raise Malformed(f"{IDLE_ELEMENTS} elements of {self.name} hold nothing to decode")

        self.paused = self._idle % TURN_ELEMENTS == 0
        return self.paused

    def _skipped(self) -> bool:
        """Drop what is of no interest; False while more of it has to come."""
        step = min(self._skip, self.pending)
        self._at += step
        self._skip -= step
        return not self._skip

    def _pass_over(self, size: int) -> bool:
        """Drop the next bytes, of which some may have to come yet."""
        if size > SKIPPED_BYTES:
            raise Malformed(f"{self.name} has an element of {size} bytes")

        self._skip = size
        self._seam = False
        return self._skipped()

    def _take(self, size: int) -> bytes:
        data = bytes(self._data[self._at : self._at + size])
        self._at += size
        self._seam = False
        return data

    def _miss(self, size: int) -> None:
        """Drop bytes in search of a sound place. Raises Malformed when it was too long."""
        self._at += size
        self._lost += size
        self.missed += size
        self._seam = False
        if self._lost > LOST_BYTES:
            raise Malformed(f"{self.name} is damaged: {self._lost} bytes hold nothing to decode")


def opus_track(head: bytes) -> Track:
    """Read the header of an Opus stream (RFC 7845, section 5.1). Raises Malformed."""
    if len(head) < 19 or not head.startswith(b"OpusHead") or head[8] > 15:
        raise Malformed("the header of the Opus stream cannot be read")

    if head[18] or not 1 <= head[9] <= 2:
        raise Malformed("the Opus stream has more than two channels")

    return Track("opus", 48_000, head[9], head[:19])


def opus_samples(packet: bytes) -> int:
    """Return how many samples at 48 kHz a packet holds (RFC 6716, section 3.1)."""
    if not packet:
        return 0

    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        size = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        size = (480, 960)[config & 1]
    else:
        size = 120 << (config & 3)

    count = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    return size * count
