"""Audio of numbered frames, and the ear that reads the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FRAMES_PER_SECOND = 50
FRAMES_PER_PARTIAL = 10


def numbered(first: int, last: int, rate: int = 16_000, channels: int = 1) -> bytes:
    """Return frames of 20 ms, numbered from `first` to `last`; 0 and the rest are silence."""
    rest = bytes(rate // FRAMES_PER_SECOND * channels * 2 - 2)
    return b"".join(n.to_bytes(2, "little", signed=True) + rest for n in range(first, last + 1))


def numbers(texts: list[str]) -> list[int]:
    """Return the numbers that texts list."""
    return [int(word) for text in texts for word in text.split()]


@dataclass(frozen=True)
class Heard:
    """What the ear makes of a stretch of audio: words with their times in seconds."""

    final: bool
    start: float
    end: float
    words: tuple[tuple[str, float, float], ...]
    flushed: bool = False

    @property
    def text(self) -> str:
        """The words, with spaces between."""
        return " ".join(word for word, _, _ in self.words)


class Ear:
    """Says a partial every fifth of a second and a final every second, however audio is cut."""

    def __init__(self, rate: int, channels: int = 1) -> None:
        self._size = rate // FRAMES_PER_SECOND * channels * 2
        self._rest = b""
        self._frames = self._since = 0
        self._words: list[tuple[str, float, float]] = []

    def feed(self, data: bytes) -> Iterator[Heard]:
        """Hear more audio."""
        self._rest += data
        while len(self._rest) >= self._size:
            number = int.from_bytes(self._rest[:2], "little", signed=True)
            self._rest = self._rest[self._size :]
            at = self._frames / FRAMES_PER_SECOND
            self._frames += 1
            if number:
                self._words.append((str(number), at, self._frames / FRAMES_PER_SECOND))

            if self._frames % FRAMES_PER_SECOND == 0:
                yield self.cut()
            elif self._frames % FRAMES_PER_PARTIAL == 0:
                yield self._heard(final=False)

    def cut(self, flushed: bool = False) -> Heard:
        """Close the segment; it may be empty."""
        heard = self._heard(final=True, flushed=flushed)
        self._since, self._words = self._frames, []
        return heard

    def _heard(self, final: bool, flushed: bool = False) -> Heard:
        start, end = (n / FRAMES_PER_SECOND for n in (self._since, self._frames))
        return Heard(final, start, end, tuple(self._words), flushed)
