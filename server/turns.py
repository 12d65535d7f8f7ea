"""What a request does in one turn of the event loop, everybody else waits for: so it is parted, and
of those that wait to go on one does so in each turn."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

from anyio.lowlevel import checkpoint


class Turns:
    """The line of those who wait for a turn of one event loop: each once, so at most all requests
    that are being answered and all upgrades."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()

    def next(self) -> asyncio.Future[None]:
        """Return what is done in a turn to come, in which nobody else goes on."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._go_on)

        return turn

    def _go_on(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # or who waited has been cancelled
            turn.set_result(None)

        if self._waiting:
            self._loop.call_soon(self._go_on)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


async def give_way() -> None:
    """Let what others wait for come between two parts of a request, of 0.1 ms or so each."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another library's loop: it has an order of its own
        await checkpoint()
        return

    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns(loop)

    await turns.next()
