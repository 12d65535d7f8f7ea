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
        self._blank: OrderedDict[str, float] = OrderedDict()
        """The same, of rooms that never had an event: they go first, for nobody misses them."""
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
            while 0 < quotas.history_rooms < len(self.logs) and self._displace():
                pass

    def open(self, key: str, now: float) -> RoomLog:
        """Make a room; if the tenant has its number, in the place of the idlest. Raises Refused."""
        most = self._quotas.history_rooms
        if 0 < most <= len(self.logs) and not self._displace():
            message = f"the tenant's quota history_rooms is {most}"
            setting = f"tenants.{self.tenant}.quotas.history_rooms"
            raise Refused("quota_exceeded", message, "room", setting, RETRY_AFTER)

        log = self.logs[key] = RoomLog(secrets.token_urlsafe(6), self._history)
        self._blank[key] = now
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
        elif self._blank.pop(key, None) is not None:
            self._idle[key] = now

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
        self._blank.pop(key, None)

    def unsubscribe(self, key: str, now: float) -> None:
        """Nobody is in a room any more."""
        if key in self.logs:
            idle = self._idle if self.logs[key].offset else self._blank
            idle[key] = now
            idle.move_to_end(key)

    def sweep(self, now: float) -> None:
        """Forget the rooms that nobody is in whose newest event is too old."""
        for idle in (self._blank, self._idle):
            while idle and now - next(iter(idle.values())) > self._history.age:
                self._forget(next(iter(idle)))

    def _fit(self) -> None:
        """Let go of the quietest history while the bytes are too many."""
        while 0 < self._quotas.history_bytes < self.bytes:
            self._evict(next(iter(self._spoken)))

    def _displace(self) -> bool:
        """Forget the room that was idle longest before its time; False where none is idle."""
        idle = self._blank or self._idle
        if not idle:
            return False

        idlest = next(iter(idle))
        self._stock.evicted += len(self.logs[idlest])
        self._forget(idlest)
        return True

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
        self._idle.pop(key, None)
        self._blank.pop(key, None)
        self._spoken.pop(key, None)
        self._stock.rooms -= 1
        self._count(-len(log), -log.bytes)

    def _count(self, events: int, size: int) -> None:
        stock = self._stock
        self.events += events
        stock.events += events
        self.bytes += size
        stock.bytes += size
