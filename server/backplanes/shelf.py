"""The rooms of one tenant on a node, within what the tenant may keep."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from actors.errors import Refused
from actors.limits import History
from actors.log import RoomLog, Stock
from actors.meter import RETRY_AFTER
from actors.quota import Quotas
from actors.wire import Frame


class Shelf:
    """Rooms by key. Where they are too many, the quietest go first. Time is an argument."""

    def __init__(self, tenant: str, history: History, quotas: Quotas, stock: Stock) -> None:
        self.tenant, self._history, self._quotas = tenant, history, quotas
        self._stock = stock
        self.logs: dict[str, RoomLog] = {}
        self._spoken: OrderedDict[str, None] = OrderedDict()
        """Rooms that have a history, the one that was published to last at the end."""
        self._idle: OrderedDict[str, float] = OrderedDict()
        """Rooms that nobody is in, with when each was used last, which is their order."""
        self.events = self.bytes = 0
        """Events kept, and their encoded bytes."""

    def __len__(self) -> int:
        """Rooms."""
        return len(self.logs)

    def adopt(self, history: History, quotas: Quotas) -> None:
        """Go by other limits from here on, and let go of what is too much by them."""
        if history is not self._history:
            for log in self.logs.values():
                log.limits = history

        changed = quotas is not self._quotas
        self._history, self._quotas = history, quotas
        if changed:
            self._fit()
            while self._idle and 0 < quotas.history_rooms < len(self.logs):
                self._displace()

    def open(self, key: str, now: float) -> RoomLog:
        """Make a room; if the tenant has its number, in the place of the idlest. Raises Refused."""
        most = self._quotas.history_rooms
        if 0 < most <= len(self.logs):
            if not self._idle:
                message = f"the tenant's quota history_rooms is {most}"
                setting = f"tenants.{self.tenant}.quotas.history_rooms"
                raise Refused("quota_exceeded", message, "room", setting, RETRY_AFTER)

            self._displace()

        log = self.logs[key] = RoomLog(secrets.token_urlsafe(6), self._history)
        self._idle[key] = now
        self._stock.rooms += 1
        return log

    def append(self, key: str, log: RoomLog, frame: Frame, now: float) -> None:
        """Keep the next event of a room; while the bytes are too many, let go of the quietest."""
        held, size = len(log), log.bytes
        log.append(frame, now)
        self._count(len(log) - held, log.bytes - size)
        if key in self._spoken:
            self._spoken.move_to_end(key)
        else:
            self._spoken[key] = None

        if key in self._idle:
            self._idle[key] = now
            self._idle.move_to_end(key)

        self._fit()

    def expire(self, key: str, log: RoomLog, now: float) -> None:
        """Let go of what is too old in a room."""
        held, size = len(log), log.bytes
        log.expire(now)
        self._count(len(log) - held, log.bytes - size)
        if not log:
            self._spoken.pop(key, None)

    def subscribe(self, key: str) -> None:
        """Somebody is in a room from here on."""
        self._idle.pop(key, None)

    def unsubscribe(self, key: str, now: float) -> None:
        """Nobody is in a room any more."""
        if key in self.logs:
            self._idle[key] = now
            self._idle.move_to_end(key)

    def sweep(self, now: float) -> None:
        """Forget the rooms that nobody is in whose newest event is too old."""
        while self._idle:
            key, since = next(iter(self._idle.items()))
            if now - since <= self._history.age:
                return

            self._forget(key)

    def _fit(self) -> None:
        """Let go of the quietest history while the bytes are too many."""
        while 0 < self._quotas.history_bytes < self.bytes:
            self._evict(next(iter(self._spoken)))

    def _displace(self) -> None:
        """Forget the room that was idle longest before its time."""
        idlest = next(iter(self._idle))
        self._stock.evicted += len(self.logs[idlest])
        self._forget(idlest)

    def _evict(self, key: str) -> None:
        """Let go of the history of the quietest room, in the only one left of the oldest event."""
        log = self.logs[key]
        held, size = len(log), log.bytes
        log.shrink(1 if len(self._spoken) == 1 else held)
        self._stock.evicted += held - len(log)
        self._count(len(log) - held, log.bytes - size)
        if not log:
            del self._spoken[key]

    def _forget(self, key: str) -> None:
        """Forget a room, and its epoch with it."""
        log = self.logs.pop(key)
        del self._idle[key]
        self._spoken.pop(key, None)
        self._stock.rooms -= 1
        self._count(-len(log), -log.bytes)

    def _count(self, events: int, size: int) -> None:
        stock = self._stock
        self.events += events
        stock.events += events
        self.bytes += size
        stock.bytes += size
