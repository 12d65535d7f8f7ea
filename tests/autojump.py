"""Virtual time for both backends: an hour of waiting takes no time, and nothing sleeps for real."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import sniffio
import trio.testing


class AutojumpSelector(selectors.DefaultSelector):
    """Jumps in time when the loop asks to sleep, which it does only when nothing else can run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.settled: list[asyncio.Future[None]] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Poll without waiting; wake those who wait for quiet first, then move the clock."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready

        if self.settled:
            waiters, self.settled = self.settled, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

            return []

        if timeout is None:
            raise RuntimeError("deadlock: every task waits, and no timer is set")

        self.now += max(0.0, timeout)
        return []


class AutojumpLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is its selector's."""

    def __init__(self) -> None:
        self.selector = AutojumpSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.selector.now


def virtual_time(backend: str) -> tuple[str, dict[str, Any]]:
    """Return what anyio needs to run a test on this backend, with a clock of its own."""
    if backend == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}

    return "asyncio", {"loop_factory": AutojumpLoop, "debug": True}


async def settle() -> None:
    """Wait until no task can go on without time passing."""
    if sniffio.current_async_library() == "trio":
        await trio.testing.wait_all_tasks_blocked()
        return

    loop = asyncio.get_running_loop()
    assert isinstance(loop, AutojumpLoop)
    waiter: asyncio.Future[None] = loop.create_future()
    loop.selector.settled.append(waiter)
    await waiter
