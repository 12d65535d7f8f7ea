"""Who holds a session: a speaker that was cut off comes back, and the engine notices nothing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.commands import Start
from actors.connection import ConnectionActor
from actors.errors import Refused
from actors.limits import Ingress, Limits, Upstream
from actors.messages import Ack, Error, Speech, Transcript
from actors.roles import stem_of
from tests.actors.node import Node, order, running
from tests.autojump import settle
from tests.fakes import FakeTransport

pytestmark = pytest.mark.anyio
FRAME = bytes(3200)
TIGHT = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2))


def session_of(far: FakeTransport) -> str:
    """Return the id of the session that a speaker was told of."""
    return str(far.of(Speech)[-1].session)


async def come_back(node: Node, session: str, **more: Any) -> tuple[ConnectionActor, FakeTransport]:
    """Resume a session on another connection."""
    options = {"id": "r", "room": "a", "resume": session} | more
    actor, far = node.connect(more.pop("kind", "connect"))
    options.pop("kind", None)
    await order(actor, "start", **options)
    await settle()
    return actor, far


async def test_a_speaker_comes_back_and_goes_on_where_the_server_says() -> None:
    async with running() as node:
        actor, far, stream = await node.speak()
        await actor.receive(b"1" * 640)
        far.vanish()
        await anyio.sleep(14)
        actor, again = await come_back(node, session_of(far))
        (resumed,) = again.of(Speech)
        assert (resumed.state, resumed.received, resumed.session) == (
            "resumed",
            640,
            session_of(far),
        )
        assert [ack.session for ack in again.of(Ack)] == [session_of(far)]
        await actor.receive(b"2" * 640)
        await settle()
        assert node.engine.streams == [stream]
        assert stream.audio == b"1" * 640 + b"2" * 640
        await order(actor, "stop", id="x")
        await settle()
        stream.finish()
        await settle()
        assert [ack.id for ack in again.of(Ack)] == ["r", "x"]


async def test_after_the_grace_the_last_final_comes_and_the_session_is_gone() -> None:
    async with running() as node:
        _, ear = await node.join("a")
        actor, far, stream = await node.speak()
        await actor.receive(FRAME)
        far.vanish()
        await anyio.sleep(13)
        assert node.manager.statistics().resumable == 1
        before = stream.ended
        await anyio.sleep(4)
        assert (before, stream.ended) == (False, True)
        _, late = await come_back(node, session_of(far))
        assert [error.code for error in late.of(Error)] == ["unknown_session"]
        stream.transcribe("last words")
        stream.finish()
        await settle()
        assert [event.text for event in ear.of(Transcript)] == ["last words"]
        assert node.manager.upkeep.speaking == {}
        assert node.manager.statistics().resumable == 0


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_who_says_goodbye_is_not_waited_for(code: int) -> None:
    async with running() as node:
        _, far, stream = await node.speak()
        far.vanish(code)
        await settle()
        assert stream.ended


async def test_without_a_grace_nobody_is_waited_for() -> None:
    async with running() as node:
        node.manager.upkeep.resume_grace = 0
        _, far, stream = await node.speak()
        far.vanish()
        await settle()
        assert stream.ended


async def test_a_connection_that_only_seems_alive_is_replaced() -> None:
    async with running(TIGHT) as node, anyio.create_task_group() as tasks:
        actor, far, stream = await node.speak()
        stream.stall()
        for count in range(6):
            await actor.receive(bytes([count]) * 640)
            await settle()

        tasks.start_soon(actor.receive, b"never taken" * 10)
        await settle()
        newer, again = await come_back(node, session_of(far))
        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (4506, False)
        assert again.of(Speech)[0].received == 6 * 640
        stream.resume()
        await settle()
        await newer.receive(b"6" * 640)
        await settle()
        assert stream.audio == b"".join(bytes([n]) * 640 for n in range(6)) + b"6" * 640


@pytest.mark.parametrize(
    ("change", "code"),
    [({"resume": "another"}, "unknown_session"), ({"room": "b"}, "unknown_session")],
)
async def test_only_a_session_of_this_room_is_resumed(change: dict[str, str], code: str) -> None:
    async with running() as node:
        _, far, stream = await node.speak()
        far.vanish()
        _, thief = await come_back(node, session_of(far), **change)
        assert [error.code for error in thief.of(Error)] == [code]
        assert not stream.ended


@pytest.mark.parametrize("field", ["encoding", "rate", "channels"])
async def test_who_resumes_cannot_change_what_the_audio_is(field: str) -> None:
    async with running() as node:
        _, far, stream = await node.speak(rate=8000)
        far.vanish()
        said = {"encoding": "mulaw", "rate": 16000, "channels": 2}
        _, again = await come_back(node, session_of(far), **{field: said[field]})
        assert [(error.code, error.field) for error in again.of(Error)] == [("bad_message", field)]
        _, again = await come_back(node, session_of(far), rate=8000)
        assert again.of(Speech)[0].state == "resumed"
        assert not stream.ended


async def test_no_other_tenant_or_subject_resumes_a_session() -> None:
    async with running() as node:
        _, far, _ = await node.speak()
        found = node.manager.resumable(session_of(far), "dev/a", "")
        assert found.subject.session == session_of(far)
        for key, owner in [("other/a", ""), ("dev/a", "somebody")]:
            with pytest.raises(Refused):
                node.manager.resumable(session_of(far), key, owner)


async def test_a_speak_socket_that_cannot_resume_is_told_to_start_anew() -> None:
    async with running() as node:
        actor, far = node.connect("speak")
        await actor.begin(Start(room="a", resume="gone"))
        await settle()
        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (4508, False)


async def test_what_happens_while_nobody_holds_the_session_is_not_lost() -> None:
    async with running() as node:
        _, ear = await node.join("a")
        actor, far, stream = await node.speak()
        await actor.receive(FRAME)
        far.vanish()
        await settle()
        stream.transcribe("meanwhile")
        stream.hang_up()
        await anyio.sleep(2)
        assert [event.text for event in ear.of(Transcript)] == ["meanwhile"]
        actor, again = await come_back(node, session_of(far))
        await actor.receive(FRAME)
        await settle()
        assert len(node.engine.streams) == 2
        node.engine.streams[-1].transcribe("and now", end=0.1)
        await settle()
        assert [event.segment for event in ear.of(Transcript)] == [
            f"{stem_of(session_of(again))}.0",
            f"{stem_of(session_of(again))}.1",
        ]


async def test_a_drain_ends_sessions_that_nobody_holds() -> None:
    async with running() as node:
        _, far, stream = await node.speak()
        far.vanish()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.manager.drain, 1, 30)
            await settle()
            assert stream.ended
            stream.finish()

        assert node.manager.upkeep.speaking == {}


async def test_silence_does_not_end_what_nobody_holds_and_begins_anew_for_who_returns() -> None:
    async with running(Limits(speech_idle=10)) as node:
        _, far, stream = await node.speak()
        await anyio.sleep(5)
        far.vanish()
        await anyio.sleep(13)
        assert not stream.ended
        actor, _ = await come_back(node, session_of(far))
        await anyio.sleep(8)
        assert actor.open
        await anyio.sleep(4)
        assert actor.lifecycle.reason is not None
        assert actor.lifecycle.reason.code == 4003


@given(st.lists(st.sampled_from(["speak", "cut", "stall", "resume", "steal"]), max_size=25))
async def test_however_often_a_speaker_is_cut_off_the_engine_hears_each_byte_once(
    script: list[str],
) -> None:
    """The speaker keeps what the server has not, and sends from the byte that it names."""
    async with running(TIGHT) as node, anyio.create_task_group() as tasks:
        audio = b"".join(count.to_bytes(2, "big") * 50 for count in range(200))
        actor, far, stream = await node.speak()
        session, sent = session_of(far), 0
        for step in [*script, "cut", "resume"]:
            if step == "speak":
                tasks.start_soon(actor.receive, audio[sent : sent + 100])
                sent += 100
                await settle()
            elif step == "stall":
                stream.stall()
            elif step == "resume":
                stream.resume()
            else:
                if step == "cut":
                    far.vanish()

                actor, far = await come_back(node, session)
                sent = far.of(Speech)[0].received

            await settle()

        await settle()
        assert stream.audio == audio[:sent]
        assert node.engine.streams == [stream]
        tasks.cancel_scope.cancel()


async def test_what_all_hear_does_not_tell_how_to_resume() -> None:
    async with running() as node:
        actor, far, stream = await node.speak()
        _, ear = await node.join("a")
        await actor.receive(FRAME)
        stream.transcribe("hello", end=0.1)
        await settle()
        (said,) = ear.of(Transcript)
        session = session_of(far)
        assert session not in str(said)
        thief, hands = node.connect()
        await order(thief, "start", id="t", room="a", resume=said.segment.partition(".")[0])
        assert [each.code for each in hands.of(Error)] == ["unknown_session"]
