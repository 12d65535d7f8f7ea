"""What every run stands on: the server, what is found, and whether somebody wants it to end."""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from server.load.report import Report, plural
from server.load.rooms import Room
from server.load.sockets import AnySocket
from server.load.target import Target
from server.load.usage import GONE, Process

SETTLE = 0.5
"""Seconds for the server to finish with what was asked of it, before its memory is weighed."""


class Stage:
    """One run."""

    def __init__(self, target: Target, report: Report, process: Process | None = None) -> None:
        self.target, self.report = target, report
        self.process = process
        """The server's, if it is known."""
        self.doing = "beginning"
        """What the run is about, for people who wait."""
        self.stopped = False
        self._name = f"bench-{secrets.token_hex(4)}"
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Bring the run to its end, with what was measured so far."""
        self.report.interrupted = self.stopped = True
        self._stop.set()

    def rooms(self, count: int) -> list[Room]:
        """Make rooms that nobody else is in."""
        return [Room(f"{self._name}-{number}") for number in range(count)]

    async def open(
        self, make: Callable[[int], AnySocket], count: int, ready: str
    ) -> list[AnySocket]:
        """Open connections; fewer if the run is stopped. Raises Broken, OSError or TimeoutError."""

        def go_on(opened: int) -> bool:
            self.doing = f"{opened:,} of {plural(count, 'connection')} open"
            return not self.stopped

        return await self.target.open_many(make, count, ready, go_on)

    async def until(self, when: float) -> bool:
        """Wait until a monotonic time; tell whether to go on then."""
        left = when - time.monotonic()
        if left <= 0:
            await asyncio.sleep(0)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stop.wait()

        return not self.stopped

    def resident(self) -> int:
        """Return the resident memory of the server, 0 if nobody can tell."""
        with suppress(*GONE):
            return self.process.resident() if self.process else 0

        return 0

    async def weigh(self, before: int, connections: int, what: str) -> None:
        """Report the server's memory for each connection; all are open, and nothing else is."""
        gc.collect()
        gc.freeze()  # no pause of ours over what stays is to be measured
        if before and connections:
            await self.until(time.monotonic() + SETTLE)
            grown = (self.resident() - before) / connections / 1000
            self.report.add(
                "server_kb_per_connection", grown, "server memory", "KB", f"more for each {what}"
            )
            if grown <= 0:
                self.report.notes.append(
                    "the server had grown before; weigh one that has just begun"
                )
