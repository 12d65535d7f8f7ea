"""From a room's batch to the sockets of its members."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from actors.errors import RESTART
from actors.fanout import BATCH, Fanout, View
from actors.limits import Egress, History, Limits
from actors.log import Position
from actors.messages import Transcript
from actors.meter import Meters
from actors.principal import Principal
from actors.wire import Burst
from tests.actors.node import Node, data_of, message, order, running, transcript
from tests.autojump import settle
from tests.fakes import FakeTransport, HandClock

pytestmark = pytest.mark.anyio


class Broken(FakeTransport):
    """A socket with a bug."""

    def write(self, burst: Burst) -> None:
        """Fail at the first event of a room."""
        if burst.first_offset:
            raise ZeroDivisionError("a bug")

        super().write(burst)


async def test_events_of_one_tick_leave_together() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        for count in range(3):
            await node.publish("a", count)

        assert data_of(far) == []
        await settle()
        assert data_of(far) == [0, 1, 2]
        assert actor.open


async def test_a_batch_that_is_full_leaves_at_once() -> None:
    async with running() as node:
        _, far = await node.join("a")
        for count in range(BATCH):
            await node.publish("a", count)

        assert data_of(far) == list(range(BATCH))


async def test_a_listener_without_partials_gets_finals_only() -> None:
    async with running() as node:
        _, plain = await node.join("a", partials=False)
        _, full = await node.join("a")
        _, _, stream = await node.speak("a")
        stream.transcribe("part", final=False)
        stream.transcribe("whole", revision=1)
        await settle()
        assert [event.text for event in plain.of(Transcript)] == ["whole"]
        assert [event.text for event in full.of(Transcript)] == ["part", "whole"]


async def test_no_member_gets_the_events_of_another_room_or_tenant() -> None:
    async with running() as node:
        ears = {
            (tenant, room): (await node.join(room, tenant=tenant))[1]
            for tenant in ("dev", "other")
            for room in ("a", "b")
        }
        for tenant, room in ears:
            await node.publish(room, [tenant, room], tenant=tenant)

        await settle()
        for (tenant, room), far in ears.items():
            assert data_of(far) == [[tenant, room]]


async def test_who_leaves_gets_what_was_pending() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        await node.publish("a", "before")
        await order(actor, "leave", room="a")
        await node.publish("a", "after")
        await settle()
        assert data_of(far) == ["before"]


async def test_who_joins_does_not_get_what_was_pending_twice() -> None:
    async with running() as node:
        _, first = await node.join("a")
        await node.publish("a", 1)
        _, second = await node.join("a", history=5)
        await node.publish("a", 2)
        await settle()
        assert data_of(first) == data_of(second) == [1, 2]


async def test_a_bug_in_the_socket_of_one_member_is_the_end_of_that_member_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        _, before = await node.join("a")
        transport = Broken()
        actor = node.manager.connect("connect", before.actor.principal, transport)  # type: ignore[union-attr]
        transport.actor = actor
        await order(actor, "join", room="a")
        _, after = await node.join("a")
        for count in range(3):
            await node.publish("a", count)
            await settle()

        assert data_of(before) == data_of(after) == [0, 1, 2]
        assert node.observer.ended == [1011]
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_member_that_is_cut_in_the_middle_of_a_burst_takes_nobody_along() -> None:
    limits = Limits(egress=Egress(messages=2), history=History(replay=1))
    async with running(limits) as node:
        slow, stalled = await node.join("a")
        _, quick = await node.join("a")
        stalled.stall()
        for count in range(4):
            await node.publish("a", count)

        await settle()
        assert not slow.open
        assert data_of(quick) == [0, 1, 2, 3]


async def test_closing_delivers_what_other_rooms_wait_for() -> None:
    async with running() as node:
        _, far = await node.join("a")
        other, _ = await node.join("b")
        await node.publish("a", 1)
        other.close(RESTART)
        assert data_of(far) == [1]


async def test_deliveries_are_counted_in_events_and_bytes() -> None:
    async with running() as node:
        for _ in range(3):
            await node.join("a")

        await node.publish("a", "x")
        await node.publish("nobody-is-here", "x")
        await settle()
        fanout = node.manager.fanout
        size = node.manager.backplane.stock.bytes // 2
        assert fanout.deliveries == 3
        assert 0 < fanout.delivered_bytes < 3 * size + 100


def test_positions_are_noted_while_a_room_is_subscribed() -> None:
    fanout = Fanout(HandClock(), Meters(HandClock().monotonic), 200)
    fanout.deliver("t/a", message(9))
    assert not fanout.passed("t/a", Position("e", 8))
    fanout.expect("t/a")
    assert not fanout.passed("t/a", Position("e", 8))
    fanout.deliver("t/a", message(9))
    fanout.deliver("t/a", transcript("s", False))
    fanout.expect("t/a")
    assert fanout.passed("t/a", Position("e", 8))
    assert not fanout.passed("t/a", Position("e", 9))
    assert not fanout.passed("t/a", Position("another", 8))
    fanout.forget("t/a")
    fanout.forget("t/a")
    fanout.deliver("t/a", message(10))
    assert not fanout.passed("t/a", Position("e", 8))


def test_a_view_leaves_out_what_was_replayed() -> None:
    burst = Burst([message(4), transcript("s", False), message(5)])
    assert View(True, "e", 4).of(burst).frames == burst.frames[1:]
    assert View(False, "e", 4).of(burst).frames == burst.frames[2:]
    assert View(True, "e", 3).of(burst) is burst
    assert View(True, "another", 4).of(burst).frames == burst.frames
    assert list(View(False, "e", 9).of(burst).frames) == []


async def test_what_comes_before_the_flusher_runs_waits_for_it() -> None:
    node = Node(Limits(), None)
    actor, far = node.connect()
    fanout = node.manager.fanout
    fanout.join(actor, "t/a", View())
    fanout.deliver("t/a", message(1, "x"))
    assert data_of(far) == []
    fanout.flush()
    assert data_of(far) == ["x"]


async def test_the_flusher_rests_while_nothing_is_published() -> None:
    async with running() as node:
        _, far = await node.join("a")
        await anyio.sleep(100)
        await node.publish("a", 1)
        await settle()
        assert data_of(far) == [1]


class Heavy(FakeTransport):
    """A socket that takes its time, as a thousand of them do."""

    clock: HandClock

    def write(self, burst: Burst) -> None:
        """Take four milliseconds for a write."""
        self.clock.now += 0.004
        super().write(burst)


@asynccontextmanager
async def flushing(coalesce: float = 0.0) -> AsyncIterator[tuple[Fanout, Heavy]]:
    """Run a flusher with one member whose writes take time."""
    clock, far = HandClock(), Heavy()
    far.clock = clock
    fanout = Fanout(clock, Meters(clock.monotonic), 200)
    fanout.coalesce = coalesce
    manager = Node(Limits(), None).manager
    far.actor = manager.connect("listen", Principal("t"), far)
    fanout.join(far.actor, "t/a", View())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fanout.run)
        await settle()
        yield fanout, far
        tasks.cancel_scope.cancel()


async def test_after_a_long_flush_what_comes_gathers_for_twice_as_long() -> None:
    async with flushing() as (fanout, far):
        for number in (1, 2, 3):
            fanout.deliver("t/a", message(number, number))
            await settle()
            assert data_of(far) == [1]
            await anyio.sleep(0.0025)

        await anyio.sleep(0.001)
        await settle()
        assert data_of(far) == [1, 2, 3]


async def test_who_publishes_less_often_waits_for_nothing() -> None:
    async with flushing() as (fanout, far):
        for number in (1, 2, 3):
            fanout.deliver("t/a", message(number, number))
            await settle()
            assert data_of(far)[-1] == number
            await anyio.sleep(0.02)


async def test_coalescing_gathers_for_the_time_that_is_set() -> None:
    async with flushing(coalesce=0.05) as (fanout, far):
        for number in (1, 2, 3):
            fanout.deliver("t/a", message(number, number))
            await settle()
            assert data_of(far) == []
            await anyio.sleep(0.01)

        await anyio.sleep(0.025)
        await settle()
        assert data_of(far) == [1, 2, 3]


async def test_a_part_of_a_burst_counts_for_what_it_is() -> None:
    fanout = Fanout(HandClock(), Meters(HandClock().monotonic), 200)
    manager = Node(Limits(), None).manager
    views = [View(), View(partials=False), View(epoch="e", after=1), View(epoch="e", after=9)]
    for view in views:
        far = FakeTransport()
        far.actor = manager.connect("listen", Principal("t"), far)
        fanout.join(far.actor, "t/a", view)

    frames = [message(1), transcript("s", final=False), message(2)]
    for frame in frames:
        fanout.deliver("t/a", frame)

    fanout.flush()
    one, part, two = (len(frame.json) for frame in frames)
    assert fanout.deliveries == 3 + 2 + 2 + 1
    assert fanout.delivered_bytes == (one + part + two) + (one + two) + (part + two) + part
    fanout.deliver("t/a", message(3))
    fanout.flush()
    assert fanout.deliveries == 8 + 3
