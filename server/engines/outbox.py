"""The outbox of a loop: what many streams send waits a few milliseconds and leaves together.

Each write alone wakes the provider's side, or the card; of many in a row only the first does. On
one machine that makes a write three times cheaper.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

GATHERED = 16_384
"""Bytes of one stream that wait, at most."""
NEARLY = 0.8
"""Share of the time from which on a turn of the loop that brings more releases all."""


class Sender(Protocol):
    """Who has something to send."""

    def release(self) -> None:
        """Send it. Must not raise, nor mind that nothing is left."""


class Outbox:
    """Gathers senders for `seconds`; each adds itself once for whatever it has by then.

    A timer alone would wake the process up for every batch. So under traffic the turn of the loop
    in which the time has nearly passed takes the batch along, and the timer is for the last one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds = loop, seconds
        self._senders: list[Sender] = []
        self._nearly = 0.0
        """Time of the loop from which on what is here need not wait for the timer."""
        self._timer: asyncio.Handle | None = None
        """Absent once the release is due at the end of this turn."""

    def add(self, sender: Sender) -> None:
        """Have a sender released soon."""
        senders, loop = self._senders, self._loop
        if not senders:
            self._nearly = loop.time() + NEARLY * self._seconds
            self._timer = loop.call_later(self._seconds, self._release)
        elif self._timer is not None and loop.time() >= self._nearly:
            self._timer.cancel()
            self._timer = None
            loop.call_soon(self._release)

        senders.append(sender)

    def _release(self) -> None:
        senders, self._senders = self._senders, []
        for each in senders:
            each.release()


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Outbox]] = WeakKeyDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop, seconds: float) -> Outbox:
    """Return the outbox of a loop for this many seconds; there are as many as the settings name."""
    outboxes = _outboxes.setdefault(loop, {})
    outbox = outboxes.get(seconds)
    if outbox is None:
        outbox = outboxes[seconds] = Outbox(loop, seconds)

    return outbox
