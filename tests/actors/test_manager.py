"""The node as a whole, from the doors of its connections."""

from __future__ import annotations

from random import Random

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import Refused
from actors.limits import Egress, History, Limits, Upstream
from actors.log import Position
from actors.messages import Ack, Closing, Gap, Message, Speaker, Transcript
from actors.principal import Principal
from actors.upkeep import PROBE
from server.backplanes.memory import MemoryBackplane
from tests.actors.clients import Listener
from tests.actors.node import Node, data_of, order, running
from tests.autojump import settle
from tests.fakes import DistantBackplane, FakeClock

pytestmark = pytest.mark.anyio
TIGHT = Limits(
    egress=Egress(messages=8, age=6, flush_within=2),
    history=History(messages=6, replay=4, age=20),
)
TENANTS = ("t", "t", "t", "u")
VERBS = {"publish": 6, "say": 2, "join": 3, "leave": 2, "stall": 2, "resume": 1, "return": 1}
PAUSES = (0, 0, 0.05, 0.2, 0.2, 1, 1, 3, 25)
Line = tuple[str, float, str]


def write(seed: int, length: int) -> list[Line]:
    """Make up a script: so much of it depends on what came before that chance writes it best."""
    chance = Random(seed)
    script: list[Line] = []
    while len(script) < length:
        who, room = chance.randrange(len(TENANTS)), chance.choice("aaab")
        (verb,) = chance.choices([*VERBS, "vanish"], [*VERBS.values(), 1])
        script.append((verb, who, room))
        if chance.random() < 0.4:
            script.append(("advance", chance.choice(PAUSES), ""))

    return script


scripts = st.builds(write, st.integers(0, 2**32), st.integers(1, 80))
delays = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=7)
fewer = settings(max_examples=settings().max_examples // 3)
"""A script costs more than a value."""


class Play:
    """A script on a stage: several listeners, and what was really published."""

    def __init__(self, node: Node, tasks: TaskGroup, strict: bool) -> None:
        self.node, self._tasks = node, tasks
        self.listeners = [Listener(node, tenant, strict) for tenant in TENANTS]
        self.truth: dict[tuple[str, Position], object] = {}
        self._count = 0
        for listener in self.listeners:
            listener.begin(tasks)
            listener.join("a")

    async def act(self, verb: str, number: float, room: str) -> None:
        """Carry out one line of the script."""
        if verb == "advance":
            await (anyio.sleep(number) if number else settle())
            return

        listener = self.listeners[int(number)]
        listener.read()
        if not listener.actor.open:
            listener.come_back(self._tasks)

        match verb:
            case "join" if room not in listener.wanted:
                listener.join(room)
            case "leave" if room in listener.wanted:
                listener.leave(room)
            case "publish":
                self._tasks.start_soon(self._publish, listener.tenant, room)
            case "say":
                self._tasks.start_soon(self._say, listener.tenant, room)
            case "stall":
                listener.far.stall()
            case "resume":
                listener.far.resume()
            case "vanish":
                listener.hang_up()
            case "return":
                listener.come_back(self._tasks)

    async def end(self) -> None:
        """Let everybody catch up, and see that nobody lacks anything."""
        quiet = False
        while not quiet:
            for listener in self.listeners:
                listener.far.resume()
                listener.read()
                if not listener.actor.open:
                    listener.come_back(self._tasks)

            await anyio.sleep(10)
            quiet = all(listener.quiet for listener in self.listeners)

        for listener in self.listeners:
            listener.read()
            for room in listener.wanted:
                await self._check(listener, room)

    async def _check(self, listener: Listener, room: str) -> None:
        key, seen = f"{listener.tenant}/{room}", listener.seen[room]
        top = (await self.node.backplane.recover(key, None, 0)).top
        assert Position(seen.epoch, seen.at) == top
        for offset, data in seen.data.items():
            assert str(data).startswith(f"{key} ")
            assert self.truth.setdefault((key, Position(seen.epoch, offset)), data) == data

    async def _publish(self, tenant: str, room: str) -> None:
        self._count += 1
        data = f"{tenant}/{room} {self._count}"
        place = await self.node.manager.send_message(Principal(tenant), room, data)
        self.truth[f"{tenant}/{room}", place] = data

    async def _say(self, tenant: str, room: str) -> None:
        self._count += 1
        key, text = f"{tenant}/{room}", f"{tenant}/{room} {self._count}"
        event = Transcript(
            room=room,
            segment=text,
            revision=0,
            final=False,
            text=text,
            start=0.0,
            end=1.0,
            speaker=Speaker("", ""),
            language="en",
            at=0.0,
        )
        await self.node.manager.publish_partial(key, event)
        await self.node.manager.publish_final(key, msgspec.structs.replace(event, final=True))


async def play(node: Node, script: list[Line], strict: bool) -> None:
    """Carry out a script, see that nobody lacks anything, and that nothing is left behind."""
    async with anyio.create_task_group() as tasks:
        scene = Play(node, tasks, strict)
        await anyio.sleep(10)
        for line in script:
            await scene.act(*line)

        with anyio.fail_after(1000):
            await scene.end()

        for listener in scene.listeners:
            listener.hang_up()

    await anyio.sleep(10)
    assert_empty(node)


def assert_empty(node: Node) -> None:
    """Nothing is left of those who have left."""
    manager, plane = node.manager, node.backplane
    assert isinstance(plane, MemoryBackplane)
    assert (manager.actors, manager.backlogged, manager.upkeep.leaving) == (set(), set(), set())
    assert manager.upkeep.speaking == {}
    assert (len(manager.fanout.rooms), manager.fanout.rooms.size) == (0, 0)
    assert len(manager.membership._gates) == 0
    assert (manager.fanout._positions, manager.fanout._batches) == ({}, {})
    assert plane._wanted == {PROBE}


@fewer
@given(scripts)
async def test_every_listener_sees_everything_once_and_in_order_or_is_told(
    script: list[Line],
) -> None:
    async with running(TIGHT) as node:
        await play(node, script, strict=True)


@fewer
@given(scripts, delays)
async def test_so_does_every_listener_of_a_distant_backplane(
    script: list[Line], steps: list[float]
) -> None:
    plane = DistantBackplane(TIGHT.history, 100, FakeClock(), steps)
    async with running(TIGHT, plane) as node:
        await play(node, script, strict=False)


async def test_a_message_reaches_every_listener_of_its_room_and_no_other() -> None:
    async with running() as node:
        _, here = await node.join("a")
        _, there = await node.join("b")
        await node.publish("a", {"x": 1})
        await settle()
        assert data_of(here) == [{"x": 1}]
        assert data_of(there) == []


async def test_a_speaker_is_heard_in_the_room() -> None:
    async with running() as node:
        _, ear = await node.join("a")
        actor, mouth, stream = await node.speak("a", name="Ann")
        await actor.receive(b"\0" * 640)
        await settle()
        assert stream.audio == b"\0" * 640
        stream.transcribe("hello", final=False)
        stream.transcribe("hello there", revision=1)
        await settle()
        got = ear.of(Transcript)
        assert [(each.text, each.final) for each in got] == [
            ("hello", False),
            ("hello there", True),
        ]
        assert got[0].segment == got[1].segment
        assert got[1].offset == 1
        assert got[1].speaker.name == "Ann"
        await order(actor, "stop", id=2)
        await settle()
        stream.finish()
        await settle()
        assert [type(event).__name__ for event in mouth.got] == [
            *("Hello", "Speech", "Ack", "Speech", "Speech", "Ack"),
        ]


async def test_a_message_says_who_sent_it_and_when() -> None:
    async with running() as node:
        _, far = await node.join("a")
        principal = Principal("dev", "ann")
        place = await node.manager.send_message(principal, "a", "x")
        await settle()
        (event,) = far.of(Message)
        assert (event.sender, event.at, event.data) == ("ann", node.clock.wall(), "x")
        assert (event.epoch, event.offset) == (place.epoch, place.offset)


async def test_a_broadcast_reaches_every_room_of_the_tenant_and_no_other_tenant() -> None:
    async with running() as node:
        ears = [(await node.join(room))[1] for room in ("a", "b")]
        _, stranger = await node.join("a", tenant="other")
        await node.publish("silent", 1)
        assert len(await node.manager.broadcast(Principal("dev"), "all")) == 3
        await settle()
        assert [data_of(far) for far in ears] == [["all"], ["all"]]
        assert data_of(stranger) == []


@pytest.mark.parametrize("data", [2**64, {(1, 2): 3}, object()])
async def test_data_that_not_every_listener_could_be_sent_is_refused(data: object) -> None:
    async with running() as node:
        actor, far = node.connect(codec="msgpack")
        await order(actor, "join", room="a")
        with pytest.raises(Refused) as refusal:
            await node.publish("a", data)

        assert (refusal.value.code, refusal.value.field) == ("bad_message", "data")
        assert node.manager.publisher.messages == 0
        await node.publish("a", 2**63)
        await settle()
        assert data_of(far) == [2**63]


async def test_a_node_takes_so_many_connections_and_no_more() -> None:
    async with running(Limits(connections=1)) as node:
        node.manager.admit(Principal("dev"))
        _, far = node.connect()
        with pytest.raises(Refused) as refusal:
            node.manager.admit(Principal("dev"))

        assert (refusal.value.code, refusal.value.setting) == ("overload", "limits.connections")
        far.vanish()
        node.manager.admit(Principal("dev"))


async def test_who_comes_back_after_a_restart_is_spread_over_time() -> None:
    async with running() as node:
        assert node.manager.reconnect_ms() == 1000
        for _ in range(1500):
            node.connect()

        assert node.manager.reconnect_ms() == 4500


async def test_a_drain_lets_speech_finish_and_then_tells_everybody() -> None:
    async with running() as node, anyio.create_task_group() as tasks:
        _, ear = await node.join("a")
        actor, mouth, stream = await node.speak("a")
        await actor.receive(b"\0" * 640)
        tasks.start_soon(node.manager.drain, 1.0, 30.0)
        await settle()
        assert (node.manager.draining, node.manager.ready) == (True, False)
        with pytest.raises(Refused) as refusal:
            node.manager.admit(Principal("dev"))

        assert refusal.value.code == "draining"
        assert (stream.ended, ear.closed) == (True, None)
        stream.transcribe("last words")
        stream.finish()
        await anyio.sleep(1)
        for far in (ear, mouth):
            assert isinstance(closing := far.got[-1], Closing)
            assert (closing.code, closing.retry, closing.reconnect_ms) == (1012, True, 1000)
            assert far.closed is not None
            assert far.closed.code == 1012

        assert [event.text for event in ear.of(Transcript)] == ["last words"]
        assert node.manager.actors == set()


async def test_a_drain_spreads_its_closings_over_the_window() -> None:
    async with running() as node:
        ended = []
        for _ in range(10):
            node.connect()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.manager.drain, 0.02, 30.0)
            while node.manager.actors:
                await anyio.sleep(0.001)
                ended.append(len(node.observer.ended))

        assert sorted(set(ended)) == list(range(ended[0], 11))
        assert len(set(ended)) >= 9


async def test_who_leaves_during_a_drain_is_not_closed_as_well() -> None:
    async with running() as node, anyio.create_task_group() as tasks:
        ends = [node.connect()[1] for _ in range(10)]
        tasks.start_soon(node.manager.drain, 1.0, 30.0)
        await anyio.sleep(0.012)
        for far in ends:
            far.vanish()

    assert sorted(set(node.observer.ended)) == [1006, 1012]
    assert len(node.observer.ended) == 10


async def test_a_drain_is_bounded_although_a_client_never_reads() -> None:
    async with running() as node:
        _, far = await node.join("a")
        far.stall()
        await node.publish("a", 1)
        began = anyio.current_time()
        await node.manager.drain(1.0, 3.0)
        assert anyio.current_time() - began == 3
        assert (far.aborted, far.closed) == (True, None)
        assert node.manager.actors == set()


async def test_an_engine_that_never_finishes_does_not_keep_a_drain_from_the_others() -> None:
    async with running(Limits(upstream=Upstream(end_within=60))) as node:
        _, ear = await node.join("b")
        _, mouth, stream = await node.speak("a")
        stream.stall()
        began = anyio.current_time()
        await node.manager.drain(1.0, 10.0)
        assert anyio.current_time() - began <= 10
        for far in (ear, mouth):
            assert isinstance(far.got[-1], Closing)
            assert far.closed is not None
            assert far.closed.code == 1012


async def test_a_drain_of_an_empty_node_takes_no_time() -> None:
    async with running() as node:
        began = anyio.current_time()
        await node.manager.drain(10.0, 30.0)
        assert anyio.current_time() == began


async def test_connections_may_end_after_their_node() -> None:
    async with running() as node:
        _, far = await node.join("a")

    far.vanish()
    assert node.manager.actors == set()
    actor, late = node.connect()
    await order(actor, "start", room="a")
    assert late.closed is not None
    assert late.closed.code == 1011
    assert actor.microphone is not None
    session = actor.microphone.session
    assert session is not None
    session.intake.ingress.close()
    session.intake.upstream.close()


async def test_the_end_of_a_connection_is_noted_once() -> None:
    async with running() as node:
        actor, far = await node.join("a")
        await order(actor, "leave", id=1, room="a")
        assert far.of(Ack)[-1].room == "a"
        await order(actor, "join", room="a")
        await order(actor, "leave", room="a")
        assert len(far.of(Ack)) == 1
        far.vanish()
        actor.gone(1006)
        assert node.observer.ended == [1006]


async def test_a_publish_is_acknowledged_if_it_has_an_id() -> None:
    async with running() as node:
        actor, far = node.connect()
        await order(actor, "publish", room="a", data=1)
        await order(actor, "publish", id=1, room="a", data=2)
        assert [(ack.id, ack.offset) for ack in far.of(Ack)] == [(1, 2)]


async def test_a_tenant_learns_nothing_of_the_rooms_of_another() -> None:
    async with running() as node:
        await node.publish("secret", 1, tenant="other")
        _, far = await node.join("secret", history=10)
        assert data_of(far) == []
        assert await node.backplane.rooms("dev") == ["dev/secret"]


async def test_a_session_goes_by_the_limits_of_its_tenant() -> None:
    limits = Limits(upstream=Upstream(frames=2))
    live = Limits(upstream=Upstream(frames=2, policy="drop_oldest"))
    async with running(limits) as node:
        node.manager.limits_of = lambda tenant: live if tenant == "live" else limits
        dropped = []
        for tenant in ("dev", "live"):
            actor, far = node.connect(tenant=tenant)
            await order(actor, "start", id="s", room="a")
            await settle()
            node.engine.streams[-1].stall()
            for _ in range(10):
                actor.receive_nowait(bytes(3200))

            await settle()
            dropped.append(len(far.of(Gap)) > 0 or node.manager.audio.upstream.dropped > 0)

        assert dropped == [False, True]
