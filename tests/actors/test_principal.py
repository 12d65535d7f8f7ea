"""What a principal may do, and where."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.messages import Ack, Closing, Error, Joined
from actors.principal import CAPABILITIES, EVERYTHING, Capability, Grant, Principal, matches
from tests.actors.node import order, running
from tests.autojump import settle

pytestmark = pytest.mark.anyio
NEEDS: dict[str, tuple[str, dict[str, object]]] = {
    "join": ("listen", {}),
    "start": ("speak", {}),
    "resume": ("speak", {"resume": "guess"}),
    "publish": ("publish", {"data": 1}),
}
"""The capability that each command needs, and its other fields."""
names = st.text("ab.-", max_size=12)
patterns = st.text("ab.-*", max_size=8)
tenants = st.text("ab/", min_size=1, max_size=4)
grants = st.builds(Grant, patterns, st.lists(st.sampled_from(CAPABILITIES), max_size=3).map(tuple))


def reference(pattern: str, name: str) -> bool:
    """Match as the standard library does."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


@given(patterns, names)
def test_a_pattern_matches_as_the_reference_does(pattern: str, name: str) -> None:
    assert matches(pattern, name) is reference(pattern, name)


@given(st.lists(names, min_size=2, max_size=4), st.data())
def test_a_pattern_matches_what_it_was_made_from(pieces: list[str], data: st.DataObject) -> None:
    name = pieces[0] + "".join(data.draw(names) + piece for piece in pieces[1:])
    assert matches("*".join(pieces), name)


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("a", "a", True),
        ("a", "ab", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*ba", "aba", False),
        ("[ab]", "a", False),
        ("?", "a", False),
        ("a.b", "axb", False),
    ],
)
def test_only_a_star_stands_for_anything_else(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) is found


@pytest.mark.parametrize("pattern", ["*a" * 60 + "*c*b", "*a" * 4000 + "*b", "*" * 8000 + "c*b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    name, began = "a" * 127 + "b", time.perf_counter()
    for _ in range(10):
        assert not matches(pattern, name)

    # Milliseconds in truth; a matcher that backtracks would not end at all.
    assert time.perf_counter() - began < 2


@given(st.lists(grants, max_size=3), names, st.sampled_from(CAPABILITIES))
def test_one_grant_must_give_both_the_room_and_the_capability(
    given_grants: list[Grant], room: str, capability: Capability
) -> None:
    may = Principal("t", grants=tuple(given_grants)).may(room, capability)
    assert may is any(
        reference(each.pattern, room) and capability in each.capabilities for each in given_grants
    )


@given(tenants, tenants, names, names)
def test_no_two_tenants_share_a_key(one: str, other: str, room: str, another: str) -> None:
    same = (one, room) == (other, another)
    assert (Principal(one).key(room) == Principal(other).key(another)) is same


def test_a_key_is_the_tenant_and_the_room() -> None:
    assert Principal("acme").key("a") == "acme/a"


@given(st.lists(grants, max_size=3), tenants, tenants, names)
def test_no_grant_covers_the_key_of_a_room(
    given_grants: list[Grant], mine: str, other: str, room: str
) -> None:
    principal = Principal(mine, grants=(*given_grants, EVERYTHING, Grant(f"{other}/*", ("speak",))))
    assert not any(principal.may(Principal(other).key(room), each) for each in CAPABILITIES)


def test_who_brings_no_token_may_do_everything_for_ever() -> None:
    principal = Principal("dev")
    assert all(principal.may("any:room", each) for each in CAPABILITIES)
    assert (principal.subject, principal.name, principal.token) == ("", "", "")
    assert principal.expires == math.inf


def test_who_has_no_grant_may_do_nothing() -> None:
    assert not any(Principal("t", grants=()).may("a", each) for each in CAPABILITIES)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("command", NEEDS)
async def test_a_command_needs_its_capability_in_its_room(
    command: str, capability: Capability
) -> None:
    needed, fields = NEEDS[command]
    kind = "start" if command == "resume" else command
    async with running() as node:
        actor, far = node.open(Principal("t", grants=(Grant("here*", (capability,)),)))
        await order(actor, kind, id=1, room="here:1", **fields)
        await settle()
        codes = {error.code for error in far.of(Error)}
        if needed != capability:
            assert codes == {"forbidden"}
        elif command == "resume":
            assert codes == {"unknown_session"}
        else:
            assert codes == set()
            assert any(isinstance(event, Ack | Joined) for event in far.got)

        await order(actor, kind, id=2, room="elsewhere", **fields)
        await settle()
        assert far.of(Error)[-1].code == "forbidden"
        assert actor.open


@pytest.mark.parametrize("command", NEEDS)
async def test_a_room_that_is_there_is_forbidden_in_the_same_words_as_any_other(
    command: str,
) -> None:
    _, fields = NEEDS[command]
    kind = "start" if command == "resume" else command
    async with running() as node:
        await node.join("busy", tenant="t")
        await node.publish("busy", 1, tenant="t")
        actor, far = node.open(Principal("t", grants=(Grant("mine", CAPABILITIES),)))
        for room in ("busy", "nowhere"):
            await order(actor, kind, id=1, room=room, **fields)

        busy, nowhere = far.of(Error)
        assert busy == nowhere
        assert (busy.code, busy.field, busy.id) == ("forbidden", "room", 1)


async def test_what_names_no_room_needs_no_grant() -> None:
    async with running() as node:
        actor, far = node.open(Principal("t", grants=()))
        await order(actor, "ping", id=1)
        await order(actor, "stop", id=2)
        await order(actor, "flush", id=3)
        await order(actor, "leave", id=4, room="a")
        assert [ack.id for ack in far.of(Ack)] == [1]
        assert [error.code for error in far.of(Error)] == ["not_started"] * 2 + ["not_joined"]


async def test_the_session_of_a_room_that_is_not_covered_cannot_be_resumed() -> None:
    async with running() as node:
        _, mouth, _ = await node.speak("a")
        session = mouth.of(Ack)[0].session
        mouth.vanish()
        actor, far = node.open(Principal("dev", grants=(Grant("b", ("speak",)),)))
        for room, code in (("a", "forbidden"), ("b", "unknown_session")):
            await order(actor, "start", id=1, room=room, resume=session)
            assert far.of(Error)[-1].code == code


async def test_the_tenth_forbidden_command_in_a_minute_ends_the_connection_with_4502() -> None:
    async with running() as node:
        actor, far = node.open(Principal("t", grants=()))
        for count in range(10):
            assert actor.open
            await order(actor, "join", id=count, room=f"guess-{count}")

        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (4502, False)
        assert isinstance(far.got[-1], Closing)
        assert len(far.of(Error)) == 10


async def test_a_broadcast_reaches_the_rooms_that_a_grant_covers() -> None:
    async with running() as node:
        for room in ("a1", "a2", "b"):
            await node.join(room, tenant="t")

        await node.join("a3", tenant="other")
        manager = node.manager
        some = Principal("t", grants=(Grant("a*", ("publish",)), Grant("*", ("listen",))))
        assert await manager.broadcast(some, 1) == 2
        assert await manager.broadcast(Principal("t"), 1) == 3
        nowhere = Principal("t", grants=(Grant("c", ("publish",)),))
        assert await manager.broadcast(nowhere, 1) == 0
        with pytest.raises(Refused) as refusal:
            await manager.broadcast(Principal("t", grants=(Grant("*", ("listen",)),)), 1)

        assert refusal.value.code == "forbidden"
