"""What a lost engine makes necessary: audio to send again, and one run of segments out of several
streams.

Nothing here waits.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from sys import byteorder

import msgspec

from actors.messages import Recognition, Word

AUDIBLE = 500
"""Peak of 16-bit samples from which a stretch of audio may be speech (-36 dB of full scale)."""
FEWEST = 150
"""Frames that a full ring holds at least."""
SMALL = 8
"""Parts of such a frame of which a frame must have more than one not to be joined: joining copies
what it is joined to, so at the default bounds the usual 20 ms are kept as they come."""
LOOK_AT = 16
"""One sample of so many is looked at."""


class Ring:
    """The newest audio that no final covers, within a bound; beyond it the oldest goes."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` bytes, and a frame; small frames are joined."""
        self._limit = limit
        self._small, self._joined = limit // FEWEST // SMALL, limit // FEWEST
        self._frames: deque[bytes] = deque()
        self.start = self.end = 0
        """First byte that is kept, and the one after the last."""
        self.lost_first = self.lost_after = 0
        """Where what was dropped begins and ends that may have been speech."""
        self._since = self._looked = -1
        self._loud = self._first = 0
        """What `audible` has found since a byte, up to where it has looked."""

    def add(self, data: bytes) -> None:
        """Append a frame."""
        frames, size = self._frames, len(data)
        if size <= self._small and frames and len(frames[-1]) + size <= self._joined:
            frames[-1] += data
        else:
            frames.append(data)

        self.end += size
        while self.end - self.start > self._limit:
            self._drop(self._frames.popleft())

    def forget(self, before: int) -> None:
        """Drop what lies before a byte: it will not be needed again."""
        while self._frames and self.start + len(self._frames[0]) <= before:
            self.start += len(self._frames.popleft())

        if self._frames and self.start < before:
            self._frames[0] = self._frames[0][before - self.start :]
            self.start = before

        self.lost_first = max(self.lost_first, before)

    def _drop(self, data: bytes) -> None:
        after = self.start + len(data)
        if _peak(data) >= AUDIBLE:
            if self.lost_after <= self.lost_first:
                self.lost_first = self.start

            self.lost_after = after

        self.start = after

    def frames(self) -> list[tuple[int, bytes]]:
        """Return what is kept, each frame with its first byte."""
        position, frames = self.start, []
        for data in self._frames:
            frames.append((position, data))
            position += len(data)

        return frames

    def audible(self, since: int) -> tuple[int, int]:
        """Return how many bytes after a byte may be speech, and how many came since the first.

        The audio must be 16-bit PCM. Asked again for the same byte, it looks at what is new.
        """
        if since != self._since:
            self._since, self._looked = since, max(since, self.start)
            self._loud, self._first = 0, self.end

        for position, data in self._unlooked():
            if _peak(data) >= AUDIBLE:
                self._first = self._first if self._loud else position
                self._loud += len(data)

        self._looked = self.end
        return self._loud, self.end - self._first if self._loud else 0

    def _unlooked(self) -> list[tuple[int, bytes]]:
        position, found = self.end, []
        for data in reversed(self._frames):
            position -= len(data)
            if position < self._looked:
                break

            found.append((position, data))

        return found[::-1]


def _peak(data: bytes) -> int:
    samples = array("h", data[: len(data) & ~1])
    if byteorder == "big":
        samples.byteswap()

    return max(map(abs, samples[::LOOK_AT]), default=0)


class Splice:
    """Joins what stream after stream recognizes into one run of segments with linear times.

    A stream that was opened for a replay may recognize again what has been said already: words
    before the end of the last final are left out, and finals that hold nothing else are dropped.
    """

    def __init__(self) -> None:
        self.reached = 0.0
        """Seconds of audio up to which finals have been returned."""
        self.pending: Recognition | None = None
        """The newest partial of the segment that has no final yet."""
        self._segment = self._revision = 0
        self._base = 0.0
        self._replayed = False

    def begin(self, base: float, replayed: bool) -> None:
        """Take the recognitions of another stream from here on: its audio begins at `base`."""
        self._base, self._replayed = base, replayed

    def take(self, heard: Recognition) -> Recognition | None:
        """Give a recognition its place, or return None if it tells nothing that is not known."""
        words, text = heard.words, heard.text
        if self._base:
            words = tuple(self._shift(word) for word in words)

        start, end = heard.start + self._base, heard.end + self._base
        if self._replayed and start < self.reached:
            words, text = self._unheard(words, text, (start + end) / 2)
            if heard.text and not text:
                return None

        if not text and self.pending is None:
            return None

        start = max(start, self.reached)
        return self._place(heard, text, words, (start, max(start, end)))

    def settle(self) -> Recognition | None:
        """Turn the partial that is pending into a final, for its audio is gone."""
        pending = self.pending
        if pending is None or not pending.text:
            return None

        return self._place(
            msgspec.structs.replace(pending, final=True, flushed=False),
            pending.text,
            pending.words,
            (pending.start, pending.end),
        )

    def _place(
        self, heard: Recognition, text: str, words: tuple[Word, ...], span: tuple[float, float]
    ) -> Recognition:
        placed = Recognition(
            self._segment, self._revision, heard.final, text, *span, words, heard.flushed
        )
        if not heard.final:
            self.pending = placed
            self._revision += 1
        else:
            self.reached, self.pending = placed.end, None
            self._segment, self._revision = self._segment + 1, 0

        return placed

    def _unheard(
        self, words: tuple[Word, ...], text: str, middle: float
    ) -> tuple[tuple[Word, ...], str]:
        """Return what is left without that which earlier finals hold."""
        if not words:
            return words, text if middle > self.reached else ""

        left = tuple(word for word in words if word.start + word.end > 2 * self.reached)
        if len(left) == len(words):
            return words, text

        return left, " ".join(word.text for word in left)

    def _shift(self, word: Word) -> Word:
        return Word(word.text, word.start + self._base, word.end + self._base, word.confidence)


def pieces(frames: Sequence[tuple[int, bytes]], size: int) -> Iterator[tuple[int, bytes]]:
    """Join frames into pieces of at most `size` bytes, or of one frame if that is larger."""
    start, joined = 0, b""
    for position, data in frames:
        if joined and len(joined) + len(data) > size:
            yield start, joined
            joined = b""

        if not joined:
            start = position

        joined += data

    if joined:
        yield start, joined
