"""Publishes the messages of tenants, within their quotas, and counts them."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from actors.log import Position, Repeated
from actors.messages import Message
from actors.meter import Meters
from actors.ports import Backplane, Clock
from actors.principal import Principal
from actors.selection import select
from actors.wire import encode_msgpack


class Publisher:
    """The way of a message from somebody's hand to the backplane."""

    def __init__(self, backplane: Backplane, meters: Meters, clock: Clock) -> None:
        self._backplane, self._meters, self._clock = backplane, meters, clock
        self.messages = self.bytes = 0
        """Messages published ever, and their bytes as MessagePack."""

    async def send(self, principal: Principal, room: str, data: object, once: str = "") -> Position:
        """Publish a value to a room of the tenant and return its position. Raises Refused."""
        principal.require(room, "publish")
        if once and (first := await self._backplane.repeats(principal.key(room), once)):
            return first

        self._meters.of(principal.tenant).check_publish(self._clock.monotonic())
        return await self._publish(principal, room, data, once)

    async def broadcast(self, principal: Principal, data: object, once: str = "") -> list[Position]:
        """Publish a value to every room of the tenant that a grant covers. Raises Refused."""
        principal.require_somewhere("publish")
        meter, monotonic = self._meters.of(principal.tenant), self._clock.monotonic
        keys = sorted(await self._backplane.rooms(principal.tenant))
        covered = select(principal, "publish", keys, meter, monotonic)
        rooms = [key.partition("/")[2] async for key in covered]
        places = await self._repeated(principal, rooms, once) if once else {}
        rooms = [room for room in rooms if room not in places]
        meter.check_broadcast(len(rooms), monotonic())
        for at, room in enumerate(rooms):
            places[room] = await self._publish(principal, room, data, once, credit=at > 0)
            await anyio.lowlevel.checkpoint()

        return [*places.values()]

    async def _repeated(
        self, principal: Principal, rooms: Sequence[str], once: str
    ) -> dict[str, Position]:
        """Return the rooms that have had a message under this `once`: it costs them nothing."""
        places: dict[str, Position] = {}
        for room in rooms:
            first = await self._backplane.repeats(principal.key(room), once)
            if first is not None:
                places[room] = first

            await anyio.lowlevel.checkpoint()

        return places

    async def _publish(
        self, principal: Principal, room: str, data: object, once: str, credit: bool = False
    ) -> Position:
        """Publish a message whose place has been taken; with credit its bytes always fit."""
        event = Message(room=room, data=data, sender=principal.subject, at=self._clock.wall())
        size = len(encode_msgpack(event))  # refuses what some listeners could not be sent
        meter = self._meters.of(principal.tenant)
        meter.check_bytes(size, self._clock.monotonic(), credit)
        key, plane = principal.key(room), self._backplane
        work = plane.publish_once(key, event, once) if once else plane.publish(key, event)
        position = await work
        if isinstance(position, Repeated):
            return position

        meter.published(size)
        self.messages += 1
        self.bytes += size
        return position
