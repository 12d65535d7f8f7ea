"""Gates by name: who wants the same goes through one at a time, who wants another passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Gate:
    """One of them, with those who hold or want it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock(fast_acquire=True)  # nobody waits for who comes alone
        self.users = 0


class Gates:
    """As many as are held or wanted."""

    __slots__ = ("_gates",)

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __len__(self) -> int:
        """Names that somebody holds or wants."""
        return len(self._gates)

    @asynccontextmanager
    async def through(self, name: str) -> AsyncIterator[None]:
        """Hold a name for the length of a block; those who want it have their turns in order."""
        gate = self._gates.setdefault(name, Gate())
        gate.users += 1
        try:
            async with gate.lock:
                yield
        finally:
            gate.users -= 1
            if gate.users == 0:
                del self._gates[name]
