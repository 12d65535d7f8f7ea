"""Whether an engine works: what it was sent, what it has answered, and when it counts as lost.

Nothing here waits; times are arguments. Positions are seconds of the audio that engines are sent.
"""

from __future__ import annotations

from typing import NamedTuple

from actors.limits import Upstream
from actors.replay import Ring

AHEAD = 0.25
"""Share of the replay that an engine may be sent before it has answered, above real time: the rest
is for the time that it takes to find out that it is lost."""
SPEECH_ENOUGH = 0.3
"""Share of the audio sent to a silent engine since the first audible frame that must be audible
too, for it to count as lost."""
MOST = 0.8
"""Share of the replay in which that must be seen."""
PATIENCE_AT_MOST = 600.0


class Trouble(NamedTuple):
    """Why an engine counts as lost, and for how many seconds it has been in trouble."""

    what: str
    lasted: float


class Progress:
    """One session's view of the engine that it has now."""

    def __init__(self, limits: Upstream, bytes_per_second: int) -> None:
        self._limits, self._rate = limits, bytes_per_second
        self._ahead = AHEAD * limits.replay
        self._enough = min(limits.silent_within, MOST * limits.replay) * bytes_per_second
        self._patience = limits.silent_within
        self.answered = 0.0
        """Up to where the engine has shown that it heard."""
        self.near = self._ahead
        """Up to where more audio may be sent at any time."""
        self._answered_at = self._moved_at = 0.0
        self._moved = -1.0

    def begin(self, base: float, now: float) -> None:
        """Begin with another stream, whose audio begins at `base`."""
        self.answered, self._answered_at = base, now
        self.near = base + self._ahead
        self._moved, self._moved_at = -1.0, now

    def answer(self, reached: float, now: float) -> None:
        """Note that the engine has heard the audio up to here."""
        if reached > self.answered:
            self.answered, self._answered_at = reached, now
            self.near = reached + self._ahead

    def spoke(self) -> None:
        """Note that the engine has recognized something: it gets all patience again."""
        self._patience = self._limits.silent_within

    def too_far(self, sent: float, now: float) -> bool:
        """Whether more audio is under way than a loss could be mended with.

        A silent engine is sent real time, for there may be nothing to say.
        """
        return sent > self.near + now - self._answered_at

    def surely_near(self, sent: float) -> bool:
        """Whether it is not too far at any time."""
        return sent <= self.near

    def trouble(self, now: float, heard: float, waiting: bool, ring: Ring) -> Trouble | None:
        """Say why the engine counts as lost, or None; to be asked about once a second.

        `heard` is what the stream says of itself, `waiting` whether audio waits for it, `ring` the
        audio that it may have missed.
        """
        limits = self._limits
        if heard != self._moved or not waiting:
            self._moved, self._moved_at = heard, now

        if now - self._moved_at > limits.stalled_within:
            limit = f"{limits.stalled_within:g} s (limits.upstream.stalled_within)"
            return Trouble(f"took no audio for {limit}", now - self._moved_at)

        if now - self._answered_at > self._patience and self._ignores(ring):
            patience, self._patience = self._patience, min(PATIENCE_AT_MOST, 2 * self._patience)
            limit = f"{patience:g} s of speech (limits.upstream.silent_within)"
            return Trouble(f"did not answer {limit}", patience)

        return None

    def _ignores(self, ring: Ring) -> bool:
        """Whether the engine has been sent enough that may be speech and does not answer."""
        audible, since = ring.audible(round(self.answered * self._rate))
        return audible > SPEECH_ENOUGH * since and since >= self._enough
