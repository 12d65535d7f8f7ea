"""How fast a publisher goes: so many messages a second, or as many as the listeners follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from server.load.rooms import Publisher, Room

AHEAD = 128
"""Publishes that may be on their way when saturated: the server always has work, and no mailbox
comes near `limits.egress.messages`."""
AHEAD_BYTES = 262_144
"""Bytes that they may have, well below `limits.egress.bytes`."""
BATCHES = 8
"""Parts of these that are written at a time."""
LATE = 0.5
"""Seconds after the end in which what is left may still be published."""

Until = Callable[[float], Awaitable[bool]]
"""Waits until a monotonic time; tells whether to go on then."""


async def sleep_until(when: float) -> bool:
    """Wait until a monotonic time, and go on."""
    await asyncio.sleep(when - time.monotonic())
    return True


async def steadily(
    publisher: Publisher,
    rooms: Sequence[Room],
    rate: float,
    seconds: float,
    until: Until = sleep_until,
) -> int:
    """Publish at a rate to each room; return how many messages could not be published in time.

    Raises Broken or TimeoutError.
    """
    began, together = time.monotonic(), rate * len(rooms)
    total = max(1, round(seconds * together))
    for number in range(total):
        if not await until(began + number / together):
            break

        await publisher.drained()
        if time.monotonic() > began + seconds + LATE:
            return total - number

        publisher.publish(rooms[number % len(rooms)])

    return 0


async def saturated(
    publisher: Publisher, rooms: Sequence[Room], seconds: float, until: Until = sleep_until
) -> None:
    """Publish as much as the listeners follow, a bounded number of messages ahead of them.

    Raises Broken or TimeoutError.
    """
    ahead = max(2, min(AHEAD // len(rooms), AHEAD_BYTES // publisher.size))
    batch = max(1, ahead // BATCHES)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and await until(0):
        for room in rooms:
            await room.reach((room.published + batch - ahead) * len(room.listeners))
            await publisher.drained()
            publisher.publish(room, batch)
