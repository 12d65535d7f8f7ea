"""What a request does in one turn of the event loop, everybody else waits for: so it is parted, and
of those that wait to go on one does so in each turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from weakref import WeakKeyDictionary

from anyio.lowlevel import checkpoint


class Turns:
    """The line of those who wait for a turn of one event loop: each once, and who is cancelled
    leaves it, so at most all requests that are being answered and all upgrades."""

    __slots__ = ("_called", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._called = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self) -> None:
        """Go on in a turn to come, in which nobody else does."""
        turn = self._loop.create_future()
        self._waiting[turn] = None
        self._call()
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)

    def _call(self) -> None:
        if self._waiting and not self._called:
            self._called = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._called = False
        if self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():  # or who waited is just being cancelled
                turn.set_result(None)

        self._call()


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

    await turns.wait()
