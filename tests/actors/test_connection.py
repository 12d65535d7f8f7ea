"""One connection: what its commands do, how it is refused, and how it ends."""

from __future__ import annotations

import logging

import anyio
import msgspec
import pytest

from actors.access import NoTokens
from actors.commands import Join, Start, Stop
from actors.connection import ConnectionActor
from actors.errors import IDLE, INTERNAL, NORMAL, RESTART, Close, SessionEnd
from actors.lifecycle import State
from actors.limits import Egress, History, Limits
from actors.messages import Ack, Closing, Error, Hello, Joined, Message, Transcript
from actors.principal import Principal
from tests.actors.node import data_of, order, running
from tests.autojump import settle
from tests.fakes import FakeClock, FakeTransport, FrailBackplane

pytestmark = pytest.mark.anyio
SMALL = Limits(
    text_bytes=100,
    audio_bytes=100,
    errors_burst=3,
    errors_per_second=1.0,
    egress=Egress(messages=10, bytes=4000, age=5),
    history=History(replay=5, replay_bytes=2000),
)


async def test_the_first_event_is_hello() -> None:
    async with running() as node:
        actor, far = node.connect()
        (hello,) = far.got
        assert isinstance(hello, Hello)
        assert (hello.connection, hello.protocol) == (actor.id, "roomcast.v1")
        assert actor.open


async def test_each_codec_is_answered_in_kind() -> None:
    async with running() as node:
        actor, far = node.connect(codec="msgpack")
        await actor.receive(msgspec.msgpack.encode({"type": "ping", "id": 1}))
        await actor.receive('{"type":"ping","id":2}')
        assert [ack.id for ack in far.of(Ack)] == [1, 2]


async def test_a_ping_without_an_id_is_not_answered() -> None:
    async with running() as node:
        actor, far = node.connect()
        await order(actor, "ping")
        await order(actor, "ping", id=7)
        assert [type(event) for event in far.got] == [Hello, Ack]


async def test_a_refresh_without_a_token_is_refused() -> None:
    async with running() as node:
        node.manager.access.authority = NoTokens()
        actor, far = node.connect()
        await order(actor, "refresh", id=1, token="t")
        (error,) = far.of(Error)
        assert (error.code, error.id, error.field) == ("no_token", 1, "token")
        assert node.observer.refusals == ["no_token"]


async def test_a_publish_is_acknowledged_with_its_place_if_it_has_an_id() -> None:
    async with running() as node:
        actor, far = node.connect()
        await order(actor, "publish", room="a", data=1)
        await order(actor, "publish", id=1, room="a", data=2)
        (ack,) = far.of(Ack)
        assert (ack.id, ack.room, ack.offset) == (1, "a", 2)


async def test_speech_is_ended_by_a_stop_and_given_up_with_the_connection() -> None:
    async with running() as node:
        for ends in ("stop", "close"):
            actor, _, stream = await node.speak()
            if ends == "stop":
                await order(actor, "stop")
            else:
                actor.close(NORMAL)

            await settle()
            assert stream.ended
            stream.finish()
            await settle()
            assert node.manager.upkeep.speaking == {}


async def test_the_command_of_an_address_is_carried_out_without_being_asked() -> None:
    async with running() as node:
        actor, far = node.connect("listen")
        await actor.begin(Join(room="a"))
        await node.publish("a", 1)
        await settle()
        assert actor.open
        assert data_of(far) == [1]


async def test_a_refusal_of_the_command_of_an_address_ends_the_connection() -> None:
    async with running(Limits(rooms=1)) as node:
        await node.publish("taken", 1)
        actor, far = node.connect("listen")
        await actor.begin(Join(room="a"))
        assert [type(event) for event in far.got] == [Hello, Error, Closing]
        assert [error.code for error in far.of(Error)] == ["room_limit"]
        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (1013, True)


async def test_a_left_room_is_heard_no_more_and_can_be_joined_again() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        await node.publish("a", 1)
        await order(actor, "leave", id=1, room="a")
        await node.publish("a", 2)
        await order(actor, "join", room="a")
        await node.publish("a", 3)
        await settle()
        assert data_of(far) == [1, 3]
        assert [event.offset for event in far.of(Joined)] == [0, 2]


@pytest.mark.parametrize("data", ["", "{", "[]", '{"type":"shout"}', '{"type":"join","room":"?"}'])
async def test_a_command_that_cannot_be_read_is_refused_and_the_connection_lives(data: str) -> None:
    async with running() as node:
        actor, far = node.connect()
        await actor.receive(data)
        (error,) = far.of(Error)
        assert error.code in ("bad_message", "bad_room")
        await order(actor, "ping", id=1)
        assert far.of(Ack)


async def test_one_error_too_many_ends_the_connection_with_4503() -> None:
    async with running(SMALL) as node:
        actor, far = node.connect()
        for _ in range(3):
            await actor.receive("?")

        await anyio.sleep(2)
        for _ in range(2):
            await actor.receive("?")

        assert actor.open
        await actor.receive("?")
        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (4503, False)
        assert len(far.of(Error)) == 6
        assert isinstance(far.got[-1], Closing)


@pytest.mark.parametrize(
    ("data", "setting"),
    [
        ('{"type":"ping"}' + " " * 86, "limits.text_bytes"),
        ('{"type":"publish","room":"a","data":"' + "€" * 25 + '"}', "limits.text_bytes"),
        (b"x" * 101, "limits.audio_bytes"),
    ],
)
async def test_a_message_over_its_limit_ends_the_connection_with_1009(
    data: str | bytes, setting: str
) -> None:
    async with running(SMALL) as node:
        actor, far = node.connect()
        await actor.receive(data)
        assert far.closed is not None
        assert far.closed.code == 1009
        assert setting in far.closed.message


@pytest.mark.parametrize(
    "data",
    [
        '{"type":"ping","id":1}' + " " * 78,
        '{"type":"publish","room":"a","id":1,"data":"' + "€" * 18 + '"}',
        b"x" * 100,
    ],
)
async def test_a_message_at_its_limit_is_taken(data: str | bytes) -> None:
    async with running(SMALL) as node:
        actor, _ = node.connect()
        await actor.receive(data)
        assert actor.open


async def test_the_first_close_reason_wins() -> None:
    async with running() as node:
        actor, far = node.connect()
        far.stall()
        actor.close(IDLE.because("first"))
        actor.close(INTERNAL)
        far.resume()
        assert far.closed == IDLE.because("first")
        assert actor.lifecycle.reason == IDLE.because("first")
        assert node.observer.ended == [4003]


async def test_closing_comes_last_and_says_whether_and_when_to_come_back() -> None:
    async with running() as node:
        actor, far = node.connect()
        actor.close(RESTART.because("back soon"))
        closing = far.got[-1]
        assert isinstance(closing, Closing)
        assert (closing.code, closing.reason, closing.retry) == (1012, "restart", True)
        assert (closing.message, closing.reconnect_ms) == ("back soon", 1000)
        other, end = node.connect()
        other.close(NORMAL)
        assert isinstance(closing := end.got[-1], Closing)
        assert (closing.retry, closing.reconnect_ms) == (False, 0)


async def test_what_was_published_before_a_close_is_delivered_before_it() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        await node.publish("a", "last")
        actor.close(RESTART)
        assert [type(event) for event in far.got[-2:]] == [Message, Closing]


async def test_a_command_that_was_read_before_is_obeyed_like_one_from_the_socket() -> None:
    async with running() as node:
        actor, far = node.connect()
        await actor.obey(Join(id=1, room="a"))
        await actor.obey(Stop(id=2))
        await actor.obey(Start(id=3, room="a"))
        await settle()
        assert len(node.engine.streams) == 1
        assert [joined.id for joined in far.of(Joined)] == [1]
        assert [(error.id, error.code) for error in far.of(Error)] == [(2, "not_started")]
        assert [ack.id for ack in far.of(Ack)] == [3]
        actor.close(NORMAL)
        await actor.obey(Join(id=4, room="b"))
        assert len(node.manager.fanout.rooms) == 0


async def test_a_connection_of_another_protocol_closes_its_socket_in_its_own_way() -> None:
    class Foreign(ConnectionActor):
        def farewell(self, close: Close) -> Close:
            return Close(4242, f"foreign {close.reason}")

    async with running() as node:
        transport = FakeTransport()
        actor = Foreign("f", "speak", Principal("dev"), transport, node.manager)
        transport.actor = actor
        node.manager.welcome(actor)
        actor.close(IDLE)
        assert transport.closed == Close(4242, "foreign idle")
        assert [type(event) for event in transport.got] == [Hello, Closing]
        assert node.observer.ended == [4003]


async def test_a_message_after_the_close_is_ignored() -> None:
    async with running() as node:
        actor, far = node.connect()
        far.stall()
        actor.close(NORMAL)
        await order(actor, "publish", id=1, room="a", data=1)
        await actor.receive("nonsense")
        far.resume()
        assert [type(event) for event in far.got] == [Hello, Closing]
        assert node.manager.publisher.messages == 0


async def test_a_bug_in_a_command_closes_with_1011_is_logged_once_and_the_node_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, limits = FakeClock(), Limits()
    plane = FrailBackplane(limits.history, 10, clock)
    async with running(limits, plane) as node:
        _, listener = await node.join("a")
        actor, far = node.connect()
        plane.failure = ZeroDivisionError("a bug")
        await order(actor, "publish", room="a", data=1)
        assert far.closed is not None
        assert far.closed.code == 1011
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ZeroDivisionError)
        plane.failure = None
        await node.publish("a", "alive")
        await settle()
        assert data_of(listener) == ["alive"]


async def test_a_backplane_that_is_lost_ends_the_connection_with_its_code() -> None:
    limits = Limits()
    plane = FrailBackplane(limits.history, 10, FakeClock())
    async with running(limits, plane) as node:
        actor, far = node.connect()
        plane.failure = SessionEnd(RESTART)
        await order(actor, "publish", room="a", data=1)
        assert far.closed == RESTART


async def test_a_peer_that_leaves_is_forgotten_without_a_word() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        far.vanish()
        assert actor.lifecycle.state is State.DISCONNECTED
        assert node.observer.ended == [1006]
        assert len(node.manager.fanout.rooms) == 0
        actor.gone(1000)
        assert node.observer.ended == [1006]
        for code, ended in ((1000, 1000), (1001, 1000), (1005, 1000), (4000, 1006)):
            node.connect()[0].gone(code)
            assert node.observer.ended[-1] == ended


async def test_who_is_too_slow_for_its_own_answers_is_closed() -> None:
    async with running(SMALL) as node:
        actor, far = node.connect()
        far.stall()
        for count in range(11):
            await order(actor, "ping", id=count)

        assert actor.lifecycle.reason is not None
        assert actor.lifecycle.reason.code == 4001
        assert node.manager.statistics().slow_consumers == 1
        assert len(actor.egress) == 0


async def test_a_slow_consumer_by_count_is_cut_and_the_others_get_everything_in_order() -> None:
    async with running(SMALL) as node:
        slow, stalled = await node.join("a")
        _, quick = await node.join("a")
        stalled.stall()
        for count in range(30):
            await node.publish("a", count)
            await settle()

        assert data_of(quick) == list(range(30))
        assert slow.lifecycle.reason is not None
        assert slow.lifecycle.reason.code == 4001
        assert "limits.egress.messages" in slow.lifecycle.reason.message
        assert node.manager.fanout.rooms.size == 1


async def test_a_slow_consumer_by_bytes_is_cut_and_the_others_get_everything_in_order() -> None:
    async with running(SMALL) as node:
        slow, stalled = await node.join("a")
        _, quick = await node.join("a")
        stalled.stall()
        for count in range(5):
            await node.publish("a", [count, "x" * 900])
            await settle()

        assert [data[0] for data in data_of(quick) if isinstance(data, list)] == list(range(5))
        assert slow.lifecycle.reason is not None
        assert "limits.egress.bytes" in slow.lifecycle.reason.message


async def test_a_slow_consumer_by_age_is_cut_by_the_sweep() -> None:
    async with running(SMALL) as node:
        slow, stalled = await node.join("a")
        _, quick = await node.join("a")
        stalled.stall()
        await node.publish("a", 1)
        await anyio.sleep(4)
        assert slow.open
        await anyio.sleep(3)
        assert slow.lifecycle.reason is not None
        assert "limits.egress.age" in slow.lifecycle.reason.message
        await node.publish("a", 2)
        await settle()
        assert data_of(quick) == [1, 2]


async def test_a_stalled_listener_gets_the_newest_partial_and_the_final_afterwards() -> None:
    async with running() as node:
        _, far = await node.join("a")
        _, _, stream = await node.speak("a")
        far.stall()
        for revision in range(5):
            stream.transcribe(f"partial {revision}", revision=revision, final=False)
            await settle()

        far.resume()
        stream.transcribe("final", revision=5)
        await settle()
        assert [event.text for event in far.of(Transcript)] == ["partial 4", "final"]
        far.stall()
        stream.transcribe("more", segment=1, final=False)
        await settle()
        stream.transcribe("more and more", segment=1, revision=1)
        await settle()
        far.resume()
        assert [event.text for event in far.of(Transcript)][2:] == ["more and more"]
        assert node.manager.statistics().channels["egress"].conflated == 5


async def test_what_waits_is_not_overtaken() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        far.stall()
        await node.publish("a", 1)
        await settle()
        far._stalled = False
        await order(actor, "ping", id=1)
        assert [type(event) for event in far.got] == [Hello, Joined]
        far.resume()
        assert [type(event) for event in far.got[2:]] == [Message, Ack]


async def test_only_audio_of_a_running_session_needs_no_waiting() -> None:
    async with running(Limits(audio_bytes=100)) as node:
        silent, _ = node.connect()
        assert not silent.receive_nowait(bytes(10))
        packed, _ = node.connect(codec="msgpack")
        await packed.receive(msgspec.msgpack.encode({"type": "start", "room": "a"}))
        await settle()
        assert not packed.receive_nowait(bytes(10))
        actor, far, stream = await node.speak("a")
        assert not actor.receive_nowait('{"type":"ping","id":1}')
        assert not actor.receive_nowait(bytes(101))
        assert actor.receive_nowait(bytes(10))
        assert stream.audio == bytes(10)
        actor.close(NORMAL)
        assert actor.receive_nowait(bytes(10))  # ignored, as everything after the end
        assert stream.audio == bytes(10)
        assert far.of(Error) == []
