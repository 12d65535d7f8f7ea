"""What is live of one tenant: its rooms and connections, in pages; nothing is said of another's.

A listing goes through all that its tenant has once; it is for operators, not for every request.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, nsmallest

from anyio.lowlevel import checkpoint
from msgspec import UNSET

from actors.connection import ConnectionActor
from actors.errors import Refused
from actors.manager import ConnectionManager
from actors.principal import Principal
from actors.selection import select
from server.documents import (
    ConnectionPage,
    ConnectionState,
    PageQuery,
    PersonState,
    PresencePage,
    RoomPage,
    RoomState,
    Speaking,
)

AT_ONCE = 64
"""Rooms that are described before others have their turn."""
NO_ROOM = "there is no such room"
NO_CONNECTION = "there is no such connection"
"""Said alike of what was never there, of what has gone, and of another tenant's."""


class Directory:
    """Looks at a node for those who administer a tenant."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager
        self._began = manager.clock.wall() - manager.clock.monotonic()
        """From the clock of the engine to Unix time; taken once, so that no answer wavers."""

    async def rooms(self, principal: Principal, page: PageQuery) -> RoomPage:
        """List the rooms that the principal administers."""
        manager, after = self._manager, principal.key(page.after)
        later = [each for each in await manager.backplane.rooms(principal.tenant) if each > after]
        heapify(later)  # a page takes few of them, and sorting takes all
        meter, monotonic = manager.meters.of(principal.tenant), manager.clock.monotonic
        wanted: list[str] = []
        async for key in select(principal, "admin", _popped(later), meter, monotonic):
            wanted.append(key)
            if len(wanted) > page.limit:
                break

        found: list[RoomState] = []
        for number, key in enumerate(wanted[: page.limit], 1):
            if (state := await self._state(key)) is not None:
                found.append(state)

            if number % AT_ONCE == 0:
                await checkpoint()

        more = len(wanted) > page.limit
        return RoomPage(rooms=found, next=_name(wanted[page.limit - 1]) if more else UNSET)

    async def room(self, principal: Principal, room: str) -> RoomState:
        """Describe one room. Raises Refused("not_found")."""
        state = await self._state(principal.key(room))
        if state is None:
            raise Refused("not_found", NO_ROOM, "room")

        return state

    def presence(self, principal: Principal, room: str, page: PageQuery) -> PresencePage:
        """List who is in a room. Raises Refused("forbidden")."""
        presence = self._manager.fanout.presence
        presence.check(principal, room)
        people = presence.people(principal.key(room))
        later = (each for each in people if each.person.id > page.after)
        wanted = nsmallest(page.limit + 1, later, key=lambda each: each.person.id)
        states = [
            PersonState(
                id=each.person.id,
                name=each.person.name,
                connections=each.connections,
                speaking=each.sessions > 0,
            )
            for each in wanted[: page.limit]
        ]
        more = len(wanted) > page.limit
        following = states[-1].id if more else UNSET
        return PresencePage(room=room, members=len(people), people=states, next=following)

    def connections(self, principal: Principal, page: PageQuery) -> ConnectionPage:
        """List the tenant's connections; those that only flush are gone."""
        live = self._manager.population.of(principal.tenant)
        later = (name for name, each in live.items() if name > page.after and each.open)
        wanted = nsmallest(page.limit + 1, later)
        states = [self._describe(live[name]) for name in wanted[: page.limit]]
        more = len(wanted) > page.limit
        return ConnectionPage(connections=states, next=states[-1].id if more else UNSET)

    def connection(self, principal: Principal, name: str) -> ConnectionActor:
        """Find a connection of the tenant by its id. Raises Refused("not_found")."""
        found = self._manager.population.of(principal.tenant).get(name)
        if found is None or not found.open:
            raise Refused("not_found", NO_CONNECTION, "connection")

        return found

    def unsubscribe(self, principal: Principal, room: str, connection: str, subject: str) -> int:
        """Take a connection, or all of a subject, out of a room; return how many those are.

        Raises Refused("not_found") for a connection that is not in the room.
        """
        membership, key = self._manager.membership, principal.key(room)
        members = list(self._manager.fanout.rooms.members(key))
        named = [
            each
            for each in members
            if each.id == connection or (subject and each.principal.subject == subject)
        ]
        if connection and not named:
            raise Refused("not_found", NO_CONNECTION, "connection")

        for each in named:
            membership.expel(each, key)

        return len(named)

    async def _state(self, key: str) -> RoomState | None:
        top = await self._manager.backplane.top(key)
        if top is None:
            return None

        return RoomState(
            room=_name(key),
            members=len(self._manager.fanout.rooms.members(key)),
            speakers=self._manager.fanout.presence.sessions(key),
            epoch=top.epoch,
            offset=top.offset,
        )

    def _describe(self, actor: ConnectionActor) -> ConnectionState:
        rooms = self._manager.fanout.rooms
        session = actor.microphone.session if actor.microphone is not None else None
        about = session.subject if session is not None else None
        return ConnectionState(
            id=actor.id,
            kind=actor.kind,
            subject=actor.principal.subject,
            name=actor.principal.name,
            since=round(self._began + actor.began, 3),
            rooms=sorted(map(_name, rooms.joined(actor))),
            speech=UNSET if about is None else Speaking(session=about.session, room=about.room),
        )


def _popped(heap: list[str]) -> Iterator[str]:
    while heap:
        yield heappop(heap)


def _name(key: str) -> str:
    return key.partition("/")[2]
