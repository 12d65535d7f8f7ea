"""The numbers of a node, taken from one that has worked."""

from __future__ import annotations

import pytest

from actors.limits import Egress, History, Ingress, Limits, Upstream
from actors.statistics import ChannelStatistics, EngineStatistics, NodeStatistics
from tests.actors.node import SECOND, order, running
from tests.autojump import settle

pytestmark = pytest.mark.anyio
LIMITS = Limits(
    ingress=Ingress(frames=4),
    upstream=Upstream(frames=5, policy="drop_oldest"),
    egress=Egress(messages=6),
    history=History(replay=3),
)


def test_nothing_has_happened_at_first() -> None:
    assert NodeStatistics().connections == {}
    assert ChannelStatistics().depth == EngineStatistics().streams == 0


async def test_connections_and_memberships_are_counted() -> None:
    async with running(LIMITS) as node:
        first, _ = await node.join("a")
        await order(first, "join", room="b")
        await node.join("a")
        node.connect("listen")
        counted = node.manager.statistics()
        assert counted.connections == {("connected", "connect"): 2, ("connected", "listen"): 1}
        assert (counted.rooms, counted.subscriptions) == (2, 3)
        assert node.observer.opened == ["connect", "connect", "listen"]


async def test_publishes_and_deliveries_are_counted() -> None:
    async with running(LIMITS) as node:
        for _ in range(2):
            await node.join("a")

        await node.publish("a", 1)
        await node.publish("b", 1)
        _, _, stream = await node.speak("a")
        stream.transcribe("p", final=False)
        stream.transcribe("f", revision=1)
        await settle()
        counted = node.manager.statistics()
        assert counted.publishes == {"message": 2, "final": 1, "partial": 1}
        assert counted.deliveries == 2 * 3
        assert counted.delivered_bytes > 0
        assert (counted.history_events, counted.history_bytes) == (3, node.backplane.stock.bytes)


async def test_channels_are_counted_while_they_hold_something_and_after() -> None:
    async with running(LIMITS) as node:
        slow, far = await node.join("a")
        far.stall()
        for count in range(3):
            await node.publish("a", count)

        actor, mouth, stream = await node.speak("c")
        stream.stall()
        for _ in range(8):
            await actor.receive(b"\0" * (SECOND // 8))
            await settle()

        counted = node.manager.statistics()
        size = slow.egress.statistics().bytes
        assert 3 * 80 < size < node.backplane.stock.bytes
        assert counted.channels["egress"] == ChannelStatistics(
            depth=3, bytes=size, peak=3, capacity=6
        )
        assert counted.channels["upstream"] == ChannelStatistics(
            depth=5, peak=5, capacity=5, dropped=2
        )
        ingress = counted.channels["ingress"]
        assert (ingress.depth, ingress.capacity, ingress.dropped) == (0, 4, 0)
        assert counted.engines["fake"] == EngineStatistics(
            streams=1, max_streams=2, lag=1.0, audio_seconds=1.0
        )
        far.vanish()
        stream.resume()
        mouth.vanish(1000)
        await settle()
        stream.finish()
        await settle()
        counted = node.manager.statistics()
        assert (counted.channels["egress"].depth, counted.channels["egress"].peak) == (0, 3)
        assert (counted.channels["upstream"].depth, counted.channels["upstream"].dropped) == (0, 2)
        assert counted.engines["fake"] == EngineStatistics(max_streams=2, audio_seconds=1.0)
        assert counted.connections == {}
        assert not slow.open


async def test_slow_consumers_and_endings_are_counted() -> None:
    async with running(LIMITS) as node:
        _, far = await node.join("a")
        far.stall()
        for count in range(8):
            await node.publish("a", count)
            await settle()

        counted = node.manager.statistics()
        assert counted.slow_consumers == 1
        assert counted.connections == {("draining", "connect"): 1}
        assert counted.channels["egress"].dropped == 6
        assert (counted.ready, counted.draining) == (True, False)


async def test_the_numbers_belong_to_the_reader() -> None:
    async with running(LIMITS) as node:
        before = node.manager.statistics()
        await node.publish("a", 1)
        assert before.publishes == {"message": 0, "final": 0, "partial": 0}
