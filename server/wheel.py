"""One timer for all connections: a wheel of slots, each holding what is due in one tick.

A connection is in at most one slot. Setting its time again is moving it, which costs two set
operations; nothing is paid for a connection until it is due.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol
from weakref import WeakKeyDictionary

log = logging.getLogger("roomcast.protocol")

TICK = 0.25
"""Seconds between two slots: how late a deadline may be noticed."""
SLOTS = 512
"""Slots of the wheel; what is due later than they reach is asked when they end."""


class Timed(Protocol):
    """What may be put on the wheel."""

    slot: int
    """Where it is; -1 when it is not on the wheel. The wheel's own."""

    def due(self) -> float | None:
        """Act on the time that was set; return the seconds until the next, or None."""


class Wheel:
    """The deadlines of one event loop, which it does not keep alive."""

    def __init__(self) -> None:
        self.now = 0
        """Ticks that have passed while something was on the wheel."""
        self._slots: list[set[Timed]] = [set() for _ in range(SLOTS)]
        self._size = 0
        self._turning = False

    def watch(self, item: Timed, seconds: float) -> None:
        """Call `item.due()` in this many seconds, to the tick, instead of when it was due."""
        if item.slot >= 0:
            self._slots[item.slot].discard(item)
        else:
            self._size += 1
            if not self._turning:
                self._turning = True
                asyncio.get_running_loop().call_later(TICK, self._turn)

        ticks = min(SLOTS - 1, max(1, math.ceil(seconds / TICK)))
        item.slot = (self.now + ticks) % SLOTS
        self._slots[item.slot].add(item)

    def forget(self, item: Timed) -> None:
        """Take an item off the wheel, if it is there."""
        if item.slot >= 0:
            self._slots[item.slot].discard(item)
            item.slot = -1
            self._size -= 1

    def _turn(self) -> None:
        """Move on by one slot, however late it is.

        What a stalled process could not hear is no silence of its peers.
        """
        self.now += 1
        self._empty(self.now % SLOTS)
        self._turning = self._size > 0
        if self._turning:
            asyncio.get_running_loop().call_later(TICK, self._turn)

    def _empty(self, slot: int) -> None:
        if not self._slots[slot]:
            return

        items, self._slots[slot] = self._slots[slot], set()
        for item in items:
            item.slot = -1

        self._size -= len(items)
        for item in items:
            try:
                seconds = item.due()
            except Exception:
                log.exception("a deadline failed")
                continue

            if seconds is not None:
                self.watch(item, seconds)


_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, Wheel] = WeakKeyDictionary()


def wheel_of(loop: asyncio.AbstractEventLoop) -> Wheel:
    """Return the wheel of a loop."""
    wheel = _wheels.get(loop)
    if wheel is None:
        wheel = _wheels[loop] = Wheel()

    return wheel
