"""Who is in a room, and who is told of it when."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import GONE, NORMAL
from actors.limits import Limits
from actors.messages import Error, Joined, Message, Person, Presence
from actors.presence import Roll
from actors.principal import Grant, Principal
from tests.actors.node import Node, order, running
from tests.autojump import settle
from tests.fakes import FakeTransport

pytestmark = pytest.mark.anyio
MOST = 3
LIMITS = Limits(presence=MOST)
ALL = Grant("*", ("listen", "speak", "publish", "presence"))


class Reader:
    """A client: it keeps what it is told, as the protocol says."""

    def __init__(self) -> None:
        self.people: set[str] | None = None
        """None while their number alone is known."""
        self.members = 0

    def take(self, event: Presence) -> None:
        """Read one event."""
        self.members = event.members
        joined, left = ({each.id for each in part} for part in (event.joined, event.left))
        if event.kind == "count":
            self.people = None
        elif event.kind == "snapshot":
            self.people = joined
        else:
            assert self.people is not None
            self.people = (self.people - left) | joined


def ann(name: str = "Ann", subject: str = "ann", *grants: Grant) -> Principal:
    """Make somebody with a subject."""
    return Principal("dev", subject, name, grants=grants or (ALL,))


async def enter(node: Node, principal: Principal, **options: object) -> FakeTransport:
    """Open a connection of somebody that has joined the room."""
    actor, far = node.open(principal)
    await order(actor, "join", id="j", room="a", **options)
    return far


async def watch(node: Node) -> FakeTransport:
    """Have Ann join the room and want to know who is there; forget what she is told at once."""
    far = await enter(node, ann(), presence=True)
    far.got.clear()
    return far


async def told(far: FakeTransport) -> list[Presence]:
    """Wait until all is told that there is to tell, and return what was since the last time."""
    await anyio.sleep(1)
    await settle()
    found = far.of(Presence)
    far.got.clear()
    return found


def ids(people: tuple[Person, ...]) -> set[str]:
    """Name people by their ids."""
    return {each.id for each in people}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("abcdefg")),
        st.tuples(st.just("leave"), st.sampled_from("abcdefg")),
        st.tuples(st.just("tell"), st.just("")),
        st.tuples(st.just("watch"), st.just("")),
        st.tuples(st.just("unwatch"), st.just("")),
    ),
    max_size=40,
)


@given(STEPS)
def test_whoever_applies_what_is_told_knows_who_is_there(steps: list[tuple[str, str]]) -> None:
    roll, counts = Roll("a", MOST), Counter[str]()
    readers: dict[object, Reader] = {}

    def tell() -> None:
        for event, watchers in roll.news():
            for each in watchers:
                readers[each].take(event)

    for what, name in steps:
        if what == "tell":
            tell()
        elif what == "watch":
            watcher: Any = object()
            readers[watcher] = Reader()
            readers[watcher].take(roll.watch(watcher))
        elif what == "unwatch" and readers:
            watcher = next(iter(readers))
            roll.unwatch(watcher)
            del readers[watcher]
        elif what == "enter":
            counts[name] += 1
            roll.enter(Person(name, name.upper()))
        elif counts[name]:
            counts[name] -= 1
            roll.leave(Person(name, name.upper()))

    tell()
    there = {name for name, count in counts.items() if count}
    for reader in readers.values():
        assert reader.members == len(there) == len(roll)
        assert reader.people == (there if len(there) <= MOST else None)

    assert roll.news() == []


async def test_who_joins_is_told_who_is_there_before_what_was_missed() -> None:
    async with running(LIMITS) as node:
        await node.publish("a", 1)
        await enter(node, ann("Bob", "bob"))
        far = await enter(node, ann(), presence=True, history=1)
        kinds = [type(each) for each in far.got[1:]]
        assert kinds == [Joined, Presence, Message]
        (event,) = far.of(Presence)
        assert (event.kind, event.members, event.room) == ("snapshot", 2, "a")
        assert set(event.joined) == {Person("bob", "Bob"), Person("ann", "Ann")}


async def test_comings_and_goings_are_told_once_a_second_and_only_to_who_asked() -> None:
    async with running(LIMITS) as node:
        watching, deaf = await watch(node), await enter(node, ann())
        bob = await enter(node, ann("Bob", "bob"))
        assert not watching.of(Presence)
        (event,) = await told(watching)
        assert (event.kind, event.joined, event.left) == ("delta", (Person("bob", "Bob"),), ())
        bob.vanish()
        (event,) = await told(watching)
        assert (event.kind, event.joined, ids(event.left)) == ("delta", (), {"bob"})
        assert await told(watching) == []
        assert not deaf.of(Presence)


async def test_a_person_is_there_as_long_as_one_connection_is() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        first, second = await enter(node, ann("Bob", "bob")), await enter(node, ann("Bo", "bob"))
        (event,) = await told(watching)
        assert event.joined == (Person("bob", "Bob"),)
        first.vanish()
        assert await told(watching) == []
        second.vanish()
        (event,) = await told(watching)
        assert ids(event.left) == {"bob"}


async def test_who_drops_out_and_is_back_within_the_second_has_not_gone() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        bob = await enter(node, ann("Bob", "bob"))
        await told(watching)
        bob.vanish()
        await enter(node, ann("Bob", "bob"))
        assert await told(watching) == []


async def test_a_token_without_a_subject_is_known_by_its_connection() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        actor, _ = node.connect()
        await order(actor, "join", room="a")
        (event,) = await told(watching)
        assert event.joined == (Person(actor.id, ""),)


async def test_a_speaker_is_there_and_stays_while_it_may_come_back() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        actor, _ = node.open(ann("Bob", "bob"), "speak")
        await order(actor, "start", id="s", room="a")
        (event,) = await told(watching)
        assert event.joined == (Person("bob", "Bob"),)
        people = node.manager.fanout.presence.people("dev/a")
        assert [(each.connections, each.sessions) for each in people] == [(1, 0), (0, 1)]
        actor.close(GONE)
        assert await told(watching) == []
        limits = node.manager.limits
        await anyio.sleep(node.manager.resume_grace + limits.upstream.end_within + 2)
        await settle()
        assert [ids(each.left) for each in await told(watching)] == [{"bob"}]


async def test_of_a_crowd_the_number_is_told_and_everybody_again_when_it_has_gone() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        far = [await enter(node, ann(f"B{number}", f"b{number}")) for number in range(MOST)]
        (event,) = await told(watching)
        assert (event.kind, event.members, event.joined) == ("count", MOST + 1, ())
        late = await enter(node, ann("Late", "late"), presence=True)
        assert [(each.kind, each.members) for each in late.of(Presence)] == [("count", MOST + 2)]
        for each in far[:2]:
            each.vanish()

        (event,) = await told(watching)
        assert (event.kind, ids(event.joined)) == ("snapshot", {"ann", "b2", "late"})


async def test_a_room_that_nobody_is_in_leaves_no_trace() -> None:
    async with running(LIMITS) as node:
        presence = node.manager.fanout.presence
        actor, _ = node.open(ann())
        await order(actor, "join", room="a", presence=True)
        await order(actor, "start", room="b")
        await settle()
        assert presence._rolls
        assert presence.sessions("dev/b") == 1
        actor.close(NORMAL)
        await anyio.sleep(30)
        assert not presence._rolls
        assert not presence._speaking
        assert not presence._changed


async def test_it_takes_the_right_to_know_and_a_room_in_which_it_is_kept() -> None:
    async with running(LIMITS) as node:
        listener = ann("Ann", "ann", Grant("*", ("listen",)))
        far = await enter(node, listener, presence=True)
        (error,) = far.of(Error)
        assert (error.code, error.field, error.id) == ("forbidden", "room", "j")
        assert not far.of(Joined)

        node.manager.fanout.presence.kept = lambda tenant, room: room != "a"
        far = await enter(node, ann(), presence=True)
        (error,) = far.of(Error)
        assert (error.code, error.setting) == ("forbidden", "tenants.dev.presence")
        far = await enter(node, ann())
        assert far.of(Joined)


async def test_a_token_that_gives_the_right_no_more_takes_one_out_of_the_room() -> None:
    async with running(LIMITS) as node:
        node.authority.tokens["less"] = ann("Ann", "ann", Grant("*", ("listen",)))
        actor, far = node.open(ann())
        await order(actor, "join", room="a", presence=True)
        await order(actor, "join", room="b")
        await order(actor, "refresh", id="r", token="less")
        assert [each.room for each in far.of(Error)] == ["a"]
        assert set(node.manager.fanout.rooms.joined(actor)) == {"dev/b"}
        far.got.clear()
        await enter(node, ann("Bob", "bob"))
        assert await told(far) == []


async def test_other_tenants_are_not_told() -> None:
    async with running(LIMITS) as node:
        watching = await watch(node)
        actor, _ = node.open(Principal("other", "bob"))
        await order(actor, "join", room="a")
        assert await told(watching) == []
        assert [each.person.id for each in node.manager.fanout.presence.people("dev/a")] == ["ann"]


async def test_who_does_not_read_is_sent_away_and_the_others_are_told() -> None:
    async with running(LIMITS) as node:
        slow, quick = [await enter(node, ann(each, each), presence=True) for each in ("x", "y")]
        slow.stall()
        for number in range(20):
            bob = await enter(node, ann("Bob", f"bob{number}"))
            await told(quick)
            bob.vanish()
            await anyio.sleep(1)

        assert slow.aborted
        assert not quick.aborted
