"""Joining and leaving rooms over a backplane that may take its time, without losing an event.

The first member of a room subscribes this node, the last one ends it. A joiner is replayed from
the backplane and then placed among the members; whatever reached this node meanwhile is
recovered again, whatever it was replayed is not delivered twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from msgspec import UNSET

from actors.commands import Join
from actors.connection import ConnectionActor
from actors.errors import FORBIDDEN, Refused
from actors.fanout import Fanout, View
from actors.limits import Limits
from actors.log import Missing, Position, Recovery, parse_position
from actors.messages import AnyEvent, Error, Gap, Joined
from actors.ports import Backplane, Clock
from actors.refusals import lost
from actors.wire import Burst


class Gate:
    """One room's turnstile: those who change its membership go through one at a time."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock(fast_acquire=True)  # nobody waits for who comes alone
        self.users = 0


class Membership:
    """Who joins and leaves which room, in step with the node's subscriptions."""

    def __init__(self, fanout: Fanout, backplane: Backplane, limits: Limits, clock: Clock) -> None:
        self._fanout, self._backplane = fanout, backplane
        self._limits, self._clock = limits, clock
        self._gates: dict[str, Gate] = {}
        self._vacated: list[str] = []
        self._told = anyio.Event()

    async def run(self) -> None:
        """End the subscriptions of the rooms that were vacated, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._told.wait()
                self._told = anyio.Event()
                keys, self._vacated = self._vacated, []
                tasks.start_soon(self.abandon, keys)

    def vacate(self, keys: Sequence[str]) -> None:
        """Note that the last members of these rooms have gone; callable outside of any task."""
        if keys:
            self._vacated += keys
            self._told.set()

    async def join(self, actor: ConnectionActor, command: Join) -> None:
        """Add a connection to a room and send it what it missed. Raises Refused."""
        actor.principal.require(command.room, "listen")
        if command.presence:
            self._fanout.presence.check(actor.principal, command.room)

        rooms, limits = self._fanout.rooms, self._limits
        key = actor.principal.key(command.room)
        since = self.check(command)
        if actor in rooms.members(key):
            raise Refused("already_joined", f"{command.room} is joined already", "room")

        if rooms.count(actor) >= limits.rooms_per_connection:
            raise Refused(
                "limit_exceeded",
                f"a connection joins at most {limits.rooms_per_connection} rooms",
                "room",
                "limits.rooms_per_connection",
            )

        meter = self._fanout.meters.of(actor.principal.tenant)
        with meter.visit(key):
            async with self._gate(key):
                meter.check_members(len(rooms.members(key)))
                await self._enter(actor, key, command, since)

    def check(self, command: Join) -> Position | None:
        """Return where the command wants to resume. Raises Refused for what can never be given."""
        most = self._limits.history.replay
        if command.history > most:
            raise Refused(
                "limit_exceeded", f"history is at most {most}", "history", "limits.history.replay"
            )

        return None if command.since is None else parse_position(command.since)

    async def leave(self, actor: ConnectionActor, key: str) -> None:
        """Take a connection out of a room. Raises Refused("not_joined")."""
        if actor not in self._fanout.rooms.members(key):
            raise Refused("not_joined", "this connection has not joined the room", "room")

        if self._fanout.leave(actor, key):
            with anyio.CancelScope(shield=True):
                await self.abandon([key])

    def confine(self, actor: ConnectionActor) -> None:
        """Take a connection out of the rooms that its token does not cover, and tell it."""
        for key in sorted(self._fanout.rooms.joined(actor)):
            room = key.partition("/")[2]
            if actor.open and not self._may_stay(actor, key, room):
                if self._fanout.leave(actor, key):
                    self.vacate([key])

                actor.tell(lost(room, "it was left"))

    def expel(self, actor: ConnectionActor, key: str) -> None:
        """Take a member out of a room and tell it; who came for this room alone is closed."""
        if self._fanout.leave(actor, key):
            self.vacate([key])

        message = "an administrator took this connection out of the room"
        if actor.kind == "listen":
            actor.close(FORBIDDEN.because(message))
        else:
            actor.tell(Error(code="forbidden", message=message, room=key.partition("/")[2]))

    async def abandon(self, keys: Sequence[str]) -> None:
        """End this node's subscriptions of rooms, if nobody is in them by now."""
        for key in keys:
            async with self._gate(key):
                await self._release(key)

    async def _enter(
        self, actor: ConnectionActor, key: str, command: Join, since: Position | None
    ) -> None:
        try:
            if key not in self._fanout.rooms:
                self._fanout.expect(key)
                await self._backplane.subscribe(key)

            recovery = await self._recover(key, since, command.history)
            if actor.open:
                top = recovery.top
                view = View(command.partials, top.epoch, top.offset, command.presence)
                self._fanout.join(actor, key, view)
                self._greet(actor, command, recovery)
        finally:
            await self._release(key)

    def _may_stay(self, actor: ConnectionActor, key: str, room: str) -> bool:
        watches = self._fanout.rooms.members(key)[actor].presence
        principal = actor.principal
        return principal.may(room, "listen") and (not watches or principal.may(room, "presence"))

    async def _recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Recover until nothing has reached this node that came after it."""
        recovery = await self._backplane.recover(key, since, newest)
        while self._fanout.passed(key, recovery.top):
            later = await self._backplane.recover(key, recovery.top, 0)
            missing = _join_missing(recovery.missing, later.missing)
            recovery = Recovery(later.top, [*recovery.frames, *later.frames], missing)

        return recovery

    async def _release(self, key: str) -> None:
        """End the subscription of a room that nobody is in, whoever is cancelled meanwhile."""
        if key not in self._fanout.rooms:
            with anyio.CancelScope(shield=True):
                await self._backplane.unsubscribe(key)

            self._fanout.forget(key)

    def _greet(self, actor: ConnectionActor, command: Join, recovery: Recovery) -> None:
        """Send `joined`, then the verdict on what was missed."""
        top, missing = recovery.top, recovery.missing
        events: list[AnyEvent] = [
            Joined(
                id=UNSET if command.id is None else command.id,
                room=command.room,
                epoch=top.epoch,
                offset=top.offset,
                recovered=UNSET if command.since is None else missing is None,
            )
        ]
        if missing is not None:
            events.append(
                Gap(
                    room=command.room,
                    first=missing.first,
                    last=missing.last,
                    reason=missing.reason,
                    epoch=top.epoch,
                )
            )

        if command.presence:
            events.append(self._fanout.presence.watch(actor, actor.principal.key(command.room)))

        for event in events:
            actor.tell(event)

        if recovery.frames:
            actor.send(Burst(recovery.frames))

    @asynccontextmanager
    async def _gate(self, key: str) -> AsyncIterator[None]:
        gate = self._gates.setdefault(key, Gate())
        gate.users += 1
        try:
            async with gate.lock:
                yield
        finally:
            gate.users -= 1
            if gate.users == 0:
                del self._gates[key]


def _join_missing(first: Missing | None, later: Missing | None) -> Missing | None:
    """Turn two losses in a row into one; events between them have not been replayed either."""
    if first is None or later is None:
        return first or later

    return Missing(first.first, max(first.last, later.last), first.reason)
