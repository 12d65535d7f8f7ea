"""The flusher: what a room was sent in one tick is joined once and handed to every member.

A publish appends to its room's batch and marks the room dirty; the flusher runs when the loop
comes round, so that everything of one tick leaves in one write.
"""

from __future__ import annotations

import logging

import anyio
import msgspec

from actors.connection import ConnectionActor
from actors.errors import INTERNAL, Close, SessionEnd
from actors.log import Position
from actors.meter import Meters
from actors.ports import Clock
from actors.presence import Attendances
from actors.rooms import Rooms
from actors.wire import Burst, Frame

log = logging.getLogger("roomcast.fanout")

BATCH = 256
"""Frames a room's batch may hold; then it is flushed at once."""

REST_FROM = 0.001
"""Seconds of a flush from which on the next one waits."""
REST = 2.0
"""How long it waits, by the time that the flush took: the others get two thirds of the loop, and
under load fewer writes carry more events. Who publishes less often sees no wait at all."""
REST_MOST = 0.02
"""Seconds that it waits at most."""


class View(msgspec.Struct, frozen=True):
    """What one member wants of a room."""

    partials: bool = True
    epoch: str = ""
    after: int = 0
    """Offset of the epoch up to which the member has been served by replay."""
    presence: bool = False
    """Whether it is told who is in the room."""

    def of(self, burst: Burst) -> Burst:
        """Return the part of a burst that this member should get."""
        if not self.partials and burst.has_partials:
            burst = burst.without_partials

        if 0 < burst.first_offset <= self.after:
            burst = burst.after(self.epoch, self.after)

        return burst


class Fanout:
    """The rooms of this node, their members, and what is on its way to them."""

    def __init__(self, clock: Clock, meters: Meters, people: int) -> None:
        """Begin without a room; of up to so many people in one each is told of by name."""
        self._clock, self.meters = clock, meters
        self.rooms: Rooms[ConnectionActor, View] = Rooms()
        self.presence = Attendances(self.rooms.members, people)
        self.deliveries = 0
        """Events handed to sockets or mailboxes, ever."""
        self.coalesce = 0.0
        """Seconds for which what is published waits for more; 0 waits for the end of the tick."""
        self.delivered_bytes = 0
        """Bytes of JSON of those events, whatever encoding they left in."""
        self._positions: dict[str, Position] = {}
        self._batches: dict[str, list[Frame]] = {}
        self._dirty: anyio.Event | None = None

    def deliver(self, key: str, frame: Frame) -> None:
        """Take one event of a room from the backplane."""
        if frame.offset and key in self._positions:
            self._positions[key] = Position(frame.epoch, frame.offset)

        if key not in self.rooms:
            return

        batch = self._batches.setdefault(key, [])
        batch.append(frame)
        if len(batch) >= BATCH:
            self._flush_room(key)
        elif self._dirty is not None:
            self._dirty.set()

    def expect(self, key: str) -> None:
        """Note from here on how far a room has come: the node is about to subscribe to it."""
        self._positions.setdefault(key, Position("", 0))

    def forget(self, key: str) -> None:
        """Note it no more: the subscription has ended."""
        self._positions.pop(key, None)

    def passed(self, key: str, top: Position) -> bool:
        """Whether this node has seen an event of a room that came after this position."""
        seen = self._positions.get(key, top)
        return seen.epoch == top.epoch and seen.offset > top.offset

    def join(self, actor: ConnectionActor, key: str, view: View) -> None:
        """Add a member that has everything up to `view.after`; what was pending is not for it."""
        self._flush_room(key)
        if self.rooms.join(actor, key, view):
            self.meters.of_key(key).use(key)

        self.presence.joined(actor, key)

    def leave(self, actor: ConnectionActor, key: str) -> bool:
        """Take a member out after what is pending; return whether the room is empty now."""
        self._flush_room(key)
        return self._left(actor, key)

    def leave_all(self, actor: ConnectionActor) -> list[str]:
        """Take a member out of every room; return the rooms that are empty now."""
        return [key for key in self.rooms.joined(actor) if self._left(actor, key)]

    def flush(self) -> None:
        """Hand everything pending to the members of its rooms."""
        while self._batches:
            self._flush_room(next(iter(self._batches)))

    async def run(self) -> None:
        """Flush at the end of each tick in which something was published; until cancelled."""
        while True:
            self._dirty = anyio.Event()
            if not self._batches:
                await self._dirty.wait()

            if self.coalesce:
                await anyio.sleep(self.coalesce)

            began = self._clock.monotonic()
            self.flush()
            took = self._clock.monotonic() - began
            await anyio.sleep(min(took * REST, REST_MOST) if took > REST_FROM else 0)

    def _flush_room(self, key: str) -> None:
        frames = self._batches.pop(key, None)
        if not frames:
            return

        burst = Burst(frames)
        now = self._clock.monotonic()
        first, partials = burst.first_offset, burst.has_partials
        whole, before = 0, (self.deliveries, self.delivered_bytes)
        failed: list[tuple[ConnectionActor, Close]] = []
        for actor, view in self.rooms.members(key).items():
            try:
                if view.after >= first > 0 or (partials and not view.partials):
                    self._deliver_part(actor, view.of(burst), now)
                else:
                    actor.deliver(burst, now)
                    whole += 1
            except SessionEnd as end:
                failed.append((actor, end.close))
            except Exception:
                log.exception("connection %s: a delivery failed", actor.id)
                failed.append((actor, INTERNAL.silent))

        self.deliveries += whole * len(frames)
        self.delivered_bytes += whole * burst.size
        meter = self.meters.of_key(key)
        meter.deliveries += self.deliveries - before[0]
        meter.delivered_bytes += self.delivered_bytes - before[1]
        for actor, close in failed:
            actor.close(close)

    def _deliver_part(self, actor: ConnectionActor, part: Burst, now: float) -> None:
        if part.frames:
            actor.deliver(part, now)
            self.deliveries += len(part.frames)
            self.delivered_bytes += part.size

    def _left(self, actor: ConnectionActor, key: str) -> bool:
        empty = self.rooms.leave(actor, key)
        self.presence.left(actor, key)
        if not empty:
            return False

        self._batches.pop(key, None)
        self.meters.of_key(key).disuse(key)
        return True
