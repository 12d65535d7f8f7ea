"""An event loop in a thread of its own, for servers that a test needs beside it."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

PATIENCE = 20.0
"""Seconds that a test waits for anything here."""


class Background(ABC):
    """Something that runs between `with` and its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.call(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def call(self, work: Callable[[], object]) -> None:
        """Do something in the thread."""
        self._loop.call_soon_threadsafe(work)

    def wait(self, fits: Callable[[], object]) -> None:
        """Wait, in the test's own thread, until something is so; fails if it takes too long."""
        with self._changed:
            assert self._changed.wait_for(fits, PATIENCE)

    def changed(self) -> None:
        """Wake who waits."""
        with self._changed:
            self._changed.notify_all()

    @abstractmethod
    async def run(self, stop: asyncio.Event) -> None:
        """Call `ready` when there is something to connect to, and stay until `stop`."""

    def ready(self) -> None:
        """Let the test begin."""
        self._started.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self.run(self._stop)
