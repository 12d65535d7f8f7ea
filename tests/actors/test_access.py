"""How long a connection may stay, and with what; in virtual time."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from actors.commands import Join, Start
from actors.errors import Close, Refused
from actors.expiry import LEEWAY
from actors.limits import Limits
from actors.messages import Ack, Closing, Error, Hello, Transcript
from actors.microphone import Kind
from actors.population import AT_ONCE
from actors.principal import CAPABILITIES, Grant, Principal
from tests.actors.node import data_of, order, running
from tests.actors.tenants import NAMES, Step, play, write
from tests.autojump import settle
from tests.fakes import EPOCH, DistantBackplane, FakeClock, FakeTransport

pytestmark = pytest.mark.anyio
fewer = settings(max_examples=settings().max_examples // 4)
"""A script is played three times."""


def ann(lasts: float = math.inf, *grants: Grant, token: str = "1") -> Principal:
    """Make Ann of tenant t, with a token that lasts so many seconds from the node's start."""
    everything = (Grant("*", CAPABILITIES),)
    return Principal("t", "ann", "Ann", token, EPOCH + lasts, grants or everything)


def ending(far: FakeTransport) -> Close:
    """Return how the far end was closed; it was told before."""
    closing, closed = far.got[-1], far.closed
    assert isinstance(closing, Closing)
    assert closed is not None
    assert (closing.code, closing.reason) == (closed.code, closed.reason)
    return closed


async def test_hello_says_when_the_token_expires() -> None:
    async with running() as node:
        _, far = node.open(ann(100))
        assert far.of(Hello)[0].expires == EPOCH + 100
        _, far = node.open(ann())
        assert far.of(Hello)[0].expires is UNSET


@pytest.mark.parametrize("kind", ["connect", "listen", "speak"])
async def test_a_connection_ends_when_the_leeway_of_its_token_has_passed(kind: Kind) -> None:
    async with running() as node:
        actor, far = node.open(ann(100), kind)
        await anyio.sleep(100 + LEEWAY - 0.5)
        assert actor.open
        await anyio.sleep(2)
        close = ending(far)
        assert (close.code, close.reason, close.retry) == (4004, "token_expired", True)
        assert node.manager.actors == set()
        assert len(node.manager.upkeep.expiries) == 0


async def test_a_token_that_expired_long_ago_does_not_last() -> None:
    async with running() as node:
        _, far = node.open(ann(-1e6))
        await anyio.sleep(3)
        assert ending(far).code == 4004


async def test_only_tokens_that_expire_are_watched_and_only_while_they_matter() -> None:
    async with running() as node:
        expiries = node.manager.upkeep.expiries
        for _ in range(10):
            node.open(ann())

        ends = [node.open(ann(100)) for _ in range(3)]
        assert len(expiries) == 3
        ends[0][1].vanish()
        assert len(expiries) == 2
        ends[1][1].stall()
        ends[1][0].close(Close(1000, "normal"))
        assert len(expiries) == 1
        await anyio.sleep(1000)
        assert (len(expiries), len(node.manager.actors)) == (0, 10)
        assert expiries._buckets == {}


async def test_the_last_words_of_a_speaker_whose_token_expires_are_published() -> None:
    async with running() as node:
        _, ear = await node.join("a", tenant="t")
        actor, mouth = node.open(ann(10))
        await order(actor, "start", id=1, room="a")
        await settle()
        (stream,) = node.engine.streams
        await actor.receive(b"\0" * 640)
        await anyio.sleep(10 + LEEWAY + 2)
        assert ending(mouth).code == 4004
        assert stream.ended
        stream.transcribe("last words")
        stream.finish()
        await settle()
        assert [event.text for event in ear.of(Transcript)] == ["last words"]
        assert node.manager.upkeep.speaking == {}


async def test_a_refreshed_token_lets_the_connection_live_until_it_expires_too() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann(1000, token="2")
        actor, far = node.open(ann(100))
        await order(actor, "refresh", id=1, token="next")
        (ack,) = far.of(Ack)
        assert (ack.id, actor.principal.token) == (1, "2")
        await anyio.sleep(1000)
        assert actor.open
        await anyio.sleep(LEEWAY + 2)
        assert ending(far).code == 4004


async def test_the_authority_is_told_where_a_token_comes_from() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann()
        actor, _ = node.open(ann(100))
        actor.address = "192.0.2.1"
        await order(actor, "refresh", token="next")
        await order(actor, "refresh", token="wrong")
        assert node.authority.addresses == ["192.0.2.1"] * 2


async def test_a_token_for_ever_is_watched_no_more() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann()
        actor, far = node.open(ann(100))
        await order(actor, "refresh", token="next")
        assert far.of(Ack) == []
        await anyio.sleep(1000)
        assert actor.open


@pytest.mark.parametrize(
    ("principal", "code"),
    [
        (Principal("t", "bob"), "forbidden"),
        (Principal("other", "ann"), "forbidden"),
        (Principal("t"), "forbidden"),
        (None, "unauthorized"),
        (ann(1000, token="revoked"), "unauthorized"),
    ],
)
async def test_a_token_of_somebody_else_changes_nothing(
    principal: Principal | None, code: str
) -> None:
    async with running() as node:
        node.manager.revoke("t", token="revoked")
        if principal is not None:
            node.authority.tokens["next"] = principal

        mine = ann(100)
        actor, far = node.open(mine)
        await order(actor, "refresh", id=7, token="next")
        (error,) = far.of(Error)
        assert (error.code, error.field, error.id) == (code, "token", 7)
        assert actor.principal is mine
        await anyio.sleep(100 + LEEWAY + 2)
        assert ending(far).code == 4004


async def test_the_grants_of_the_new_token_hold_from_then_on() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann(100, Grant("b", ("listen", "publish")))
        actor, far = node.open(ann(100, Grant("a", ("listen", "publish"))))
        await order(actor, "refresh", token="next")
        await order(actor, "publish", id=1, room="b", data=1)
        await order(actor, "publish", id=2, room="a", data=1)
        await order(actor, "join", id=3, room="b")
        await order(actor, "join", id=4, room="a")
        assert [ack.id for ack in far.of(Ack)] == [1]
        assert [(error.id, error.code) for error in far.of(Error)] == [
            (2, "forbidden"),
            (4, "forbidden"),
        ]


async def test_rooms_that_the_new_token_does_not_cover_are_left() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann(100, Grant("b*", ("listen",)), Grant("*", ("publish",)))
        actor, far = node.open(ann(100))
        for room in ("a1", "a2", "b1"):
            await order(actor, "join", room=room)

        await node.publish("a1", "before", tenant="t")
        await order(actor, "refresh", id=1, token="next")
        for room in ("a1", "a2", "b1"):
            await node.publish(room, "after", tenant="t")

        await settle()
        assert [(error.code, error.room) for error in far.of(Error)] == [
            ("forbidden", "a1"),
            ("forbidden", "a2"),
        ]
        assert all(error.id is UNSET for error in far.of(Error))
        assert isinstance(far.got[-2], Ack)
        assert (data_of(far), data_of(far, "a1")) == (["before", "after"], ["before"])
        assert node.manager.statistics().subscriptions == 1
        assert len(node.manager.fanout._positions) == 1
        assert node.observer.refusals == []


async def test_a_refresh_that_covers_everything_disturbs_nothing() -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann(100)
        actor, far = node.open(ann(100))
        await order(actor, "join", room="a")
        await order(actor, "start", id=1, room="a")
        await settle()
        await order(actor, "refresh", id=2, token="next")
        await actor.receive(b"\0" * 640)
        await settle()
        assert far.of(Error) == []
        assert node.engine.streams[0].audio == b"\0" * 640


@pytest.mark.parametrize("kind", ["connect", "speak"])
async def test_speech_that_the_new_token_does_not_cover_ends_in_good_order(kind: Kind) -> None:
    async with running() as node:
        node.authority.tokens["next"] = ann(100, Grant("*", ("listen",)), Grant("b", ("speak",)))
        _, ear = await node.join("a", tenant="t")
        actor, far = node.open(ann(100), kind)
        await order(actor, "start", id=1, room="a")
        await settle()
        await actor.receive(b"\0" * 640)
        await order(actor, "refresh", id=2, token="next")
        await settle()
        (error,) = far.of(Error)
        assert (error.code, error.room) == ("forbidden", "a")
        (stream,) = node.engine.streams
        assert stream.ended
        stream.transcribe("last words")
        stream.finish()
        await settle()
        assert [event.text for event in ear.of(Transcript)] == ["last words"]
        if kind == "speak":
            assert ending(far).code == 4502
        else:
            await order(actor, "start", id=3, room="b")
            await settle()
            assert [ack.id for ack in far.of(Ack)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("names", "closed"),
    [
        ({"subject": "ann"}, ["ann 1", "ann 2"]),
        ({"token": "1"}, ["ann 1", "bob 1"]),
        ({"subject": "bob", "token": "2"}, ["ann 2", "bob 1"]),
        ({"key": "k1"}, ["ann 1", "bob 1"]),
        ({"key": "1"}, []),
        ({"subject": "nobody"}, []),
        ({"connection": "other's"}, []),
        ({"connection": "guess"}, []),
    ],
)
async def test_a_revocation_closes_what_it_names_and_nothing_else(
    names: dict[str, str], closed: list[str]
) -> None:
    async with running() as node:
        ends = {
            f"{subject} {token}": node.open(principal_of(subject, token))[1]
            for subject, token in (("ann", "1"), ("ann", "2"), ("bob", "1"))
        }
        foreign, far = node.open(principal_of("ann", "1", "other"))
        if names.get("connection") == "other's":
            names = {"connection": foreign.id}

        assert node.manager.revoke("t", **names) == len(closed)
        assert [name for name, each in ends.items() if each.closed] == closed
        for name in closed:
            close = ending(ends[name])
            assert (close.code, close.reason, close.retry) == (4505, "revoked", False)

        assert foreign.open
        assert far.closed is None
        assert node.manager.revoke("t", **names) == 0


def principal_of(subject: str, token: str, tenant: str = "t") -> Principal:
    """Return who comes with a token, each signed with a key of its own."""
    return Principal(tenant, subject, token=token, kid=f"k{token}")


async def test_who_came_by_a_ticket_leaves_with_who_made_it_or_goes_on_with_a_token() -> None:
    async with running() as node:
        guest = Principal("t", "guest", token="1", maker="backend")
        node.authority.tokens["own"] = Principal("t", "guest", token="2")
        ends = [node.open(guest) for _ in range(2)]
        other, _ = node.open(Principal("t", "guest", token="3", maker="another"))
        await order(ends[1][0], "refresh", token="own")
        assert node.manager.revoke("t", subject="backend") == 1
        assert ending(ends[0][1]).code == 4505
        assert ends[1][0].open
        assert other.open
        assert node.manager.access.revoked(guest)


@pytest.mark.parametrize(
    ("principal", "names", "ends"),
    [
        (ann(), {"subject": "ann"}, True),
        (ann(), {"token": "1"}, True),
        (Principal("t", "ann", kid="k"), {"key": "k"}, True),
        (Principal("t", "ann", kid="k"), {"key": "j"}, False),
        (Principal("t", "guest", maker="ann"), {"subject": "ann"}, True),
        (ann(token="2"), {"token": "1"}, False),
        (Principal("t", "bob"), {"subject": "ann"}, False),
        (Principal("other", "ann"), {"subject": "ann"}, False),
    ],
)
async def test_speech_that_waits_to_be_resumed_ends_with_the_access_of_who_lost_it(
    principal: Principal, names: dict[str, str], ends: bool
) -> None:
    async with running() as node:
        _, ear = await node.join("a", tenant=principal.tenant)
        actor, mouth = node.open(principal)
        await order(actor, "start", id=1, room="a")
        await settle()
        (stream,) = node.engine.streams
        await actor.receive(b"\0" * 640)
        mouth.vanish()
        await settle()
        assert node.manager.revoke("t", **names) == 0
        await settle()
        assert (stream.ended, bool(node.manager.upkeep.speaking)) == (ends, True)
        stream.transcribe("last words")
        await settle()
        assert [event.text for event in ear.of(Transcript)] == ["last words"]
        if ends:
            stream.finish()
            await settle()
            assert node.manager.upkeep.speaking == {}


async def test_speech_that_somebody_else_has_resumed_goes_on() -> None:
    async with running() as node:
        first, mouth = node.open(ann())
        await order(first, "start", id=1, room="a")
        await settle()
        mouth.vanish()
        second, far = node.open(ann(token="2"))
        await order(second, "start", id=1, room="a", resume=mouth.of(Ack)[0].session)
        assert node.manager.revoke("t", token="1") == 0
        await settle()
        assert [each.ended for each in node.engine.streams] == [False]
        assert node.manager.revoke("t", token="2") == 1
        await settle()
        assert [each.ended for each in node.engine.streams] == [True]
        assert ending(far).code == 4505


async def test_one_connection_can_be_closed_and_its_token_still_holds() -> None:
    async with running() as node:
        actor, far = node.open(ann())
        other, _ = node.open(ann())
        assert node.manager.revoke("t", connection=actor.id) == 1
        assert (ending(far).code, other.open) == (4505, True)
        assert not node.manager.access.revoked(ann())
        assert len(node.manager.access.revocations) == 0


async def test_who_is_revoked_stays_so_until_the_last_live_token_has_expired() -> None:
    async with running() as node:
        access = node.manager.access
        access.revocations.keep = 10
        node.open(ann(300))
        node.open(ann(200))
        node.manager.revoke("t", subject="ann")
        await anyio.sleep(300)
        assert access.revoked(ann())
        await anyio.sleep(LEEWAY + 1)
        assert not access.revoked(ann())


async def test_of_many_that_are_revoked_none_is_obeyed_and_a_few_depart_in_each_turn() -> None:
    async with running() as node:
        many = [node.open(ann()) for _ in range(8 * AT_ONCE)]
        _, other = await node.join("a", "t")
        assert node.manager.revoke("t", token="1") == len(many)
        left = [sum(far.closed is None for _, far in many)]
        for actor, _ in many:
            await actor.receive('{"type":"publish","room":"a","data":1}')

        while left[-1]:
            await checkpoint()
            left.append(sum(far.closed is None for _, far in many))

        assert left[0] == 7 * AT_ONCE
        # trio takes tasks in any order, so two of theirs may lie between two of ours
        assert max(a - b for a, b in pairwise(left)) <= 2 * AT_ONCE
        assert data_of(other) == []
        assert {ending(far).code for _, far in many} == {4505}


async def test_speech_of_who_is_revoked_ends_though_the_connection_is_lost_meanwhile() -> None:
    async with running() as node:
        many = [node.open(ann()) for _ in range(3 * AT_ONCE)]
        for actor, _ in many:
            await order(actor, "start", id=1, room="a")

        await settle()
        node.manager.revoke("t", token="1")
        for _, far in many:
            far.vanish()

        assert all(session.ending for session in node.manager.upkeep.speaking.values())
        await anyio.sleep(Limits().upstream.end_within + 1)
        assert not node.manager.upkeep.speaking
        assert node.observer.ended == [4505] * len(many)


async def test_a_full_list_is_told_and_what_is_live_is_closed_all_the_same() -> None:
    async with running(Limits(revocations=1)) as node:
        _, far = node.open(ann())
        node.manager.revoke("t", subject="bob")
        with pytest.raises(Refused) as refusal:
            node.manager.revoke("t", subject="ann")

        assert refusal.value.setting == "limits.revocations"
        assert ending(far).code == 4505
        assert not node.manager.access.revoked(ann())


async def test_a_revocation_names_something() -> None:
    async with running() as node:
        actor, _ = node.open(Principal("t"))
        with pytest.raises(ValueError, match="to be named"):
            node.manager.revoke("t")

        assert actor.open


@pytest.mark.parametrize("first", [Join(room="a"), Start(room="a"), None])
async def test_who_is_revoked_while_the_socket_is_being_accepted_gets_nothing(
    first: Join | Start | None,
) -> None:
    async with running() as node:
        node.manager.revoke("t", token="1")
        actor, far = node.open(ann())
        if first is not None:
            await actor.begin(first)

        await settle()
        assert [type(event) for event in far.got] == [Hello, Closing]
        assert ending(far).code == 4505
        assert node.engine.streams == []
        assert node.manager.statistics().subscriptions == 0


@pytest.mark.parametrize("command", ["join", "start"])
async def test_who_is_revoked_while_a_command_waits_gets_nothing_either(command: str) -> None:
    plane = DistantBackplane(Limits().history, 100, FakeClock(), [1.0])
    async with running(backplane=plane) as node, anyio.create_task_group() as tasks:
        actor, far = node.open(ann())
        tasks.start_soon(partial(order, actor, command, id=1, room="a"))
        await anyio.sleep(0.5)
        node.manager.revoke("t", subject="ann")
        await anyio.sleep(10)
        assert ending(far).code == 4505
        assert node.manager.upkeep.speaking == {}
        assert node.manager.statistics().subscriptions == 0
        assert node.engine.streams == []


async def test_a_revoked_speaker_cannot_come_back_to_its_session() -> None:
    async with running() as node:
        actor, far = node.open(ann())
        await order(actor, "start", id=1, room="a")
        await settle()
        session = far.of(Ack)[0].session
        node.manager.revoke("t", subject="ann")
        await settle()
        assert node.engine.streams[0].ended
        again, back = node.open(Principal("t", "ann"))
        assert not again.open
        other, far = node.open(Principal("t", "bob"))
        await order(other, "start", id=2, room="a", resume=session)
        assert [error.code for error in far.of(Error)] == ["unknown_session"]
        assert ending(back).code == 4505


@fewer
@given(st.builds(write, st.integers(0, 2**32), st.integers(1, 60)))
async def test_nothing_that_a_tenant_does_shows_at_another(script: list[Step]) -> None:
    both, counted = await play(script, NAMES)
    (first,), of_first = await play(script, NAMES[:1])
    (second,), of_second = await play(script, NAMES[1:])
    assert both == [first, second]
    assert f'"{NAMES[1]} says' not in first
    assert f'"{NAMES[0]} says' not in second
    for field in ("rooms", "subscriptions", "history_events", "deliveries", "resumable"):
        assert getattr(counted, field) == getattr(of_first, field) + getattr(of_second, field)

    assert counted.publishes == {
        kind: number + of_second.publishes[kind] for kind, number in of_first.publishes.items()
    }
