"""Joining a room without losing an event, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest

from actors.errors import NORMAL, SessionEnd
from actors.limits import Egress, History, Limits
from actors.log import Position, Recovery
from actors.membership import AT_ONCE, PIECE
from actors.messages import Error, Gap, Joined, Message
from actors.upkeep import PROBE
from server.backplanes.memory import MemoryBackplane
from tests.actors.node import Node, data_of, order, running
from tests.autojump import settle
from tests.fakes import DistantBackplane, FakeClock, FakeTransport

pytestmark = pytest.mark.anyio
LIMITS = Limits(
    rooms_per_connection=2,
    egress=Egress(messages=20),
    history=History(messages=6, replay=4, age=60),
)


class Interrupted(MemoryBackplane):
    """A backplane where something happens before the answer to a recovery arrives."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Recover; what happens then is not in the answer."""
        recovery = await super().recover(key, since, newest)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()

        return recovery


def interrupted() -> Interrupted:
    """Make a backplane without an interruption yet."""
    return Interrupted(LIMITS.history, 100, FakeClock())


def subscriptions(node: Node) -> set[str]:
    """Return the rooms that the node has subscribed, but for its probe."""
    assert isinstance(node.backplane, MemoryBackplane)
    return node.backplane._wanted - {PROBE}


async def epoch_of(node: Node, count: int) -> str:
    """Publish so many messages, numbered from 1, and return their epoch."""
    for number in range(1, count + 1):
        await node.publish("a", number)

    return (await node.backplane.recover("dev/a", None, 0)).top.epoch


def gap_of(far: FakeTransport) -> tuple[int, int, str]:
    """Return the one gap that was told."""
    (gap,) = far.of(Gap)
    assert gap.room == "a"
    return gap.first, gap.last, gap.reason


async def test_joined_says_where_the_room_is() -> None:
    async with running(LIMITS) as node:
        epoch = await epoch_of(node, 3)
        _, far = await node.join("a")
        (joined,) = far.of(Joined)
        assert (joined.id, joined.room, joined.epoch, joined.offset) == ("j", "a", epoch, 3)
        assert not joined.recovered
        assert data_of(far) == []


async def test_a_resume_gets_everything_missed_and_then_the_rest() -> None:
    async with running(LIMITS) as node:
        epoch = await epoch_of(node, 5)
        _, far = await node.join("a", since=f"{epoch}:2")
        await node.publish("a", 6)
        await settle()
        (joined,) = far.of(Joined)
        assert (joined.offset, joined.recovered) == (5, True)
        assert data_of(far) == [3, 4, 5, 6]
        assert [event.offset for event in far.of(Message)] == [3, 4, 5, 6]
        assert far.of(Gap) == []


async def test_a_resume_from_the_top_misses_nothing() -> None:
    async with running(LIMITS) as node:
        epoch = await epoch_of(node, 2)
        _, far = await node.join("a", since=f"{epoch}:2")
        assert [event.recovered for event in far.of(Joined)] == [True]
        assert len(far.got) == 2


@pytest.mark.parametrize(
    ("since", "gap"),
    [
        ("{epoch}:1", (2, 9, "expired")),
        ("{epoch}:3", (4, 9, "too_far")),
        ("{epoch}:12", (10, 12, "ahead")),
        ("another:3", (1, 9, "epoch_changed")),
    ],
)
async def test_a_resume_that_cannot_be_complete_is_told_the_gap_and_replayed_nothing(
    since: str, gap: tuple[int, int, str]
) -> None:
    async with running(LIMITS) as node:
        epoch = await epoch_of(node, 9)
        _, far = await node.join("a", since=since.format(epoch=epoch))
        await node.publish("a", 10)
        await settle()
        assert [event.recovered for event in far.of(Joined)] == [False]
        assert gap_of(far) == gap
        assert data_of(far) == [10]


async def test_events_that_are_too_old_are_expired() -> None:
    async with running(LIMITS) as node:
        _, keeper = await node.join("a")
        epoch = await epoch_of(node, 2)
        await anyio.sleep(61)
        _, far = await node.join("a", since=f"{epoch}:0")
        assert gap_of(far) == (1, 2, "expired")
        assert data_of(keeper) == [1, 2]


@pytest.mark.parametrize(("history", "expected"), [(0, []), (2, [4, 5]), (4, [2, 3, 4, 5])])
async def test_history_replays_the_newest(history: int, expected: list[int]) -> None:
    async with running(LIMITS) as node:
        await epoch_of(node, 5)
        _, far = await node.join("a", history=history)
        assert data_of(far) == expected


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        ({"history": 5}, "limit_exceeded", "history"),
        ({"since": "nonsense"}, "bad_since", "since"),
        ({"since": "e:-1"}, "bad_since", "since"),
    ],
)
async def test_a_join_that_cannot_be_is_refused(
    options: dict[str, Any], code: str, field: str
) -> None:
    async with running(LIMITS) as node:
        actor, far = await node.join("a", **options)
        (error,) = far.of(Error)
        assert (error.code, error.field, error.id) == (code, field, "j")
        assert subscriptions(node) == set()
        await order(actor, "join", room="a")
        assert far.of(Joined)


async def test_a_room_is_joined_once() -> None:
    async with running(LIMITS) as node:
        actor, far = await node.join("a")
        await order(actor, "join", room="a")
        await node.publish("a", 1)
        await settle()
        assert [error.code for error in far.of(Error)] == ["already_joined"]
        assert data_of(far) == [1]


async def test_a_room_that_was_not_joined_cannot_be_left() -> None:
    async with running(LIMITS) as node:
        _, _ = await node.join("a")
        actor, far = await node.join("b")
        await order(actor, "leave", id=1, room="a")
        assert [(error.code, error.id) for error in far.of(Error)] == [("not_joined", 1)]


async def test_a_connection_joins_so_many_rooms_and_no_more() -> None:
    async with running(LIMITS) as node:
        actor, far = await node.join("a")
        await order(actor, "join", room="b")
        await order(actor, "join", room="c")
        (error,) = far.of(Error)
        assert (error.code, error.setting) == ("limit_exceeded", "limits.rooms_per_connection")
        await order(actor, "leave", room="a")
        await order(actor, "join", room="c")
        assert node.manager.fanout.rooms.joined(actor) == {"dev/b", "dev/c"}


async def test_a_room_too_many_is_refused() -> None:
    async with running(Limits(rooms=1)) as node:
        _, _ = await node.join("a")
        _, far = await node.join("b")
        assert [error.code for error in far.of(Error)] == ["room_limit"]
        assert subscriptions(node) == {"dev/a"}


async def test_the_first_member_subscribes_and_the_last_one_ends_it() -> None:
    async with running(LIMITS) as node:
        first, _ = await node.join("a")
        _, far = await node.join("a")
        await order(first, "leave", room="a")
        assert subscriptions(node) == {"dev/a"}
        far.vanish()
        await settle()
        assert subscriptions(node) == set()
        assert len(node.manager.membership._gates) == 0
        assert node.manager.fanout._positions == {}


async def test_what_is_published_while_a_recovery_is_on_its_way_is_recovered_too() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node:
        await epoch_of(node, 2)

        async def meanwhile() -> None:
            await node.publish("a", 3)

        plane.meanwhile = meanwhile
        _, far = await node.join("a", history=4)
        await node.publish("a", 4)
        await settle()
        assert data_of(far) == [1, 2, 3, 4]
        assert [event.offset for event in far.of(Joined)] == [3]


async def test_it_is_recovered_also_when_the_only_member_has_left_meanwhile() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node, anyio.create_task_group() as tasks:
        other, _ = await node.join("a")

        async def meanwhile() -> None:
            await node.publish("a", 1)
            tasks.start_soon(lambda: order(other, "leave", room="a"))
            await settle()

        plane.meanwhile = meanwhile
        _, far = await node.join("a")
        await node.publish("a", 2)
        await settle()
        assert data_of(far) == [1, 2]


async def test_two_losses_in_a_row_are_told_as_one() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node:
        epoch = await epoch_of(node, 9)

        async def meanwhile() -> None:
            for number in range(10, 16):
                await node.publish("a", number)

        plane.meanwhile = meanwhile
        _, far = await node.join("a", since=f"{epoch}:1")
        await node.publish("a", 16)
        await settle()
        assert gap_of(far) == (2, 15, "expired")
        assert data_of(far) == [16]


async def test_a_loss_after_a_recovery_is_told_beside_it() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node:
        epoch = await epoch_of(node, 3)

        async def meanwhile() -> None:
            for number in range(4, 10):
                await node.publish("a", number)

        plane.meanwhile = meanwhile
        _, far = await node.join("a", since=f"{epoch}:1")
        assert gap_of(far) == (4, 9, "too_far")
        assert data_of(far) == [2, 3]


async def test_a_connection_that_ends_while_it_joins_leaves_no_trace() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node:
        actor, far = node.connect()

        async def meanwhile() -> None:
            actor.close(NORMAL)

        plane.meanwhile = meanwhile
        await order(actor, "join", room="a")
        assert far.of(Joined) == []
        assert subscriptions(node) == set()
        assert len(node.manager.fanout.rooms) == 0


async def test_a_join_that_is_cancelled_leaves_no_subscription() -> None:
    plane = DistantBackplane(LIMITS.history, 100, FakeClock(), [1.0])
    async with running(LIMITS, plane) as node:
        for patience in (0.5, 1.5, 2.5, 3.5):
            actor, _ = node.connect()
            with anyio.move_on_after(patience) as scope:
                await order(actor, "join", room="a")

            assert scope.cancelled_caught
            assert subscriptions(node) == set()

        assert node.manager.fanout._positions == {}
        assert len(node.manager.membership._gates) == 0


async def test_a_leave_that_is_cancelled_still_ends_the_subscription() -> None:
    plane = DistantBackplane(LIMITS.history, 100, FakeClock(), [1.0])
    async with running(LIMITS, plane) as node:
        actor, _ = await node.join("a")
        with anyio.move_on_after(0.5):
            await order(actor, "leave", room="a")

        assert subscriptions(node) == set()


async def test_a_join_that_fails_leaves_no_subscription() -> None:
    plane = interrupted()
    async with running(LIMITS, plane) as node:

        async def meanwhile() -> None:
            raise SessionEnd(NORMAL)

        plane.meanwhile = meanwhile
        _, far = await node.join("a")
        assert far.closed == NORMAL
        assert subscriptions(node) == set()


async def test_those_who_join_a_room_at_once_take_turns() -> None:
    plane = DistantBackplane(LIMITS.history, 100, FakeClock(), [1.0])
    async with running(LIMITS, plane) as node, anyio.create_task_group() as tasks:
        ears = [node.connect() for _ in range(3)]
        for actor, _ in ears:
            tasks.start_soon(partial(order, actor, "join", room="a"))

        await anyio.sleep(30)
        await node.publish("a", 1)
        await anyio.sleep(2)
        assert [data_of(far) for _, far in ears] == [[1], [1], [1]]


async def test_a_room_that_was_forgotten_can_be_joined_again() -> None:
    plane = DistantBackplane(LIMITS.history, 100, FakeClock(), [1.0])
    async with running(LIMITS, plane) as node:
        actor, _ = await node.join("a")
        await node.publish("a", 1)
        epoch = (await node.backplane.recover("dev/a", None, 0)).top.epoch
        await order(actor, "leave", room="a")
        await anyio.sleep(100)
        assert await plane.rooms("dev") == []
        with anyio.fail_after(10):
            _, far = await node.join("a", since=f"{epoch}:1")

        assert gap_of(far) == (1, 0, "epoch_changed")


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_long_replay_leaves_turns_to_others_and_loses_nothing_of_what_they_say(
    stalled: bool,
) -> None:
    async with running() as node:
        for number in range(200):
            await node.publish("a", [number, "x" * 2000])

        turns = 0
        (actor, far), (other, ear) = node.connect(), node.connect()
        await order(other, "join", room="a")
        if stalled:
            far.stall()

        async def publish() -> None:
            nonlocal turns
            while "dev/a" not in node.manager.fanout.rooms.joined(actor):
                await node.publish("a", [200 + turns, ""])
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            await order(actor, "join", room="a", history=200)

        await node.publish("a", [200 + turns, "last"])
        await settle()
        if stalled:
            far.resume()
            await settle()

        assert turns >= 200 * 2000 // PIECE
        heard = [each[0] for each in data_of(far) if isinstance(each, list)]
        assert heard == list(range(heard[0], 201 + turns))
        assert len(heard) >= 200
        assert len(data_of(ear)) == turns + 1


async def test_who_ends_during_a_long_replay_joins_nothing() -> None:
    async with running() as node:
        for number in range(200):
            await node.publish("a", [number, "x" * 2000])

        actor, far = node.connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(order, actor, "join", room="a", history=200))
            while not far.of(Message):
                await anyio.lowlevel.checkpoint()

            actor.gone(1006)

        assert len(far.of(Message)) < 200
        assert "dev/a" not in node.manager.fanout.rooms
        assert subscriptions(node) == set()


async def test_many_rooms_are_given_up_a_few_in_a_turn() -> None:
    async with running(msgspec.structs.replace(LIMITS, rooms_per_connection=5 * AT_ONCE)) as node:
        actor, _ = node.connect()
        for number in range(5 * AT_ONCE):
            await order(actor, "join", room=f"room-{number}")

        left = [len(subscriptions(node))]
        assert left == [5 * AT_ONCE]
        actor.gone(1006)
        while left[-1]:
            await anyio.lowlevel.checkpoint()
            left.append(len(subscriptions(node)))

        # trio may run the other task twice between two of our turns
        assert max(before - after for before, after in pairwise(left)) <= 2 * AT_ONCE
