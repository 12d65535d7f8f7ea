"""The backplane of a single node: histories in memory, delivery by a function call."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec

from actors.errors import Refused
from actors.limits import History
from actors.log import Position, Recovery, Remembered, Repeated, RoomLog, Stock
from actors.messages import RoomEvent
from actors.meter import RETRY_AFTER
from actors.ports import Clock
from actors.quota import UNLIMITED, Quotas
from actors.wire import Frame
from server.backplanes.once import Once
from server.backplanes.shelf import Shelf


class MemoryBackplane:
    """A shelf of rooms for each tenant; a room without a listener goes after its history."""

    def __init__(
        self, limits: History, max_rooms: int, clock: Clock, max_keys: int = 10_000
    ) -> None:
        self._max_rooms, self._clock = max_rooms, clock
        self._once = Once(max_keys)
        self._shelves: dict[str, Shelf] = {}
        """By tenant, for those that have a room."""
        self._wanted: set[str] = set()
        self._deliver: Callable[[str, Frame], None] | None = None
        self.stock = Stock()
        """What all tenants keep together."""
        self.history_of: Callable[[str], History] = lambda tenant: limits
        """Says what a room of a tenant keeps; asked once a second."""
        self.quotas_of: Callable[[str], Quotas] = lambda tenant: UNLIMITED
        """Says what a tenant may keep; asked once a second."""

    def __len__(self) -> int:
        """Rooms of tenants that have a listener or a history."""
        return self.stock.rooms

    async def publish(self, key: str, event: RoomEvent) -> Position:
        """Give the event the room's next offset, keep it and deliver it.

        Raises Refused("room_limit") or Refused("quota_exceeded") for a room too many,
        Refused("bad_message") for data that has no JSON form; an offset is used only when none
        of these happens.
        """
        shelf, log = self._place(key)
        frame = Frame(msgspec.structs.replace(event, offset=log.offset + 1, epoch=log.epoch))
        _ = frame.json  # encodes now: what cannot be sent is refused before it has an offset
        shelf.append(key, log, frame, self._clock.monotonic())
        self._hand_over(key, frame)
        return log.top

    async def publish_once(self, key: str, event: RoomEvent, once: str) -> Position:
        """Publish, unless that was done under the same `once`. Raises Refused."""
        first = await self.repeats(key, once)
        if first is not None:
            return first

        tenant, now = _tenant(key), self._clock.monotonic()
        self._once.check(tenant, now)
        position = await self.publish(key, event)
        self._once.keep(tenant, (key, once), position, now)
        return position

    async def repeats(self, key: str, once: str) -> Position | None:
        """Return the place of what was published under this `once` lately."""
        first = self._once.find(_tenant(key), (key, once), self._clock.monotonic())
        return None if first is None else Repeated(first.epoch, first.offset)

    async def relay(self, key: str, event: RoomEvent) -> None:
        """Deliver an event that is not kept."""
        if key in self._wanted:
            self._hand_over(key, Frame(event))

    async def subscribe(self, key: str) -> None:
        """Begin to deliver a room's events. Raises Refused as `publish` does."""
        self._place(key)[0].subscribe(key)
        self._wanted.add(key)

    async def unsubscribe(self, key: str) -> None:
        """Stop delivering a room's events; its history stays until it is too old."""
        self._wanted.discard(key)
        shelf = self._shelves.get(_tenant(key))
        if shelf is not None:
            shelf.unsubscribe(key, self._clock.monotonic())

    async def recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Return what came after `since`, or the `newest` events when `since` is None."""
        shelf, log = self._place(key)
        shelf.expire(key, log, self._clock.monotonic())
        return log.newest(newest) if since is None else log.since(since)

    async def top(self, key: str) -> Position | None:
        """Return the newest position of a room, and make none that there is not."""
        shelf = self._shelves.get(_tenant(key))
        log = None if shelf is None else shelf.logs.get(key)
        return None if log is None else log.top

    async def rooms(self, tenant: str) -> list[str]:
        """List the tenant's rooms by key, in no order."""
        shelf = self._shelves.get(tenant)
        return [] if shelf is None else list(shelf.logs)

    async def remembered(self, tenant: str) -> Remembered:
        """Count what the rooms of a tenant remember."""
        shelf = self._shelves.get(tenant)
        if shelf is None:
            return Remembered(0, 0, 0)

        return Remembered(len(shelf), shelf.events, shelf.bytes)

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
        for tenant, shelf in list(self._shelves.items()):
            if tenant:
                shelf.adopt(self.history_of(tenant), self.quotas_of(tenant))

            shelf.sweep(now)
            if not len(shelf):
                del self._shelves[tenant]

    def _place(self, key: str) -> tuple[Shelf, RoomLog]:
        """Find the room of a key, or make it. Raises Refused."""
        tenant = _tenant(key)
        shelf = self._shelves.get(tenant)
        log = None if shelf is None else shelf.logs.get(key)
        if shelf is not None and log is not None:
            return shelf, log

        if tenant and len(self) >= self._max_rooms:
            message = f"this node has its {self._max_rooms} rooms"
            raise Refused("room_limit", message, "room", "limits.rooms", RETRY_AFTER)

        if shelf is None:
            quotas, stock = UNLIMITED, Stock()  # the node's own rooms are not counted
            if tenant:
                quotas, stock = self.quotas_of(tenant), self.stock

            shelf = self._shelves[tenant] = Shelf(tenant, self.history_of(tenant), quotas, stock)

        return shelf, shelf.open(key, self._clock.monotonic())

    def _hand_over(self, key: str, frame: Frame) -> None:
        if self._deliver is not None and key in self._wanted:
            self._deliver(key, frame)


def _tenant(key: str) -> str:
    """Return whose room it is; "" for what the node says to itself."""
    return key.rpartition("/")[0]
