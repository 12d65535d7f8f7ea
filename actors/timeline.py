"""The time of a session's audio: where it has holes, and when each part of it came."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

from actors.messages import Word

MARK_EVERY = 0.1
"""Seconds of audio between two notes of when it came, from which the delay of a final is told."""
MARKS = 512
HOLES = 4096


class Timeline:
    """Turns bytes and an engine's seconds into seconds of the session's audio."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._marks: deque[tuple[float, float]] = deque(maxlen=MARKS)
        self.due = 0
        """Byte from which on a note of when it came is wanted."""
        self._begins: list[int] = []
        """Bytes of the engine's audio at which holes begin."""
        self._missing: list[int] = [0]
        """All bytes missing before the first of them, and up to each."""

    def seconds(self, position: int) -> float:
        """Return the time of a byte."""
        return position / self._rate

    def note(self, position: int, now: float) -> None:
        """Remember that the audio up to a byte came at monotonic time `now`."""
        if position >= self.due:
            self.due = position + round(self._rate * MARK_EVERY)
            self._marks.append((self.seconds(position), now))

    def came_at(self, seconds: float, newest: float) -> float:
        """Return when the audio of this time came; `newest` if no note has been made since."""
        return next((at for reached, at in self._marks if reached >= seconds), newest)

    def add_hole(self, first: int, after: int) -> None:
        """Note that the bytes from `first` to before `after` never reach the engine."""
        already = self._missing[-1]
        self._begins.append(first - already)
        self._missing.append(already + after - first)
        if len(self._begins) > HOLES:  # the oldest half has been told of long ago
            del self._begins[: HOLES // 2], self._missing[: HOLES // 2]

    def shift(self, seconds: float, ends: bool = False) -> float:
        """Turn the engine's time, which knows of no holes, into the time of the session's audio.

        What `ends` where a hole begins ends before it; what starts there starts after it.
        """
        if not self._begins:
            return round(seconds, 3)

        missing = self._missing_at(round(seconds * self._rate), ends)
        return round(seconds + self.seconds(missing), 3)

    def place(self, byte: int) -> int:
        """Turn a byte of the engine's audio into the byte of the session's audio."""
        return byte + self._missing_at(byte, ends=False)

    def _missing_at(self, byte: int, ends: bool) -> int:
        find = bisect_left if ends else bisect_right
        return self._missing[find(self._begins, byte)]

    def shift_words(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """Turn the times of words."""
        return tuple([self.shift_word(word) for word in words]) if self._begins else words

    def shift_word(self, word: Word) -> Word:
        """Turn the times of a word."""
        if not self._begins:
            return word

        start, end = self.shift(word.start), self.shift(word.end, ends=True)
        return Word(word.text, start, max(start, end), word.confidence)
