"""Messages on their way to the backplane: counted, and a broadcast is all or nothing."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from actors.errors import Refused
from actors.log import Position, Repeated
from actors.meter import Meters
from actors.principal import Grant, Principal
from actors.publisher import Publisher
from actors.quota import UNLIMITED
from tests.actors.node import data_of, running
from tests.autojump import settle

pytestmark = pytest.mark.anyio
LIMITED = msgspec.structs.replace(
    UNLIMITED, publishes_per_second=1, publishes_burst=2, bytes_per_second=100, bytes_burst=200
)


async def test_a_broadcast_goes_to_every_room_or_to_none() -> None:
    async with running() as node:
        node.manager.meters.quotas_of = lambda tenant: LIMITED
        ears = [(await node.join(room))[1] for room in "abcde"]
        principal = Principal("dev")
        assert len(await node.manager.broadcast(principal, 1)) == 5
        with pytest.raises(Refused) as refusal:
            await node.manager.broadcast(principal, 2)

        assert refusal.value.code == "quota_exceeded"
        await settle()
        assert [data_of(ear) for ear in ears] == [[1]] * 5


async def test_what_is_published_is_counted_and_what_is_refused_is_not() -> None:
    async with running() as node:
        meters = Meters(node.clock.monotonic)
        publisher = Publisher(node.backplane, meters, node.clock)
        mute = Principal("dev", grants=(Grant("*", ("listen",)),))
        with pytest.raises(Refused, match="publish to this room"):
            await publisher.send(mute, "a", 1)

        assert (await publisher.send(Principal("dev"), "a", 1)).offset == 1
        usage = meters.of("dev").usage(0.0)
        assert (publisher.messages, publisher.bytes) == (1, usage.published_bytes)
        assert usage.publishes == 1
        assert usage.published_bytes > 10


async def test_a_message_above_the_burst_of_bytes_is_refused_for_good() -> None:
    async with running() as node:
        node.manager.meters.quotas_of = lambda tenant: LIMITED
        with pytest.raises(Refused) as refusal:
            await node.publish("a", "x" * 300)

        wanted = ("too_big", "tenants.dev.quotas.bytes_burst", 0.0)
        refused = refusal.value
        assert (refused.code, refused.setting, refused.retry_after) == wanted


async def test_what_is_sent_again_under_its_key_spends_no_quota() -> None:
    async with running() as node:
        node.manager.meters.quotas_of = lambda tenant: LIMITED
        send, everybody = node.manager.send_message, Principal("dev")
        first = await send(everybody, "a", "x" * 30, "k")
        for _ in range(10):
            again = await send(everybody, "a", "x" * 30, "k")
            assert again == Repeated(first.epoch, first.offset)

        await send(everybody, "a", "x" * 30, "l")
        with pytest.raises(Refused, match="publishes_per_second"):
            await send(everybody, "a", 1, "m")

        assert await send(everybody, "a", 1, "k") == again
        assert node.manager.meters.of("dev").publishes == 2
        mute = Principal("dev", grants=(Grant("*", ("listen",)),))
        with pytest.raises(Refused, match="publish to this room"):
            await send(mute, "a", 1, "k")


async def test_a_broadcast_that_is_sent_again_costs_the_rooms_that_missed_it() -> None:
    async with running() as node:
        node.manager.meters.quotas_of = lambda tenant: LIMITED
        ears = {room: (await node.join(room))[1] for room in "ac"}
        for _ in range(5):
            places = await node.manager.broadcast(Principal("dev"), 1, "k")

        assert [type(place) for place in places] == [Repeated, Repeated]
        with pytest.raises(Refused, match="publishes_per_second"):
            await node.publish("a", 2)

        await anyio.sleep(1)
        ears["b"] = (await node.join("b"))[1]
        places = await node.manager.broadcast(Principal("dev"), 1, "k")
        assert [type(place) for place in places].count(Position) == 1
        await settle()
        assert {room: data_of(ear) for room, ear in ears.items()} == {room: [1] for room in "abc"}
