"""No tenant gets more than its quotas, whatever it tries; and the others notice nothing."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.commands import Start
from actors.connection import ConnectionActor
from actors.errors import Refused
from actors.limits import Limits
from actors.messages import Ack, Closing, Error, Joined, Speech
from actors.meter import RETRY_AFTER, Meter, Meters
from actors.principal import Principal
from actors.quota import UNLIMITED, Quotas
from tests.actors.node import SECOND, Node, data_of, order, running
from tests.autojump import settle
from tests.fakes import DistantBackplane, FakeClock, FakeTransport

steps = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), max_size=60)
people = st.sampled_from(["", "ann", "bob"])
places = st.sampled_from(["", "192.0.2.1", "192.0.2.2"])


class Voice:
    """A session as a meter sees it."""

    def __init__(self) -> None:
        self.seconds, self.ending = 0.0, False


def quotas(**changes: int) -> Quotas:
    """Make quotas that bound nothing but what is named."""
    return msgspec.structs.replace(UNLIMITED, **changes)


def limit(node: Node, **changes: int) -> None:
    """Bound the tenant `dev`, and nobody else, from here on."""
    mine = quotas(**changes)
    node.manager.meters.quotas_of = lambda tenant: mine if tenant == "dev" else UNLIMITED


def refused(call: Callable[[], object]) -> Refused:
    """Return the refusal of a call by a quota."""
    with pytest.raises(Refused) as refusal:
        call()

    assert (refusal.value.code, refusal.value.status) == ("quota_exceeded", 429)
    return refusal.value


def hear(actor: ConnectionActor, seconds: int) -> bool:
    """Send audio as far as it is taken at once; return whether that is all of it."""
    return all(actor.receive_nowait(b"\0" * SECOND) for _ in range(seconds))


def told(far: FakeTransport, quota: str) -> float:
    """Return when to come again, as the newest error of a far end says; it names a quota."""
    error = far.of(Error)[-1]
    assert (error.code, error.setting) == ("quota_exceeded", f"tenants.dev.quotas.{quota}")
    assert quota in error.message
    assert isinstance(error.retry_after, float)
    assert error.retry_after > 0
    return error.retry_after


@given(st.integers(1, 20), st.integers(1, 50), st.integers(1, 2000), steps)
def test_no_stretch_has_more_messages_or_bytes_than_rate_and_burst(
    rate: int, burst: int, most: int, tries: list[tuple[float, int]]
) -> None:
    limits = quotas(
        publishes_per_second=rate, publishes_burst=burst, bytes_per_second=100, bytes_burst=most
    )
    meter, now = Meter("t", limits, 0.0), 0.0
    sent: list[tuple[float, int]] = []
    refusals: list[Refused] = []
    for pause, size in tries:
        now += pause
        try:
            meter.check_publish(now)
            meter.check_bytes(size, now)
        except Refused as refusal:
            refusals.append(refusal)
        else:
            sent.append((now, size))

    for each in refusals:
        assert each.setting.startswith("tenants.t.quotas.")
        assert (each.retry_after > 0) is not each.setting.endswith("bytes_burst")

    for index, (begin, _) in enumerate(sent):
        for length, (end, _) in enumerate(sent[index:], 1):
            size = sum(size for _, size in sent[index : index + length])
            assert length <= rate * (end - begin) + burst + 1e-6
            assert size <= 100 * (end - begin) + most + 1e-6


@given(st.lists(st.tuples(people, places), max_size=40), st.integers(0, 3))
def test_nobody_gets_in_beyond_a_quota_and_who_leaves_leaves_no_trace(
    comers: list[tuple[str, str]], most: int
) -> None:
    limits = quotas(connections_per_subject=most, connections_per_address=most, connections=5)
    meter, inside = Meter("t", limits, 0.0), []
    for subject, address in comers:
        who = Principal("t", subject)
        if meter.enter(who, address) is None:
            inside.append((who, address))
        else:
            meter.leave(who, address)

    assert len(inside) == meter.connections <= 5
    if most:
        for name in ("ann", "bob"):
            assert sum(who.subject == name for who, _ in inside) <= most

        for place in ("192.0.2.1", "192.0.2.2"):
            assert sum(address == place for _, address in inside) <= most

    for who, address in inside:
        meter.leave(who, address)

    assert [meter.connections, len(meter._subjects), len(meter._addresses)] == [0, 0, 0]


def test_a_broadcast_is_paid_for_after_it() -> None:
    meter = Meter("t", quotas(publishes_per_second=10, publishes_burst=2, bytes_burst=10), 0.0)
    meter.check_broadcast(22, 0.0)
    assert refused(lambda: meter.check_publish(0.0)).retry_after == 2.1
    meter.check_publish(2.1)
    meter.check_broadcast(0, 2.1)
    meter.check_bytes(1000, 0.0)


def test_who_looks_at_a_meter_makes_none() -> None:
    meters = Meters(lambda: 0.0)
    meters.quotas_of = lambda tenant: quotas(rooms=3)
    assert meters.look("t").quotas.rooms == 3
    assert meters.look("t") is not meters.look("t")
    assert meters.look("t").usage(0.0) == meters.of("t").usage(0.0)
    assert meters.look("t") is meters.of("t")


def test_other_quotas_hold_from_the_next_sweep_and_what_is_spent_stays_spent() -> None:
    allowed = {"t": quotas(publishes_per_second=1, publishes_burst=1)}
    meters = Meters(lambda: 0.0)
    meters.quotas_of = allowed.__getitem__
    meter = meters.of_key("t/a")
    assert meters.of("t") is meter
    meter.check_publish(0.0)
    allowed["t"] = quotas(publishes_per_second=1, publishes_burst=1, rooms=1)
    meters.sweep(0.0)
    assert meter.quotas.rooms == 1
    refused(lambda: meter.check_publish(0.0))
    allowed["t"] = UNLIMITED
    meters.sweep(0.0)
    meter.check_publish(0.0)


def test_audio_is_counted_once_and_owed_when_it_is_too_much() -> None:
    limits = quotas(audio_seconds_per_minute=60, audio_seconds_burst=2)
    meter, voice = Meter("t", limits, 0.0), Voice()
    meter.begin(voice, "t/a")
    for voice.seconds in (1.0, 1.5, 5.0):
        meter.listen(0.0)

    assert meter.audio_debt(0.0) == 3.0
    refusal = refused(lambda: meter.check_speaker("t/a", 1.0))
    assert (refusal.setting, refusal.retry_after) == (
        "tenants.t.quotas.audio_seconds_per_minute",
        2.0,
    )
    voice.seconds = 6.0
    meter.end(voice, "t/a", 1.0)
    assert (meter.audio_debt(1.0), meter.audio_debt(4.0)) == (3.0, 0.0)
    usage = meter.usage(4.0)
    assert (usage.audio_seconds, usage.rooms, usage.engine_streams) == (6.0, 0, 0)


@pytest.mark.anyio
async def test_one_connection_too_many_is_refused_and_the_next_one_fits_when_one_has_gone() -> None:
    async with running() as node:
        limit(node, connections=1)
        node.manager.admit(Principal("dev"))
        node.manager.admit(Principal("dev"))
        _, far = node.connect()
        refusal = refused(lambda: node.manager.admit(Principal("dev")))
        assert refusal.setting == "tenants.dev.quotas.connections"
        assert (refusal.message, refusal.retry_after) == (
            "the tenant's quota connections is 1",
            RETRY_AFTER,
        )
        _, late = node.connect()
        closing = late.got[-1]
        assert isinstance(closing, Closing)
        assert (closing.code, closing.reason, closing.retry) == (4006, "rate_limited", True)
        assert (closing.message, closing.retry_after) == (refusal.message, RETRY_AFTER)
        node.manager.admit(Principal("other"))
        far.vanish()
        node.manager.admit(Principal("dev"))


@pytest.mark.anyio
async def test_connections_are_counted_by_subject_and_by_address() -> None:
    async with running() as node:
        limit(node, connections_per_subject=1, connections_per_address=1)
        ann, bob = Principal("dev", "ann"), Principal("dev", "bob")
        far = FakeTransport()
        far.actor = node.manager.connect("listen", ann, far, "192.0.2.1")
        for who, place, quota in ((ann, "192.0.2.2", "subject"), (bob, "192.0.2.1", "address")):
            refusal = refused(lambda who=who, place=place: node.manager.admit(who, place))  # type: ignore[misc]
            assert refusal.setting == f"tenants.dev.quotas.connections_per_{quota}"

        node.manager.admit(bob, "192.0.2.2")
        node.manager.admit(Principal("other", "ann"), "192.0.2.1")
        far.vanish()
        node.manager.admit(ann, "192.0.2.1")


@pytest.mark.anyio
async def test_rooms_and_members_are_bounded_while_a_distant_join_is_on_its_way() -> None:
    plane = DistantBackplane(Limits().history, 100, FakeClock(), [0.1])
    async with running(backplane=plane) as node, anyio.create_task_group() as tasks:
        limit(node, rooms=2, members=2)
        comers = [node.connect() for _ in range(6)]
        for (actor, _), room in zip(comers, "abcaaa", strict=True):
            tasks.start_soon(lambda a, r: order(a, "join", id=1, room=r), actor, room)
            await anyio.sleep(0.01)

        told(comers[2][1], "rooms")
        await anyio.sleep(5)
        told(comers[5][1], "members")
        assert [bool(far.of(Joined)) for _, far in comers] == [
            True,
            True,
            False,
            True,
            False,
            False,
        ]
        _, other = await node.join("c", tenant="other")
        assert other.of(Joined)
        await order(comers[1][0], "leave", id=2, room="b")
        await order(comers[2][0], "join", id=3, room="c")
        assert comers[2][1].of(Joined)
        for _, far in comers:
            far.vanish()

        await anyio.sleep(5)
        assert node.manager.meters.of("dev").rooms == {}


@pytest.mark.anyio
@pytest.mark.parametrize("quota", ["speakers", "engine_streams", "rooms"])
async def test_one_speaker_too_many_is_refused(quota: str) -> None:
    async with running() as node:
        limit(node, **{quota: 1})
        actor, _, stream = await node.speak("a")
        late, far = node.connect()
        await order(late, "start", id="s", room="b")
        told(far, quota)
        await order(actor, "stop", id="e")
        await settle()
        await order(late, "start", id="t", room="b")
        await settle()
        assert bool(far.of(Ack)) is (quota == "speakers")
        stream.finish()
        await settle()
        await order(late, "start", id="u", room="b")
        await settle()
        assert {each.id for each in far.of(Ack)} == {"t" if quota == "speakers" else "u"}


@pytest.mark.anyio
async def test_a_speak_socket_that_finds_no_place_is_closed_and_may_come_back() -> None:
    async with running() as node:
        limit(node, speakers=1)
        await node.speak("a")
        actor, far = node.connect("speak")
        await actor.begin(Start(room="a"))
        closing = far.got[-1]
        assert isinstance(closing, Closing)
        assert (closing.code, closing.retry_after) == (4006, RETRY_AFTER)
        assert "speakers is 1" in closing.message


@pytest.mark.anyio
async def test_speakers_beyond_the_quota_of_audio_are_slowed_and_go_on() -> None:
    async with running() as node, anyio.create_task_group() as tasks:
        limit(node, audio_seconds_per_minute=60, audio_seconds_burst=2)
        actor, far, stream = await node.speak("a")
        assert hear(actor, 5)
        await anyio.sleep(1.5)
        assert not hear(actor, 1)
        tasks.start_soon(actor.receive, b"\1" * SECOND)
        await anyio.sleep(1)
        assert len(stream.audio) == 5 * SECOND
        other, ear = node.connect()
        await order(other, "start", id=1, room="b")
        assert 0 < told(ear, "audio_seconds_per_minute") < 3
        await anyio.sleep(3)
        assert len(stream.audio) == 6 * SECOND
        assert told(far, "audio_seconds_per_minute") == 3.0
        assert (far.closed, len(far.of(Error)), far.of(Error)[0].room) == (None, 1, "a")
        assert node.manager.meters.of("dev").usage(anyio.current_time()).audio_seconds == 6.0


@pytest.mark.anyio
async def test_the_newest_speaker_is_closed_if_the_others_would_wait_too_long() -> None:
    async with running() as node:
        limit(node, audio_seconds_per_minute=60, audio_seconds_burst=1)
        _, elder, _ = await node.speak("a")
        actor, newest, stream = await node.speak("a")
        node.engine.max_streams = 3
        free, theirs = node.connect(tenant="other")
        await order(free, "start", id=1, room="a")
        await settle()
        assert hear(actor, 8)
        assert hear(free, 20)
        await anyio.sleep(1.5)
        closing = newest.got[-1]
        assert isinstance(closing, Closing)
        assert (closing.code, closing.reason, closing.retry) == (4006, "rate_limited", True)
        assert "audio_seconds_per_minute is 60" in closing.message
        assert isinstance(closing.retry_after, float)
        assert 5 < closing.retry_after < 8
        assert stream.ended
        await anyio.sleep(10)
        assert (elder.closed, theirs.closed) == (None, None)
        assert hear(free, 20)


@pytest.mark.anyio
async def test_a_speaker_who_is_made_to_wait_does_not_count_as_silent() -> None:
    async with running(Limits(speech_idle=2)) as node:
        limit(node, audio_seconds_per_minute=60, audio_seconds_burst=1)
        actor, far, _ = await node.speak("a")
        assert hear(actor, 5)
        await anyio.sleep(3.5)
        assert far.closed is None
        assert far.of(Speech)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("quota", "limits"),
    [
        ("publishes_per_second", {"publishes_per_second": 2, "publishes_burst": 4}),
        ("bytes_per_second", {"bytes_per_second": 400, "bytes_burst": 800}),
    ],
)
async def test_messages_beyond_a_quota_are_refused_and_others_notice_nothing(
    quota: str, limits: dict[str, int]
) -> None:
    async with running(Limits(errors_burst=1000)) as node:
        limit(node, **limits)
        _, ear = await node.join("a")
        _, other = await node.join("a", tenant="other")
        actor, far = node.connect()
        for _ in range(20):
            await order(actor, "publish", room="a", data="x" * 100)
            await node.publish("a", "theirs", tenant="other")
            await anyio.sleep(0.05)

        await settle()
        assert 4 <= len(data_of(ear)) <= 8
        assert len(data_of(other)) == 20
        await anyio.sleep(told(far, quota))
        await order(actor, "publish", id="again", room="a", data="x" * 100)
        assert far.of(Ack)[-1].id == "again"
        usage = node.manager.meters.of("dev").usage(anyio.current_time())
        assert usage.publishes == len(data_of(ear)) + 1
        assert usage.deliveries == len(data_of(ear))
        assert usage.published_bytes > 100 * usage.publishes


@pytest.mark.anyio
async def test_who_goes_on_beyond_a_quota_is_closed_and_may_come_back() -> None:
    async with running(Limits(errors_burst=3)) as node:
        limit(node, publishes_per_second=1, publishes_burst=1)
        actor, far = node.connect()
        for _ in range(5):
            await order(actor, "publish", room="a", data=1)

        assert far.closed is not None
        assert (far.closed.code, far.closed.retry) == (4006, True)
        assert "publishes_per_second is 1" in far.closed.message
