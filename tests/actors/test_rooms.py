"""The two indexes of memberships against a dict of sets."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.rooms import Rooms

rooms = st.sampled_from("abc")
members = st.integers(0, 3)


class AnyRooms(RuleBasedStateMachine):
    """Members come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: Rooms[int, str] = Rooms()
        self.model: dict[str, dict[int, str]] = {}

    @rule(member=members, room=rooms, view=st.sampled_from("xy"))
    def join(self, member: int, room: str, view: str) -> None:
        """The first one in is told so."""
        assert self.rooms.join(member, room, view) is (room not in self.model)
        self.model.setdefault(room, {})[member] = view

    @rule(member=members, room=rooms)
    def leave(self, member: int, room: str) -> None:
        """The last one out is told so, a stranger is not."""
        was_there = self.model.get(room, {}).pop(member, None) is not None
        emptied = was_there and not self.model[room]
        assert self.rooms.leave(member, room) is emptied
        if emptied:
            del self.model[room]

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Seen from rooms, from members, and by the numbers."""
        assert len(self.rooms) == len(self.model)
        assert self.rooms.size == sum(map(len, self.model.values()))
        for room in "abc":
            assert (room in self.rooms) is (room in self.model)
            assert dict(self.rooms.members(room)) == self.model.get(room, {})

        for member in range(4):
            joined = {room for room, inside in self.model.items() if member in inside}
            assert self.rooms.joined(member) == joined
            assert self.rooms.count(member) == len(joined)


TestAnyRooms = AnyRooms.TestCase


def test_nothing_is_left_when_all_have_left() -> None:
    index: Rooms[int, None] = Rooms()
    for member in range(3):
        for room in "ab":
            index.join(member, room, None)

    for member in range(3):
        for room in index.joined(member):
            index.leave(member, room)

    assert (index._members, index._joined, index.size) == ({}, {}, 0)
