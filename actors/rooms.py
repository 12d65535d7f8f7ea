"""Who is in which room: one index by room, one by member, and they always agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

Member = TypeVar("Member")
View = TypeVar("View")

_NOBODY: Mapping[object, object] = {}


class Rooms(Generic[Member, View]):
    """A two-way index of memberships; each carries a `View`, what the member wants of the room.

    An empty room leaves no trace.
    """

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, View]] = {}
        self._joined: dict[Member, set[str]] = {}
        self.size = 0
        """Memberships in all rooms."""

    def __len__(self) -> int:
        """Rooms with a member."""
        return len(self._members)

    def __contains__(self, room: str) -> bool:
        """Whether the room has a member."""
        return room in self._members

    def join(self, member: Member, room: str, view: View) -> bool:
        """Add a member, or change its view; return whether it is the room's first."""
        members = self._members.setdefault(room, {})
        first = not members
        self.size += member not in members
        members[member] = view
        self._joined.setdefault(member, set()).add(room)
        return first

    def leave(self, member: Member, room: str) -> bool:
        """Remove a member if it is there; return whether the room lost its last one."""
        members = self._members.get(room, {})
        if member not in members:
            return False

        del members[member]
        self.size -= 1
        joined = self._joined[member]
        joined.discard(room)
        if not joined:
            del self._joined[member]

        if not members:
            del self._members[room]

        return not members

    def members(self, room: str) -> Mapping[Member, View]:
        """Return the members of a room with their views; empty if there are none."""
        return self._members.get(room) or _NOBODY  # type: ignore[return-value]

    def joined(self, member: Member) -> frozenset[str]:
        """Return the rooms of a member."""
        return frozenset(self._joined.get(member, ()))

    def count(self, member: Member) -> int:
        """Return how many rooms a member has joined."""
        return len(self._joined.get(member, ()))
