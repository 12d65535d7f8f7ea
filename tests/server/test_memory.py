"""The backplane of a single node: what it keeps, for how long, and how much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.limits import History
from actors.log import Position
from actors.quota import Quotas
from server.backplanes.memory import MemoryBackplane
from server.backplanes.once import KEEP
from tests.autojump import virtual_time
from tests.contracts import BACKPLANE, BackplaneCheck, Heard, check_backplane, say
from tests.fakes import FakeClock, HandClock

pytestmark = pytest.mark.anyio
LIMITS = History(messages=5, bytes=2000, age=10, replay=4)
keys = st.sampled_from(["t/a", "t/b", "u/a"])


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run every case on both backends, in virtual time."""
    return virtual_time(request.param)


@asynccontextmanager
async def running(plane: MemoryBackplane) -> AsyncIterator[Heard]:
    """Let a backplane deliver, for the length of a test."""
    heard, ready = Heard(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plane.run, heard.deliver, ready.set)
        await ready.wait()
        yield heard
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("check", BACKPLANE)
async def test_it_keeps_the_contract_of_a_backplane(check: BackplaneCheck) -> None:
    await check_backplane(MemoryBackplane(History(), 100, FakeClock()), check)


async def test_a_key_is_kept_for_its_time_and_one_too_many_is_refused() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock, max_keys=2)
    for once in ("a", "b"):
        await plane.publish_once("t/a", say(once), once)

    with pytest.raises(Refused) as refusal:
        await plane.publish_once("t/a", say("c"), "c")

    assert (refusal.value.code, refusal.value.setting) == ("overload", "limits.publish_keys")
    assert refusal.value.retry_after == KEEP
    assert await plane.repeats("t/a", "c") is None
    assert (await plane.publish_once("t/a", say("b"), "b")).offset == 2
    assert (await plane.publish_once("u/a", say("c"), "c")).offset == 1
    clock.now = KEEP
    assert (await plane.publish_once("t/a", say("a"), "a")).offset == 3
    plane.sweep(2 * KEEP)
    assert len(plane._once) == 0


async def test_a_refused_publish_uses_no_key() -> None:
    plane = MemoryBackplane(LIMITS, 1, HandClock())
    await plane.publish("t/a", say(1))
    for _ in range(2):
        with pytest.raises(Refused, match="rooms"):
            await plane.publish_once("t/b", say(1), "k")

    assert len(plane._once) == 0


async def test_a_delivery_is_a_function_call() -> None:
    plane = MemoryBackplane(LIMITS, 10, HandClock())
    async with running(plane) as heard:
        await plane.subscribe("t/a")
        await plane.publish("t/a", say(1))
        await plane.relay("t/a", say(2))
        assert heard.data == [1, 2]

    await plane.publish("t/a", say(3))
    assert heard.data == [1, 2]


async def test_each_room_has_an_epoch_of_its_own() -> None:
    plane = MemoryBackplane(LIMITS, 10, HandClock())
    places = [await plane.publish(key, say(1)) for key in ("t/a", "t/b", "u/a")]
    assert len({place.epoch for place in places}) == 3
    assert {place.offset for place in places} == {1}


async def test_a_room_too_many_is_refused_until_another_is_forgotten() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 2, clock)
    await plane.subscribe("t/a")
    await plane.publish("t/b", say(1))
    for attempt in (plane.subscribe("t/c"), plane.publish("u/c", say(1))):
        with pytest.raises(Refused) as refusal:
            await attempt

        assert (refusal.value.code, refusal.value.setting) == ("room_limit", "limits.rooms")

    assert len(plane) == 2
    clock.now = 11
    plane.sweep(clock.now)
    await plane.subscribe("t/c")
    assert sorted(await plane.rooms("t")) == ["t/a", "t/c"]


async def test_a_room_with_a_listener_is_not_forgotten() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    await plane.subscribe("t/a")
    place = await plane.publish("t/a", say(1))
    clock.now = 1000
    plane.sweep(clock.now)
    assert (await plane.recover("t/a", None, 0)).top == place
    await plane.unsubscribe("t/a")
    clock.now = 1010
    plane.sweep(clock.now)
    assert (await plane.recover("t/a", None, 0)).top == place
    clock.now = 1011
    plane.sweep(clock.now)
    assert await plane.rooms("t") == []


async def test_a_publish_keeps_a_room_without_listeners_alive() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    for key in ("t/a", "t/b"):
        await plane.publish(key, say(1))

    clock.now = 9
    await plane.publish("t/a", say(2))
    clock.now = 11
    plane.sweep(clock.now)
    assert await plane.rooms("t") == ["t/a"]


async def test_a_forgotten_room_begins_another_epoch() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    before = await plane.publish("t/a", say(1))
    clock.now = 11
    plane.sweep(clock.now)
    after = await plane.publish("t/a", say(2))
    assert (after.offset, after.epoch != before.epoch) == (1, True)
    recovery = await plane.recover("t/a", before, 0)
    assert recovery.missing is not None
    assert recovery.missing.reason == "epoch_changed"


async def test_a_recovery_lets_go_of_what_is_too_old_first() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    await plane.subscribe("t/a")
    place = await plane.publish("t/a", say(1))
    clock.now = 11
    recovery = await plane.recover("t/a", Position(place.epoch, 0), 0)
    assert recovery.missing is not None
    assert recovery.missing.reason == "expired"
    assert (plane.stock.events, plane.stock.bytes) == (0, 0)


async def test_a_room_too_many_of_a_tenant_takes_the_place_of_its_idlest() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    plane.quotas_of = lambda tenant: Quotas(history_rooms=2)
    await plane.publish("u/a", say(1))
    for key in ("t/a", "t/b"):
        clock.now += 1
        await plane.publish(key, say(1))

    await plane.subscribe("t/a")
    await plane.publish("t/c", say(1))
    assert await plane.rooms("t") == ["t/a", "t/c"]
    assert await plane.rooms("u") == ["u/a"]
    await plane.subscribe("t/c")
    with pytest.raises(Refused) as refusal:
        await plane.publish("t/d", say(1))

    quota = "tenants.t.quotas.history_rooms"
    assert (refusal.value.code, refusal.value.setting) == ("quota_exceeded", quota)
    assert refusal.value.retry_after > 0
    assert plane.stock.evicted == 1


async def test_rooms_that_never_had_an_event_push_out_none_that_has() -> None:
    plane = MemoryBackplane(LIMITS, 100, HandClock())
    plane.quotas_of = lambda tenant: Quotas(history_rooms=5)
    for key in ("t/a", "t/b", "t/c"):
        await plane.publish(key, say(1))

    for number in range(20):
        await plane.subscribe(f"t/junk-{number}")
        await plane.unsubscribe(f"t/junk-{number}")
        await plane.recover(f"t/asked-{number}", None, 0)

    assert set(await plane.rooms("t")) >= {"t/a", "t/b", "t/c"}
    assert plane.stock.evicted == 0


async def test_bytes_too_many_of_a_tenant_take_the_history_of_its_quietest_room() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    plane.quotas_of = lambda tenant: Quotas(history_bytes=900)
    await plane.subscribe("t/a")
    for key in ("u/a", "t/a", "t/b", "t/b"):
        place = await plane.publish(key, say("x" * 50))

    before = plane.stock.bytes
    assert 800 < before < 1200  # three of this tenant fit, a fourth does not
    await plane.publish("t/b", say("x" * 50))
    recoveries = [await plane.recover(key, None, 10) for key in ("u/a", "t/a", "t/b")]
    assert [len(each.frames) for each in recoveries] == [1, 0, 3]
    assert recoveries[1].top.offset == 1
    assert plane.stock.evicted == 1
    missed = await plane.recover("t/a", Position(recoveries[1].top.epoch, 0), 0)
    assert missed.missing is not None
    assert missed.missing.reason == "expired"
    await plane.publish("t/b", say("x" * 50))
    recovery = await plane.recover("t/b", Position(place.epoch, 1), 10)
    assert [each.offset for each in recovery.frames] == [2, 3, 4]
    assert plane.stock.evicted == 2


async def test_quotas_that_are_lowered_hold_within_a_second() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    for key in ("t/a", "t/b", "t/c", "u/a"):
        await plane.publish(key, say("x" * 50))

    await plane.subscribe("t/a")
    plane.quotas_of = lambda tenant: Quotas(history_rooms=2, history_bytes=400)
    plane.sweep(clock.now)
    assert sorted(await plane.rooms("t")) == ["t/a", "t/c"]
    counted = await plane.remembered("t")
    assert (counted.rooms, counted.events) == (2, 1)
    assert (await plane.remembered("u")).events == 1


async def test_a_tenant_has_limits_of_its_own_and_others_the_next_second() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    histories = {"t": History(age=5), "u": History(age=50)}
    plane.history_of = lambda tenant: histories[tenant]
    for key in ("t/a", "u/a"):
        await plane.publish(key, say(1))

    clock.now = 6
    plane.sweep(clock.now)
    assert (await plane.rooms("t"), await plane.rooms("u")) == ([], ["u/a"])
    for _ in range(3):
        await plane.publish("u/a", say(1))

    histories["u"] = History(messages=2)
    plane.sweep(clock.now)
    await plane.publish("u/a", say(1))
    assert len((await plane.recover("u/a", None, 10)).frames) == 2


async def test_ending_a_subscription_that_never_was_changes_nothing() -> None:
    plane = MemoryBackplane(LIMITS, 10, HandClock())
    await plane.unsubscribe("t/a")
    assert len(plane) == 0


async def test_what_the_node_says_to_itself_is_not_counted_as_history() -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    await plane.publish("~probe", say(None))
    assert (plane.stock.events, plane.stock.bytes) == (0, 0)
    clock.now = 11
    plane.sweep(clock.now)
    assert (plane.stock.events, plane.stock.bytes, len(plane)) == (0, 0, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["publish", "subscribe", "unsubscribe", "recover", "sweep"]),
            keys,
            st.integers(0, 8),
        ),
        max_size=30,
    )
)
async def test_it_counts_what_it_keeps(script: list[tuple[str, str, int]]) -> None:
    clock = HandClock()
    plane = MemoryBackplane(LIMITS, 10, clock)
    for verb, key, pause in script:
        clock.now += pause
        match verb:
            case "publish":
                await plane.publish(key, say("x" * pause))
            case "subscribe":
                await plane.subscribe(key)
            case "unsubscribe":
                await plane.unsubscribe(key)
            case "recover":
                await plane.recover(key, None, pause)
            case _:
                plane.sweep(clock.now)

        logs = {key: log for each in plane._shelves.values() for key, log in each.logs.items()}
        assert plane.stock.events == sum(map(len, logs.values()))
        assert plane.stock.bytes == sum(log.bytes for log in logs.values())
        listed = [room for tenant in ("t", "u") for room in await plane.rooms(tenant)]
        assert sorted(listed) == sorted(logs)
        idle = {key for each in plane._shelves.values() for key in (*each._idle, *each._blank)}
        assert idle == set(logs) - plane._wanted

    clock.now += 100
    for key in ("t/a", "t/b", "u/a"):
        await plane.unsubscribe(key)

    clock.now += 100
    plane.sweep(clock.now)
    assert (plane._shelves, plane._wanted) == ({}, set())
    assert (plane.stock.rooms, plane.stock.events, plane.stock.bytes) == (0, 0, 0)
