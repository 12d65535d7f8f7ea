"""Messages on their way to the backplane: counted, and a broadcast is all or nothing."""

from __future__ import annotations

import msgspec
import pytest

from actors.errors import Refused
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
        with pytest.raises(Refused, match="cover"):
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

        assert refusal.value.setting == "tenants.dev.quotas.bytes_burst"
        assert refusal.value.retry_after == 0
