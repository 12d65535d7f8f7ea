"""The backplane of a single node: histories in memory, delivery by a function call."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable

import anyio
import msgspec

from actors.errors import Refused
from actors.limits import History
from actors.log import Position, Recovery, Repeated, RoomLog
from actors.messages import RoomEvent
from actors.ports import Clock
from actors.wire import Frame
from server.backplanes.once import Once


class MemoryBackplane:
    """Rooms in a dict, bounded in number; one without a listener is forgotten after its history."""

    def __init__(
        self, limits: History, max_rooms: int, clock: Clock, max_keys: int = 10_000
    ) -> None:
        self._limits, self._max_rooms, self._clock = limits, max_rooms, clock
        self._once = Once(max_keys)
        self._logs: dict[str, RoomLog] = {}
        self._by_tenant: dict[str, set[str]] = {}
        self._wanted: set[str] = set()
        self._idle: OrderedDict[str, float] = OrderedDict()
        self._deliver: Callable[[str, Frame], None] | None = None
        self.events = 0
        """Events kept in all rooms."""
        self.bytes = 0
        """Bytes of encoded events kept in all rooms."""

    def __len__(self) -> int:
        """Rooms of tenants that have a listener or a history."""
        return len(self._logs) - len(self._by_tenant.get("", ()))

    async def publish(self, key: str, event: RoomEvent) -> Position:
        """Give the event the room's next offset, keep it and deliver it.

        Raises Refused("room_limit") for a room too many, Refused("bad_message") for data that has
        no JSON form; an offset is used only when neither happens.
        """
        log = self._log(key)
        frame = Frame(msgspec.structs.replace(event, offset=log.offset + 1, epoch=log.epoch))
        _ = frame.json  # encodes now: what cannot be sent is refused before it has an offset
        now = self._clock.monotonic()
        held, size = len(log), log.bytes
        log.append(frame, now)
        self._count(key, held, size)
        if key not in self._wanted:
            self._idle[key] = now
            self._idle.move_to_end(key)

        self._hand_over(key, frame)
        return log.top

    async def publish_once(self, key: str, event: RoomEvent, once: str) -> Position:
        """Publish, unless that was done under the same `once`. Raises Refused."""
        first = await self.repeats(key, once)
        if first is not None:
            return first

        tenant, now = _tenant(key), self._clock.monotonic()
        self._once.check(tenant)
        position = await self.publish(key, event)
        self._once.keep(tenant, (key, once), position, now)
        return position

    async def repeats(self, key: str, once: str) -> Position | None:
        """Return the place of what was published under this `once` lately."""
        first = self._once.find(_tenant(key), (key, once), self._clock.monotonic())
        return None if first is None else Repeated(first.epoch, first.offset)

    async def relay(self, key: str, event: RoomEvent) -> None:
        """Deliver an event that is not kept."""
        self._hand_over(key, Frame(event))

    async def subscribe(self, key: str) -> None:
        """Begin to deliver a room's events. Raises Refused("room_limit")."""
        self._log(key)
        self._wanted.add(key)
        self._idle.pop(key, None)

    async def unsubscribe(self, key: str) -> None:
        """Stop delivering a room's events; its history stays until it is too old."""
        self._wanted.discard(key)
        if key in self._logs:
            self._idle[key] = self._clock.monotonic()
            self._idle.move_to_end(key)

    async def recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Return what came after `since`, or the `newest` events when `since` is None."""
        log = self._log(key)
        held, size = len(log), log.bytes
        log.expire(self._clock.monotonic())
        self._count(key, held, size)
        return log.newest(newest) if since is None else log.since(since)

    async def top(self, key: str) -> Position | None:
        """Return the newest position of a room, and make none that there is not."""
        log = self._logs.get(key)
        return None if log is None else log.top

    async def rooms(self, tenant: str) -> list[str]:
        """List the tenant's rooms by key, in no order."""
        return list(self._by_tenant.get(tenant, ()))

    async def run(self, deliver: Callable[[str, Frame], None], ready: Callable[[], None]) -> None:
        """Deliver to this function until cancelled."""
        self._deliver = deliver
        ready()
        try:
            await anyio.sleep_forever()
        finally:
            self._deliver = None

    def sweep(self, now: float) -> None:
        """Forget the rooms without a listener whose newest event is too old, and keys."""
        self._once.sweep(now)
        while self._idle:
            key, since = next(iter(self._idle.items()))
            if now - since <= self._limits.age:
                return

            del self._idle[key]
            self._forget(key)

    def _log(self, key: str) -> RoomLog:
        log = self._logs.get(key)
        if log is not None:
            return log

        if "/" in key and len(self) >= self._max_rooms:
            raise Refused(
                "room_limit", f"this node has its {self._max_rooms} rooms", setting="limits.rooms"
            )

        log = self._logs[key] = RoomLog(secrets.token_urlsafe(6), self._limits)
        self._idle[key] = self._clock.monotonic()
        self._by_tenant.setdefault(_tenant(key), set()).add(key)
        return log

    def _forget(self, key: str) -> None:
        log = self._logs.pop(key)
        if "/" in key:
            self.events -= len(log)
            self.bytes -= log.bytes

        tenant = _tenant(key)
        rooms = self._by_tenant[tenant]
        rooms.discard(key)
        if not rooms:
            del self._by_tenant[tenant]

    def _count(self, key: str, held: int, size: int) -> None:
        """Note how a tenant's room has grown; what the node says to itself is not history."""
        if "/" in key:
            self.events += len(self._logs[key]) - held
            self.bytes += self._logs[key].bytes - size

    def _hand_over(self, key: str, frame: Frame) -> None:
        if self._deliver is not None and key in self._wanted:
            self._deliver(key, frame)


def _tenant(key: str) -> str:
    """Return whose room it is; "" for what the node says to itself."""
    return key.rpartition("/")[0]
