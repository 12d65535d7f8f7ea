"""The one timer of all connections, on the clock of a loop that jumps."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wheel import SLOTS, TICK, Wheel, wheel_of
from tests.autojump import AutojumpLoop, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on the loop that jumps: an hour takes no time."""
    return virtual_time("asyncio")


class Item:
    """Notes when it was due, and does what the test says."""

    def __init__(self, act: Callable[[], float | None] = lambda: None) -> None:
        self.slot = -1
        self.calls: list[float] = []
        self._act = act

    def due(self) -> float | None:
        """Act."""
        self.calls.append(asyncio.get_running_loop().time())
        return self._act()


def stall(seconds: float) -> None:
    """Let the loop be late by so much."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, AutojumpLoop)
    loop.selector.now += seconds


@pytest.mark.parametrize("seconds", [0.0, 0.01, TICK, 1.0, 1.1, 15.0, (SLOTS - 1) * TICK])
async def test_an_item_is_due_once_and_at_most_a_tick_late(seconds: float) -> None:
    wheel, item = Wheel(), Item()
    wheel.watch(item, seconds)
    await asyncio.sleep(2 * SLOTS * TICK)
    (at,) = item.calls
    assert seconds <= at <= seconds + TICK
    assert item.slot == -1


async def test_an_item_that_returns_seconds_is_due_again() -> None:
    wheel, item = Wheel(), Item(lambda: 1.0)
    wheel.watch(item, 1.0)
    await asyncio.sleep(5.5)
    assert item.calls == [1, 2, 3, 4, 5]


async def test_what_is_later_than_the_wheel_reaches_is_asked_when_it_ends() -> None:
    wheel, item = Wheel(), Item()
    wheel.watch(item, 3600)
    await asyncio.sleep(3600)
    assert item.calls == [(SLOTS - 1) * TICK]


async def test_the_newest_time_counts_whether_it_is_sooner_or_later() -> None:
    wheel, sooner, later = Wheel(), Item(), Item()
    wheel.watch(sooner, 10)
    wheel.watch(sooner, 1)
    wheel.watch(later, 1)
    wheel.watch(later, 10)
    await asyncio.sleep(20)
    assert (sooner.calls, later.calls) == ([1], [10])


async def test_what_is_forgotten_is_not_due() -> None:
    wheel, item, other = Wheel(), Item(), Item()
    wheel.watch(item, 1)
    wheel.watch(other, 1)
    wheel.forget(item)
    wheel.forget(item)
    await asyncio.sleep(10)
    assert (item.calls, other.calls, item.slot) == ([], [1], -1)


async def test_a_late_turn_makes_no_silence_of_the_time_that_was_lost() -> None:
    """Two deadlines a second apart stay so, and nothing is due at once after a stall."""
    wheel, first, second = Wheel(), Item(), Item()
    wheel.watch(first, 1)
    wheel.watch(second, 2)
    await asyncio.sleep(0.1)
    stall(60)
    await asyncio.sleep(0)
    assert first.calls == second.calls == []
    await asyncio.sleep(5)
    assert first.calls == [pytest.approx(60.1 + 1 - TICK)]
    assert second.calls[0] - first.calls[0] == pytest.approx(1)


async def test_a_failing_item_is_logged_once_and_the_others_have_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wheel, good = Wheel(), [Item() for _ in range(20)]
    bad = Item(lambda: 1 // 0)
    for item in (*good[:10], bad, *good[10:]):
        wheel.watch(item, 1)

    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(5)

    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert all(item.calls == [1] for item in (*good, bad))


async def test_an_item_may_set_its_time_or_leave_while_it_is_due() -> None:
    wheel, loop = Wheel(), asyncio.get_running_loop()

    def watch_again() -> None:
        if loop.time() < 3:
            wheel.watch(again, 1)

    again, gone = Item(watch_again), Item(lambda: wheel.forget(gone))
    wheel.watch(again, 1)
    wheel.watch(gone, 1)
    await asyncio.sleep(10)
    assert (again.calls, gone.calls) == ([1, 2, 3], [1])


async def test_an_empty_wheel_has_no_timer() -> None:
    loop = asyncio.get_running_loop()
    wheel, item = Wheel(), Item()
    timers = loop._scheduled  # type: ignore[attr-defined]
    assert timers == []
    wheel.watch(item, 1)
    wheel.watch(Item(), 2)
    assert len(timers) == 1
    await asyncio.sleep(3)
    assert timers == []
    wheel.watch(item, 1)
    wheel.forget(item)
    await asyncio.sleep(TICK)
    assert timers == []
    now = wheel.now
    await asyncio.sleep(3600)
    assert wheel.now == now
    wheel.watch(item, 1)
    await asyncio.sleep(2)
    assert len(item.calls) == 2


async def test_a_loop_has_one_wheel_and_takes_it_along() -> None:
    assert wheel_of(asyncio.get_running_loop()) is wheel_of(asyncio.get_running_loop())
    other = asyncio.new_event_loop()
    wheel = weakref.ref(wheel_of(other))
    assert wheel() is not wheel_of(asyncio.get_running_loop())
    other.close()
    del other
    gc.collect()
    assert wheel() is None


steps = st.lists(
    st.tuples(st.integers(0, 4), st.none() | st.floats(0, 300) | st.just("turn")), max_size=40
)


@given(steps)
async def test_an_item_is_in_one_slot_at_most(steps: list[tuple[int, float | str | None]]) -> None:
    wheel, items = Wheel(), [Item() for _ in range(5)]
    for number, what in steps:
        match what:
            case None:
                wheel.forget(items[number])
            case float():
                wheel.watch(items[number], what)
                distance = (items[number].slot - wheel.now) % SLOTS
                assert distance == min(SLOTS - 1, max(1, math.ceil(what / TICK)))
            case _:
                await asyncio.sleep(TICK * (number + 1))

        places = [list(slot) for slot in wheel._slots]
        for item in items:
            assert [item in slot for slot in places].count(True) == (item.slot >= 0)
            assert item.slot < 0 or item in places[item.slot]

        assert wheel._size == sum(map(len, places))
