"""What is done for somebody in one turn of the event loop, everybody else waits for: so a request
is parted, and of the parts and ends that wait one is done in each turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

from anyio.lowlevel import checkpoint


class Turns:
    """The line of what waits for a turn of one event loop, each once: at most all requests that are
    being answered, all upgrades and all connections. Who is cancelled leaves it."""

    __slots__ = ("_called", "_waiting")

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._called = False

    def __len__(self) -> int:
        return len(self._waiting)

    def call(self, act: Callable[[], None]) -> None:
        """Do something in a turn to come, in which nothing else of the line is done."""
        self._line_up(act, act)

    async def wait(self) -> None:
        """Go on in a turn to come, in which nothing else of the line is done."""
        turn = asyncio.get_running_loop().create_future()
        self._line_up(turn, lambda: None if turn.done() else turn.set_result(None))
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)

    def _line_up(self, what: object, act: Callable[[], None]) -> None:
        self._waiting[what] = act
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._waiting:
            _, act = self._waiting.popitem(last=False)
            asyncio.get_running_loop().call_soon(self._go_on)
            act()
        else:
            self._called = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the line of a loop."""
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns()

    return turns


async def give_way() -> None:
    """Let what others wait for come between two parts of a request, of 0.1 ms or so each."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another library's loop: it has an order of its own
        await checkpoint()
        return

    await turns_of(loop).wait()
