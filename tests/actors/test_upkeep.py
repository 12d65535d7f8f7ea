"""What a node does by the clock: its probe and its sweep."""

from __future__ import annotations

import logging
import math

import anyio
import pytest

from actors.errors import RESTART, Refused, SessionEnd
from actors.limits import Egress, Ingress, Limits, Upstream
from actors.messages import Speech
from tests.actors.node import SECOND, Node, running
from tests.autojump import settle
from tests.fakes import FakeClock, FrailBackplane

pytestmark = pytest.mark.anyio


def frail() -> FrailBackplane:
    """Make a backplane that can fail."""
    return FrailBackplane(Limits().history, 10, FakeClock())


def ready(node: Node) -> bool:
    """Whether the node would say so."""
    assert node.manager.ready is node.manager.statistics().ready
    return node.manager.ready


async def test_a_node_is_ready_after_its_first_probe_and_not_before() -> None:
    plane = frail()
    plane.freeze()
    async with running(backplane=plane) as node:
        assert not ready(node)
        assert node.manager.statistics().probe_age == math.inf
        plane.thaw()
        await settle()
        assert ready(node)
        await anyio.sleep(100)
        assert ready(node)
        assert node.manager.statistics().probe_age <= 2


async def test_a_node_is_not_ready_while_its_backplane_does_not_answer() -> None:
    plane = frail()
    async with running(backplane=plane) as node:
        assert ready(node)
        plane.freeze()
        await anyio.sleep(5)
        assert ready(node)
        await anyio.sleep(2)
        assert not ready(node)
        plane.thaw()
        await settle()
        assert ready(node)


@pytest.mark.parametrize("failure", [Refused("room_limit", "full"), SessionEnd(RESTART)])
async def test_a_failed_probe_is_logged_and_tried_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    plane = frail()
    async with running(backplane=plane) as node:
        plane.failure = failure
        await anyio.sleep(9)
        assert not ready(node)
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        plane.failure = None
        await anyio.sleep(2)
        assert ready(node)


async def test_the_probe_is_no_room_of_anybody() -> None:
    async with running() as node:
        await anyio.sleep(10)
        statistics = node.manager.statistics()
        assert (statistics.rooms, statistics.subscriptions) == (0, 0)
        assert (statistics.history_events, statistics.history_bytes) == (0, 0)
        assert statistics.publishes == {"message": 0, "final": 0, "partial": 0}


async def test_the_sweep_cuts_a_socket_that_does_not_flush() -> None:
    limits = Limits(egress=Egress(flush_within=5))
    async with running(limits) as node:
        actor, far = node.connect()
        far.stall()
        actor.close(RESTART)
        await anyio.sleep(4)
        assert (actor in node.manager.actors, far.aborted) == (True, False)
        assert node.manager.statistics().connections == {("draining", "connect"): 1}
        await anyio.sleep(3)
        assert (actor in node.manager.actors, far.aborted) == (False, True)
        assert node.observer.ended == [1012]


async def test_the_sweep_lets_go_of_mailboxes_that_are_empty_again() -> None:
    async with running() as node:
        _, far = await node.join("a")
        far.stall()
        await node.publish("a", 1)
        await anyio.sleep(1.5)
        assert len(node.manager.backlogged) == 1
        far.resume()
        await anyio.sleep(1)
        assert node.manager.backlogged == set()


async def test_the_sweep_closes_a_reader_whose_oldest_event_is_too_old() -> None:
    async with running(Limits(egress=Egress(age=5))) as node:
        actor, far = await node.join("a")
        far.stall()
        await node.publish("a", 1)
        await anyio.sleep(4.5)
        assert actor.open
        await anyio.sleep(2)
        assert actor.lifecycle.reason is not None
        assert actor.lifecycle.reason.code == 4001


async def test_silence_closes_a_speaker_with_4003() -> None:
    async with running(Limits(speech_idle=10)) as node:
        actor, mouth, stream = await node.speak()
        for _ in range(3):
            await anyio.sleep(8)
            await actor.receive(b"\0" * 640)

        assert actor.open
        await anyio.sleep(12)
        assert mouth.closed is not None
        assert (mouth.closed.code, mouth.closed.retry) == (4003, True)
        assert "limits.speech_idle" in mouth.closed.message
        assert stream.ended


async def test_a_listener_is_never_too_silent() -> None:
    async with running(Limits(speech_idle=10)) as node:
        actor, _ = await node.join("a")
        await anyio.sleep(1000)
        assert actor.open


async def test_a_speaker_is_not_silent_while_the_engine_is_the_slow_one() -> None:
    patient = Upstream(frames=2, stalled_within=200)
    limits = Limits(speech_idle=10, ingress=Ingress(frames=2), upstream=patient)
    async with running(limits) as node, anyio.create_task_group() as tasks:
        actor, _, stream = await node.speak()
        stream.stall()

        async def talk() -> None:
            for _ in range(10):
                await actor.receive(b"\0" * 640)

        tasks.start_soon(talk)
        await anyio.sleep(100)
        assert actor.open
        stream.resume()
        await anyio.sleep(5)
        assert actor.open
        assert len(stream.audio) == 6400
        await anyio.sleep(10)
        assert actor.lifecycle.reason is not None
        assert actor.lifecycle.reason.code == 4003


async def test_an_engine_that_takes_no_audio_for_too_long_counts_as_lost() -> None:
    limits = Limits(upstream=Upstream(frames=2, stalled_within=20))
    async with running(limits) as node:
        actor, mouth, stream = await node.speak()
        stream.stall()
        for _ in range(3):
            await actor.receive(b"\0" * 640)

        await anyio.sleep(19)
        assert [event.state for event in mouth.of(Speech)] == ["connecting", "ready"]
        await anyio.sleep(5)
        assert actor.open
        assert [event.state for event in mouth.of(Speech)][2:] == ["lost", "recovered"]
        assert "limits.upstream.stalled_within" in str(mouth.of(Speech)[2].message)
        assert node.engine.streams[-1].audio == bytes(3 * 640)
        assert node.manager.statistics().engines["fake"].losses == 1


async def test_a_speaker_is_told_when_its_lag_changes() -> None:
    async with running() as node:
        actor, mouth, stream = await node.speak()
        stream.stall()
        await actor.receive(b"\0" * SECOND)
        await anyio.sleep(4.5)
        assert [event.lag for event in mouth.of(Speech)] == [0, 0, 1]
        stream.resume()
        await anyio.sleep(1)
        assert [event.lag for event in mouth.of(Speech)] == [0, 0, 1, 0]


async def test_the_sweep_forgets_old_rooms() -> None:
    async with running() as node:
        await node.publish("a", 1)
        assert await node.backplane.rooms("dev") == ["dev/a"]
        await anyio.sleep(605)
        assert await node.backplane.rooms("dev") == []
