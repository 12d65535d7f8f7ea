"""Who would go too fast waits for a turn, in the order of coming, and no longer than it must."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from actors.commands import Join
from actors.messages import Ack, Joined, Message
from actors.pace import LOOK_EVERY, Pace
from actors.principal import Principal
from tests.actors.node import order, running
from tests.actors.test_meter import limit

pytestmark = pytest.mark.anyio


def paced(rate: float, burst: float) -> Pace:
    """Make a line before a bucket."""
    pace = Pace()
    pace.adopt(rate, burst, anyio.current_time())
    return pace


async def times(pace: Pace, count: int, amount: float = 1.0) -> list[float]:
    """Let so many come at the same moment; return when each of them went on, in their order."""
    began, went = anyio.current_time(), dict[int, float]()

    async def come(number: int) -> None:
        await pace.turn(anyio.current_time, amount)
        went[number] = anyio.current_time() - began

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(come, number)
            await anyio.wait_all_tasks_blocked()

    assert pace.waiting == 0
    return [went[number] for number in range(count)]


async def test_what_a_burst_holds_goes_on_at_once_and_the_rest_as_the_bucket_refills() -> None:
    went = await times(paced(10, 3), 8)
    assert went[:4] == [0.0] * 4
    assert went == sorted(went)
    assert went[4:] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.001)


async def test_without_a_rate_nobody_waits() -> None:
    assert await times(Pace(), 100, 1e9) == [0.0] * 100


async def test_what_was_had_is_paid_by_the_next() -> None:
    pace = paced(100, 10)
    assert await times(pace, 1, 0.0) == [0.0]
    pace.spend(60, anyio.current_time())
    assert await times(pace, 1) == pytest.approx([0.5], abs=0.001)


async def test_who_waits_goes_by_a_rate_that_is_adopted_meanwhile() -> None:
    pace = paced(1, 1)
    pace.spend(1000, anyio.current_time())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pace.turn, anyio.current_time)
        await anyio.wait_all_tasks_blocked()
        pace.adopt(0, 1, anyio.current_time())
        with anyio.fail_after(LOOK_EVERY + 0.1):
            await pace.turn(anyio.current_time)

    assert pace.waiting == 0


async def test_who_gives_up_leaves_the_line() -> None:
    pace = paced(1, 1)
    pace.spend(3, anyio.current_time())
    with anyio.move_on_after(0.5):
        await pace.turn(anyio.current_time)

    assert pace.waiting == 0
    assert await times(pace, 1) == pytest.approx([1.5], abs=0.01)


async def test_commands_beyond_the_quota_wait_and_are_carried_out() -> None:
    async with running() as node:
        limit(node, commands_per_second=10, commands_burst=5)
        began = anyio.current_time()
        (actor, far), (_, other) = node.connect(), node.connect()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(partial(order, actor, "ping", id=number))

        assert len(far.of(Ack)) == 20
        assert anyio.current_time() - began == pytest.approx(1.4, abs=0.01)
        assert other.of(Ack) == []


async def test_audio_is_no_command() -> None:
    async with running() as node:
        limit(node, commands_per_second=1, commands_burst=1)
        actor, _ = node.connect()
        began = anyio.current_time()
        for _ in range(20):
            await actor.receive(bytes(640))

        assert anyio.current_time() == began


async def test_a_command_that_waited_is_not_obeyed_once_its_connection_is_closed() -> None:
    async with running() as node:
        limit(node, commands_per_second=1, commands_burst=1)
        (actor, _), (ear, far) = node.connect(), node.connect()
        await node.manager.join(ear, Join(room="a"))
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(partial(order, actor, "publish", room="a", data=number))
                await anyio.wait_all_tasks_blocked()

            actor.gone(1006)

        node.manager.flush()
        assert [event.data for event in far.of(Message)] == [0, 1]


async def test_who_asks_for_much_history_waits_for_it_and_others_join_meanwhile() -> None:
    async with running() as node:
        limit(node, replayed_bytes_per_second=1000, replayed_bytes_burst=1000)
        for _ in range(10):
            await node.manager.send_message(Principal("dev"), "a", "x" * 100)

        began = anyio.current_time()
        for history in (10, 10, 0):
            actor, far = node.connect()
            await node.manager.join(actor, Join(room="a", history=history))
            assert len(far.of(Joined)) == 1

        waited = anyio.current_time() - began
        assert 0.5 < waited < 2.0


async def test_who_comes_alone_waits_for_one_of_many_that_are_somebody_else_s() -> None:
    pace, went = paced(10, 1), list[str]()
    pace.spend(2, anyio.current_time())

    async def come(whose: str) -> None:
        await pace.turn(anyio.current_time, 5.0, whose)
        went.append(whose)

    async with anyio.create_task_group() as tasks:
        for whose in ("many", "many", "many", "many", "alone"):
            tasks.start_soon(come, whose)
            await anyio.wait_all_tasks_blocked()

    assert went.index("alone") <= 1
    assert len(pace._lines) == 0
