"""Gates by name: who wants the same goes through one at a time, who wants another passes."""

from __future__ import annotations

from collections import deque
from types import TracebackType

import anyio

Turns = dict[str, deque[anyio.Event]]
"""Those who wait behind who holds a name, the next one first."""


class Passage:
    """One way through a gate; who comes alone waits for nobody, and makes no lock."""

    __slots__ = ("_name", "_turns")

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name

    async def __aenter__(self) -> None:
        """Hold the name, once everybody has who wanted it before."""
        before = self._turns.get(self._name)
        if before is None:
            self._turns[self._name] = deque()
            return

        turn = anyio.Event()
        before.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_on()
            else:
                before.remove(turn)

            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let the next one hold it."""
        self._pass_on()

    def _pass_on(self) -> None:
        waiting = self._turns[self._name]
        if waiting:
            waiting.popleft().set()
        else:
            del self._turns[self._name]


class Gates:
    """As many as are held or wanted."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: Turns = {}

    def __len__(self) -> int:
        """Names that somebody holds."""
        return len(self._turns)

    def through(self, name: str) -> Passage:
        """Hold a name for the length of a block; those who want it have their turns in order."""
        return Passage(self._turns, name)
