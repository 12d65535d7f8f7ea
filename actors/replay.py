"""What a lost engine makes necessary: audio to send again, one run of segments out of several
streams, and whom to dial next.

Nothing here waits; times are arguments.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from sys import byteorder

import msgspec

from actors.errors import Refused, UpstreamLost, leaves
from actors.messages import Recognition, Word
from actors.ports import Engine

AUDIBLE = 500
"""Peak of 16-bit samples from which a stretch of audio may be speech (-36 dB of full scale)."""
LOOK_AT = 16
"""One sample of so many is looked at."""
PAUSE = 0.25
PAUSE_AT_MOST = 5.0
"""Seconds before an engine is dialled again: a random part of PAUSE, doubled with each failure."""
HEALTHY = 10.0
"""Seconds after which a stream has worked, even if nothing was said."""
HOPELESS = frozenset(
    {
        "engine_forbidden",
        "engine_rejected",
        "engine_unauthorized",
        "engine_unconfigured",
        "engine_unpaid",
        "unsupported_audio",
    }
)
"""Refusals that dialling again cannot mend."""


class Ring:
    """The newest audio that no final covers, within a bound; beyond it the oldest goes."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` bytes, and a frame."""
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self.start = self.end = 0
        """First byte that is kept, and the one after the last."""
        self.lost_first = self.lost_after = 0
        """Where what was dropped begins and ends that may have been speech."""

    def add(self, data: bytes) -> None:
        """Append a frame."""
        self._frames.append(data)
        self.end += len(data)
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

        The audio must be 16-bit PCM.
        """
        loud = [
            (position, len(data))
            for position, data in self.frames()
            if position >= since and _peak(data) >= AUDIBLE
        ]
        first = loud[0][0] if loud else self.end
        return sum(length for _, length in loud), self.end - first


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


class Redial:
    """Decides which engine is dialled next, after what pause, and when there is no more hope."""

    def __init__(
        self, engines: Sequence[Engine], now: float, patience: float, chance: Callable[[], float]
    ) -> None:
        """Begin with the first engine; `patience` is how many seconds it may take to be served.

        `chance` returns a number from 0 to 1.
        """
        self._engines = list(engines)
        self._since, self._patience, self._chance = now, patience, chance
        self._failures = self._index = 0
        self._served = self._settled = False

    @property
    def engine(self) -> Engine:
        """The engine to dial."""
        return self._engines[self._index]

    def left(self, now: float) -> float:
        """Return the seconds for which there is still hope."""
        return self._since + self._patience - now

    def served(self, patience: float) -> None:
        """Note that an engine has accepted the stream; `patience` bounds every later loss."""
        self._served, self._patience = True, patience

    def progressed(self) -> None:
        """Note that the engine works: whatever fails next is a matter of its own."""
        self._settled = True

    def lost(self, now: float, lasted: float, wasted: float) -> None:
        """Note that a stream is over that was open for `lasted` seconds.

        For the last `wasted` of them it was in trouble.
        """
        if self._settled or lasted - wasted >= HEALTHY:
            self._since, self._failures, self._settled = now - wasted, 0, False

    def failed(self, failure: Refused | UpstreamLost, now: float) -> float:
        """Choose the next engine; return the seconds to wait. Raises the failure: no more hope."""
        again = self._failures == 0 and self._served and isinstance(failure, UpstreamLost)
        self._failures += 1
        hopeless = isinstance(failure, Refused) and failure.code in HOPELESS
        if hopeless:
            del self._engines[self._index]
        elif not again:
            self._index += 1

        round_over = self._index >= len(self._engines)
        if not self._engines or self.left(now) <= 0:
            raise failure

        if round_over:
            self._index = 0
            if isinstance(failure, Refused) and not (hopeless or self._served):
                raise failure  # nobody has room: the client is told at once
        elif not again:
            return 0.0

        longest: float = min(PAUSE_AT_MOST, PAUSE * 2 ** min(16, self._failures - 1))
        return min(longest * self._chance(), self.left(now))


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


def engine_failure(error: Exception) -> Refused | UpstreamLost | None:
    """Return what a stream failed of, or None if it was not the engine's doing."""
    causes = list(leaves(error))
    if all(_is_the_engine_s(cause) for cause in causes):
        cause = causes[0]
        assert isinstance(cause, Refused | UpstreamLost)
        return cause

    return None


def _is_the_engine_s(cause: BaseException) -> bool:
    if isinstance(cause, Refused):
        return cause.code.startswith("engine_") or cause.code == "unsupported_audio"

    return isinstance(cause, UpstreamLost)
