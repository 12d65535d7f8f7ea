"""The speaking side of a connection, from its commands to the close of a `speak` socket."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio
import pytest

from actors.errors import Close, SessionEnd, UpstreamLost
from actors.limits import Ingress, Limits, Upstream
from actors.messages import Ack, AnyEvent, Error, Speech
from tests.actors.node import Node, order, running
from tests.autojump import settle
from tests.fakes import FakeTransport

pytestmark = pytest.mark.anyio
FRAME = b"\0" * 640
NARROW = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2))


def states(transport: FakeTransport) -> list[str]:
    """Return the states of speech that the far end was told."""
    return [event.state for event in transport.of(Speech)]


def codes(events: Sequence[AnyEvent]) -> list[str]:
    """Return the codes of the refusals among these events."""
    return [event.code for event in events if isinstance(event, Error)]


def ended(node: Node) -> list[int]:
    """Return the codes with which connections have ended."""
    return node.observer.ended


async def test_a_start_is_acknowledged_when_the_engine_has_accepted() -> None:
    async with running() as node:
        node.engine.slow_to_open = 2
        actor, mouth = node.connect()
        await order(actor, "start", id=1, room="a")
        await anyio.sleep(1)
        assert mouth.of(Ack) == []
        await anyio.sleep(2)
        (ack,) = mouth.of(Ack)
        assert ack.id == 1
        assert {event.session for event in mouth.of(Speech)} == {ack.session}
        assert states(mouth) == ["connecting", "ready"]


async def test_early_audio_waits_for_the_start_and_comes_first() -> None:
    async with running(NARROW) as node:
        actor, mouth = node.connect()
        await actor.receive(b"11")
        await actor.receive(b"22")
        assert states(mouth) == ["waiting"]
        await order(actor, "start", id=1, room="a")
        await actor.receive(b"33")
        await settle()
        stream = node.engine.streams[0]
        assert stream.audio == b"112233"
        assert [frame.position for frame in stream.frames] == [0, 2, 4]
        assert codes(mouth.got) == []


async def test_early_audio_over_its_bound_is_refused_once_and_counted() -> None:
    async with running(NARROW) as node:
        actor, mouth = node.connect()
        for _ in range(7):
            await actor.receive(FRAME)

        (error,) = mouth.of(Error)
        assert (error.code, error.setting) == ("audio_before_start", "limits.ingress")
        assert node.manager.statistics().channels["ingress"].dropped == 4
        await order(actor, "start", room="a")
        await settle()
        assert node.engine.streams[0].audio == FRAME * 3


async def test_early_audio_is_bounded_in_bytes_too() -> None:
    async with running(Limits(ingress=Ingress(early_bytes=2 * len(FRAME)))) as node:
        actor, mouth = node.connect()
        for _ in range(3):
            await actor.receive(FRAME)

        (waiting,) = mouth.of(Speech)
        assert (waiting.state, waiting.received) == ("waiting", len(FRAME))
        assert codes(mouth.got) == ["audio_before_start"]
        await order(actor, "start", room="a")
        await settle()
        assert node.engine.streams[0].audio == FRAME * 2


async def test_a_session_needs_a_room_that_can_be_published_to() -> None:
    async with running(Limits(rooms=1)) as node:
        await node.publish("taken", 1)
        actor, mouth = node.connect()
        await order(actor, "start", room="a", id=1)
        assert codes(mouth.got) == ["room_limit"]
        assert not node.engine.streams


async def test_a_draining_node_starts_no_session() -> None:
    async with running() as node:
        actor, mouth = node.connect()
        node.manager.draining = True
        await order(actor, "start", room="a", id=1)
        assert codes(mouth.got) == ["draining"]


async def test_audio_between_two_sessions_is_dropped_and_refused_once() -> None:
    async with running() as node:
        actor, mouth, stream = await node.speak()
        await order(actor, "stop")
        await actor.receive(FRAME)
        stream.finish()
        await settle()
        await actor.receive(FRAME)
        assert codes(mouth.got) == ["audio_before_start"]
        assert states(mouth) == ["connecting", "ready", "ended"]
        await order(actor, "start", room="a")
        await settle()
        assert node.engine.streams[1].audio == b""


async def test_an_empty_frame_is_refused() -> None:
    async with running() as node:
        actor, mouth, _ = await node.speak()
        await actor.receive(b"")
        assert codes(mouth.got) == ["bad_message"]


async def test_a_second_start_is_refused() -> None:
    async with running() as node:
        actor, mouth, stream = await node.speak()
        await order(actor, "start", id=2, room="b")
        (error,) = mouth.of(Error)
        assert (error.code, error.id) == ("already_started", 2)
        await actor.receive(FRAME)
        await settle()
        assert stream.audio == FRAME
        assert len(node.engine.streams) == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [({"engine": "other"}, "unknown_engine"), ({"encoding": "smoke"}, "unsupported_audio")],
)
async def test_a_start_that_cannot_work_is_refused_at_once(
    options: dict[str, str], code: str
) -> None:
    async with running() as node:
        actor, mouth = node.connect()
        await order(actor, "start", id=1, room="a", **options)
        assert codes(mouth.got) == [code]
        await order(actor, "start", id=2, room="a")
        await settle()
        assert [ack.id for ack in mouth.of(Ack)] == [2]


async def test_a_stop_without_a_start_is_refused() -> None:
    async with running() as node:
        actor, mouth = node.connect()
        await order(actor, "stop", id=1)
        assert codes(mouth.got) == ["not_started"]


async def test_a_stop_is_acknowledged_after_the_last_final_and_only_once() -> None:
    async with running() as node:
        ear, heard = await node.join("a")
        actor, mouth, stream = await node.speak()
        await order(actor, "stop", id=1)
        await order(actor, "stop", id=2)
        await settle()
        assert codes(mouth.got) == ["not_started"]
        stream.transcribe("last words")
        await settle()
        assert [ack.id for ack in mouth.of(Ack)] == ["s"]
        stream.finish()
        await settle()
        assert [ack.id for ack in mouth.of(Ack)] == ["s", 1]
        assert heard.got[-1].__class__.__name__ == "Transcript"
        assert ear.open
        assert actor.open


async def test_a_session_can_start_again_after_the_ack_of_stop() -> None:
    async with running() as node:
        actor, mouth, first = await node.speak(room="a")
        await order(actor, "stop", id=1)
        await settle()
        first.finish()
        await settle()
        await order(actor, "start", id=2, room="b")
        await settle()
        assert len(node.engine.streams) == 2
        assert codes(mouth.got) == []
        sessions = {event.session for event in mouth.of(Ack)}
        assert len(sessions) == 2


async def test_a_speak_socket_closes_after_its_stop() -> None:
    async with running() as node:
        actor, mouth, stream = await node.speak(kind="speak")
        await order(actor, "stop")
        await settle()
        stream.finish()
        await settle()
        assert mouth.closed is not None
        assert mouth.closed.code == 1000


async def test_a_busy_engine_is_an_error_on_connect() -> None:
    async with running() as node:
        node.engine.max_streams = 0
        actor, mouth = node.connect("connect")
        await order(actor, "start", id=1, room="a")
        await settle()
        (error,) = mouth.of(Error)
        assert (error.code, error.id, error.setting) == (
            "engine_busy",
            1,
            "engines.fake.max_streams",
        )
        assert actor.open
        node.engine.max_streams = 1
        await order(actor, "start", id=2, room="a")
        await settle()
        assert [ack.id for ack in mouth.of(Ack)] == [2]


async def test_a_stop_before_the_engine_refuses_is_answered_too() -> None:
    async with running() as node:
        node.engine.max_streams, node.engine.slow_to_open = 0, 1
        actor, mouth = node.connect("connect")
        await order(actor, "start", id=1, room="a")
        await order(actor, "stop", id=2)
        await anyio.sleep(2)
        assert [(error.code, error.id) for error in mouth.of(Error)] == [
            ("engine_busy", 1),
            ("engine_busy", 2),
        ]


async def test_a_busy_engine_closes_a_speak_socket_with_1013() -> None:
    async with running() as node:
        node.engine.max_streams = 0
        actor, mouth = node.connect("speak")
        await order(actor, "start", room="a")
        await settle()
        assert mouth.closed is not None
        assert mouth.closed.code == 1013
        assert ended(node) == [1013]


@pytest.mark.parametrize("kind", ["speak", "connect"])
async def test_an_engine_that_stays_lost_closes_the_connection_with_4005(kind: str) -> None:
    async with running(Limits(upstream=Upstream(lost_within=30))) as node:
        actor, mouth, stream = await node.speak(kind="speak" if kind == "speak" else "connect")
        node.engine.broken = UpstreamLost("gone for good")
        stream.hang_up()
        await anyio.sleep(29)
        assert actor.open
        await anyio.sleep(7)
        assert mouth.closed is not None
        assert (mouth.closed.code, mouth.closed.retry) == (4005, True)
        assert node.manager.upkeep.speaking == {}


async def test_an_engine_too_slow_to_open_closes_with_4005_after_open_within() -> None:
    async with running(Limits(upstream=Upstream(open_within=10))) as node:
        node.engine.slow_to_open = 60
        actor, mouth = node.connect()
        await order(actor, "start", room="a")
        await anyio.sleep(9)
        assert actor.open
        await anyio.sleep(2)
        assert mouth.closed is not None
        assert mouth.closed.code == 4005


async def test_a_bug_in_an_engine_closes_with_1011_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        node.engine.broken = ZeroDivisionError("a bug")
        actor, mouth = node.connect()
        await order(actor, "start", room="a")
        await settle()
        assert mouth.closed is not None
        assert mouth.closed.code == 1011
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ZeroDivisionError)
        node.engine.broken = None
        await node.speak()


@pytest.mark.parametrize(
    ("end", "code"),
    [(UpstreamLost("gone"), 4005), (SessionEnd(Close(4007, "backplane_lost")), 4007)],
)
async def test_an_engine_that_cannot_open_says_how_the_connection_ends(
    end: SessionEnd, code: int
) -> None:
    async with running() as node:
        node.engine.broken = end
        actor, mouth = node.connect()
        await order(actor, "start", room="a")
        await anyio.sleep(16)
        assert mouth.closed is not None
        assert mouth.closed.code == code


async def test_a_speaker_that_hangs_up_is_still_heard_to_the_end() -> None:
    async with running() as node:
        _, ear = await node.join("a")
        actor, mouth, stream = await node.speak()
        await actor.receive(FRAME)
        mouth.vanish(1001)
        await settle()
        assert stream.ended
        assert actor not in node.manager.actors
        stream.transcribe("last words")
        stream.finish()
        await settle()
        assert ear.got[-1].__class__.__name__ == "Transcript"
        assert node.manager.upkeep.speaking == {}
        await anyio.sleep(1.5)
        assert node.manager.backlogged == set()


async def test_a_connection_that_ends_before_its_start_forgets_its_audio() -> None:
    async with running() as node:
        actor, mouth = node.connect()
        await actor.receive(FRAME)
        mouth.vanish()
        assert actor.microphone is not None
        assert actor.microphone._early == []
        assert actor.microphone.session is None


async def test_audio_is_taken_at_once_by_a_running_session_alone() -> None:
    async with running() as node:
        actor, _, stream = await node.speak("a")
        microphone = actor.microphone
        assert microphone is not None
        assert microphone.hear_nowait(FRAME)
        assert not microphone.hear_nowait(b"")
        assert stream.audio == FRAME
        await order(actor, "stop", id=1)
        assert not microphone.hear_nowait(FRAME)
