"""Joining and leaving rooms over a backplane that may take its time, without losing an event.

The first member of a room subscribes this node, the last one ends it. A joiner is replayed from
the backplane and then placed among the members; whatever reached this node meanwhile is
recovered again, whatever it was replayed is not delivered twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anyio
from msgspec import UNSET

from actors.commands import Join
from actors.connection import ConnectionActor
from actors.errors import FORBIDDEN, Refused
from actors.fanout import Fanout, View
from actors.gates import Gates
from actors.limits import Limits
from actors.log import Missing, Position, Recovery, parse_position
from actors.messages import Error, Gap, Joined
from actors.ports import Backplane, Clock
from actors.refusals import lost
from actors.wire import Burst, Frame

PIECE = 65_536
"""Bytes of JSON of a replay that are sent in one turn."""
AT_ONCE = 10
"""Rooms that are given up in one turn."""


class Membership:
    """Who joins and leaves which room, in step with the node's subscriptions."""

    def __init__(self, fanout: Fanout, backplane: Backplane, limits: Limits, clock: Clock) -> None:
        self._fanout, self._backplane = fanout, backplane
        self._limits, self._clock = limits, clock
        self._gates = Gates()
        """Those who change the membership of a room go through its gate."""
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
        if since is not None or command.history or command.presence:
            whose = actor.address or actor.id
            await meter.replays.turn(self._clock.monotonic, whose=whose)

        with meter.visit(key):
            async with self._gates.through(key):
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
        for number, key in enumerate(keys, 1):
            async with self._gates.through(key):
                await self._release(key)

            if number % AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    async def _enter(
        self, actor: ConnectionActor, key: str, command: Join, since: Position | None
    ) -> None:
        try:
            if key not in self._fanout.rooms:
                self._fanout.expect(key)
                await self._backplane.subscribe(key)

            recovery = await self._recover(key, since, command.history)
            if actor.open:
                self._greet(actor, command, recovery)
                recovery = await self._replay_apart(actor, key, recovery)

            if actor.open:
                top = recovery.top
                view = View(command.partials, top.epoch, top.offset, command.presence)
                self._fanout.join(actor, key, view)
                if command.presence:
                    self._replay(actor, [Frame(self._fanout.presence.watch(actor, key))])

                self._replay(actor, recovery.frames)
        finally:
            await self._release(key)

    async def _replay_apart(self, actor: ConnectionActor, key: str, recovery: Recovery) -> Recovery:
        """Send a long replay in pieces, between which others have their turns.

        Returns what has come meanwhile, which is short enough to be sent at once.
        """
        while len(pieces := list(_pieces(recovery.frames))) > 1:
            for piece in pieces:
                if actor.open:
                    self._replay(actor, piece)
                    await anyio.lowlevel.checkpoint()

            recovery = await self._recover(key, recovery.top, 0)
            if actor.open:
                self._tell_gap(actor, key.partition("/")[2], recovery)

        return recovery

    def _replay(self, actor: ConnectionActor, frames: Sequence[Frame]) -> None:
        if frames:
            burst = Burst(frames)
            meter = self._fanout.meters.of(actor.principal.tenant)
            meter.replays.spend(burst.size, self._clock.monotonic())
            actor.send(burst)

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
        top = recovery.top
        actor.tell(
            Joined(
                id=UNSET if command.id is None else command.id,
                room=command.room,
                epoch=top.epoch,
                offset=top.offset,
                recovered=UNSET if command.since is None else recovery.missing is None,
            )
        )
        self._tell_gap(actor, command.room, recovery)

    def _tell_gap(self, actor: ConnectionActor, room: str, recovery: Recovery) -> None:
        missing = recovery.missing
        if missing is not None:
            actor.tell(
                Gap(
                    room=room,
                    first=missing.first,
                    last=missing.last,
                    reason=missing.reason,
                    epoch=recovery.top.epoch,
                )
            )


def _pieces(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """Cut a replay where a piece is large enough."""
    begin = size = 0
    for end, frame in enumerate(frames, 1):
        size += len(frame.json)
        if size >= PIECE:
            yield frames[begin:end]
            begin, size = end, 0

    if begin < len(frames):
        yield frames[begin:]


def _join_missing(first: Missing | None, later: Missing | None) -> Missing | None:
    """Turn two losses in a row into one; events between them have not been replayed either."""
    if first is None or later is None:
        return first or later

    return Missing(first.first, max(first.last, later.last), first.reason)
