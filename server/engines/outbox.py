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


class Sender(Protocol):
    """Who has something to send."""

    def release(self) -> None:
        """Send it. Must not raise, nor mind that nothing is left."""


class Outbox:
    """Gathers senders for `seconds`; each adds itself once for whatever it has by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds = loop, seconds
        self._senders: list[Sender] = []

    def add(self, sender: Sender) -> None:
        """Have a sender released soon."""
        if not self._senders:
            self._loop.call_later(self._seconds, self._release)

        self._senders.append(sender)

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
