"""The counts of an idle node, and of one whose engine has heard something."""

from __future__ import annotations

import pytest

from actors.census import count_channels, count_engine
from actors.statistics import EngineStatistics
from tests.actors.node import SECOND, running
from tests.autojump import settle

pytestmark = pytest.mark.anyio


async def test_channels_of_an_idle_node_are_empty() -> None:
    async with running() as node:
        manager = node.manager
        counted = count_channels(manager.upkeep, manager.limits, manager.egress, manager.audio)
        assert {name: each.depth for name, each in counted.items()} == {
            "ingress": 0,
            "upstream": 0,
            "egress": 0,
        }


async def test_an_engine_has_the_seconds_of_those_who_speak_and_who_spoke() -> None:
    async with running() as node:
        actor, _, _ = await node.speak()
        await actor.receive(b"\0" * SECOND)
        await settle()
        assert count_engine(node.engine, node.manager.upkeep, 2.0, 3) == EngineStatistics(
            streams=1, max_streams=2, audio_seconds=3.0, losses=3
        )
