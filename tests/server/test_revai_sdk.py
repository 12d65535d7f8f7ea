"""Rev.ai's own package against a double of Rev.ai: its defects, and every way that it ends."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec
from server.engines import bridge
from server.engines.generator import GeneratorEngine
from server.engines.generator_options import Bridge, RevAiSdk
from server.engines.revai_sdk import RevAiSdkEngine
from tests.doubles import (
    Relay,
    RevAiDouble,
    abort,
    close,
    numbered,
    numbers,
    raw,
    refuse,
    say,
    slow,
    stall,
)
from tests.engine_contract import CHECKS, Check, collect, converse, finals, frames

pytestmark = pytest.mark.anyio

SPEC = AudioSpec()
SPEECH = numbered(1, 120)
SECOND = 32_000
QUICK = Bridge(leave_within=0.3)


@pytest.fixture(autouse=True)
def anyio_backend() -> str:
    """Real sockets, on the loop that the server uses."""
    return "asyncio"


@pytest.fixture
def double() -> Iterator[RevAiDouble]:
    with RevAiDouble() as double:
        yield double


@pytest.fixture(autouse=True)
def _no_thread_is_left(double: RevAiDouble) -> Iterator[None]:
    """No thread of the package either, and no connection."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("AnyIO"):
            thread.join(2)
            assert not thread.is_alive(), thread

    double.resume()
    double.wait(lambda: not double.open)


def engine_of(double: RevAiDouble, **settings: Any) -> GeneratorEngine:
    url = f"ws://127.0.0.1:{double.port}"
    return RevAiSdkEngine(
        RevAiSdk(**{"url": url, "token": double.secret, "bridge": QUICK, **settings})
    )


async def ending(engine: GeneratorEngine, audio: bytes = SPEECH) -> Exception:
    """Hold a conversation, and return what ends it too early."""
    try:
        async with engine.open(SPEC) as stream, anyio.create_task_group() as tasks:
            try:

                async def feed() -> None:
                    try:
                        for frame in frames(audio):
                            await stream.send(frame)
                    except (Refused, UpstreamLost):
                        pass

                tasks.start_soon(feed)
                await collect(stream)
            except (Refused, UpstreamLost) as error:
                tasks.cancel_scope.cancel()
                return error
    except (Refused, UpstreamLost) as error:
        return error
    finally:
        assert (engine.streams, engine.abandoned) == (0, 0)

    raise AssertionError("it ended in order")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract_of_engines(double: RevAiDouble, check: Check) -> None:
    engine = engine_of(double)
    await check(engine, SPEC, SPEECH)
    assert (engine.streams, engine.abandoned) == (0, 0)


async def test_audio_goes_in_and_finals_come_out(double: RevAiDouble) -> None:
    spec = AudioSpec(rate=8000, channels=2, language="fr")
    speech = numbered(1, 120, 8000, 2)
    engine = engine_of(double, metadata="m", filter_profanity=True, transcriber="machine")
    async with engine.open(spec) as stream:
        found = await converse(stream, frames(speech))

    assert numbers(finals(found)) == [*range(1, 121)]
    (connection,) = double.connections
    assert bytes(connection.audio) == speech
    assert connection.texts == ["EOS"]
    query = {name: values[0] for name, values in connection.query.items()}
    assert query.pop("user_agent").startswith("RevAi-PythonSDK/")
    assert query == {
        "access_token": double.secret,
        "content_type": "audio/x-raw;layout=interleaved;rate=8000;format=S16LE;channels=2",
        "language": "fr",
        "metadata": "m",
        "filter_profanity": "true",
        "transcriber": "machine",
    }


# The defects of the package, in the order of the reference.


async def test_defect_1_a_second_start_fails_so_each_stream_has_its_own_client(
    double: RevAiDouble,
) -> None:
    engine = engine_of(double)
    async with engine.open(SPEC) as first, engine.open(SPEC) as second:
        for stream in (first, second):
            assert numbers(finals(await converse(stream, frames(SPEECH)))) == [*range(1, 121)]

    assert len(double.connections) == 2


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        (4001, "engine_unauthorized"),
        (4002, "engine_rejected"),
        (4003, "engine_unpaid"),
        (4013, "engine_busy"),
        (4029, "engine_busy"),
    ],
)
async def test_defect_2_an_early_close_stops_the_sending_and_frees_the_socket(
    double: RevAiDouble, code: int, refusal: str
) -> None:
    double.plan(close(code, "the reason"))
    with anyio.fail_after(2):
        error = await ending(engine_of(double), audio=SPEECH * 20)

    assert isinstance(error, Refused)
    assert error.code == refusal
    assert "the reason" in error.message
    assert "engines.revai_sdk" in error.setting
    double.wait(lambda: not double.open)  # within the server's own patience: it need not cut


async def test_defect_2_a_close_within_the_stream_is_a_loss_behind_what_was_said(
    double: RevAiDouble,
) -> None:
    double.plan(*(close(code, "why", after=SECOND) for code in (4010, 4013, 1000, 1011)))
    engine = engine_of(double)
    for code in (4010, 4013, 1000, 1011):
        async with engine.open(SPEC) as stream:
            for frame in frames(SPEECH[:SECOND]):
                await stream.send(frame)

            found = [await stream.receive() for _ in range(5)]
            assert numbers(finals(found)) == [*range(1, 51)]
            with pytest.raises(UpstreamLost, match=f"closed the stream with {code}"):
                await stream.receive()


@pytest.mark.parametrize("full", [False, True], ids=["sending", "blocked in a full buffer"])
async def test_defect_3_leaving_while_it_streams_shows_no_traceback(
    double: RevAiDouble, full: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if full:
        double.plan(stall(after=SECOND))

    engine = engine_of(double)
    with anyio.fail_after(2):
        async with engine.open(SPEC) as stream:
            with anyio.move_on_after(0.2):
                while True:
                    for frame in frames(SPEECH * 10, 6400):
                        await stream.send(frame)

            assert stream.heard > 1

    assert (engine.streams, engine.abandoned) == (0, 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "engine_unauthorized"),
        (402, "engine_unpaid"),
        (404, "engine_rejected"),
        (429, "engine_busy"),
        (302, "engine_rejected"),
        (503, ""),
    ],
)
async def test_defect_4_a_failed_upgrade_ends_the_stream_in_open(
    double: RevAiDouble, status: int, code: str
) -> None:
    double.plan(refuse(status, location="ws://127.0.0.1:1/elsewhere"))
    with pytest.raises((Refused, UpstreamLost)) as raised:
        async with engine_of(double).open(SPEC):
            pytest.fail("a stream without a socket")

    assert str(status) in str(raised.value) or status == 302
    assert getattr(raised.value, "code", "") == code
    assert len(double.requests) == 1


async def test_defect_4_a_port_where_nobody_listens_ends_the_stream_in_open(
    double: RevAiDouble,
) -> None:
    with pytest.raises(UpstreamLost, match="the revai_sdk engine lost its connection: Conn"):
        async with engine_of(double, url="ws://127.0.0.1:1").open(SPEC):
            pytest.fail("a stream without a socket")


async def test_defect_4_a_port_that_speaks_no_tls_ends_the_stream_in_open(
    double: RevAiDouble,
) -> None:
    with pytest.raises(UpstreamLost, match="the revai_sdk engine lost its connection: SSL"):
        async with engine_of(double, url=f"wss://127.0.0.1:{double.port}").open(SPEC):
            pytest.fail("a stream without TLS")


@pytest.mark.parametrize("after", [-1, SECOND, len(SPEECH)])
async def test_defect_5_a_connection_that_dies_without_a_close_is_a_loss(
    double: RevAiDouble, after: int
) -> None:
    double.plan(abort(after))
    with anyio.fail_after(2):
        error = await ending(engine_of(double))

    assert isinstance(error, UpstreamLost)
    assert "lost its connection" in str(error)


async def test_defect_6_a_silent_server_is_given_up_in_connecting(double: RevAiDouble) -> None:
    double.plan(slow(5))
    with anyio.fail_after(2):
        error = await ending(engine_of(double, connect_within=0.2))

    assert str(error) == "the revai_sdk engine was silent for too long"


async def test_defect_6_a_silent_peer_is_given_up_and_one_that_answers_pings_is_not(
    double: RevAiDouble,
) -> None:
    engine = engine_of(double, silent_within=0.15)
    with Relay(double.port) as relay:
        silent = engine_of(double, url=f"ws://127.0.0.1:{relay.port}", silent_within=0.15)
        async with engine.open(SPEC) as quiet, silent.open(SPEC) as stream:
            await stream.send(frames(SPEECH)[0])
            double.wait(lambda: len(double.open) == 2 and all(each.sent for each in double.open))
            relay.silence()
            with anyio.fail_after(2), pytest.raises(UpstreamLost, match="silent for too long"):
                await stream.receive()

            assert numbers(finals(await converse(quiet, frames(SPEECH)))) == [*range(1, 121)]


async def test_defect_7_a_full_socket_stops_the_pulling_and_send_waits(
    double: RevAiDouble,
) -> None:
    double.plan(stall(after=SECOND))
    speech = SPEECH * 100
    async with engine_of(double).open(SPEC) as stream:
        waiting = frames(speech, 64_000)
        with anyio.move_on_after(0.5) as patience:
            while waiting:
                await stream.send(waiting[0])
                waiting.pop(0)

        assert patience.cancelled_caught
        assert 1 < stream.heard < len(speech) / SECOND
        double.resume()
        found = await converse(stream, waiting)
        assert stream.heard == len(speech) / SECOND

    assert bytes(double.connections[0].audio) == speech
    assert len(numbers(finals(found))) == 120 * 100


async def test_defect_7_audio_that_is_never_taken_is_given_up(double: RevAiDouble) -> None:
    double.plan(stall(after=SECOND))
    engine = engine_of(double, silent_within=0.2)
    with anyio.fail_after(3):
        error = await ending(engine, audio=SPEECH * 200)

    assert isinstance(error, UpstreamLost)


# Other trouble.


@pytest.mark.parametrize(
    "message",
    [b"\x00\x01", '{"type":"later"}', '{"type":"connected","id":"again"}'],
    ids=["binary", "unknown", "connected"],
)
async def test_a_message_that_says_nothing_changes_nothing(
    double: RevAiDouble, message: str | bytes
) -> None:
    double.plan(say(message, after=SECOND))
    async with engine_of(double).open(SPEC) as stream:
        found = await converse(stream, frames(SPEECH))

    assert numbers(finals(found)) == [*range(1, 121)]


@pytest.mark.parametrize(
    "fault",
    [
        say("no JSON", after=0),
        say("[]", after=0),
        say('{"type":"connected"}'),
        say('{"type":"final","elements":7}', after=0),
        raw(b"\xff" * 64, after=0),
        raw(b"\x81\x7f" + bytes(4) + b"\x7f\xff\xff\xff" + b" " * 1_100_000, after=0),
        raw(b"\x88\x00", after=0),
    ],
    ids=lambda fault: str(fault.payload)[:30],
)
async def test_garbage_is_a_loss(double: RevAiDouble, fault: Any) -> None:
    double.plan(fault)
    with anyio.fail_after(2):
        error = await ending(engine_of(double, silent_within=0.2))

    assert isinstance(error, UpstreamLost)
    assert "revai_sdk engine" in str(error)


async def test_a_stream_that_is_left_while_it_connects_is_cut(
    double: RevAiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "INTERRUPTED_WITHIN", 0.2)
    double.plan(slow(1))
    engine = engine_of(double, connect_within=20.0)
    with anyio.move_on_after(0.1) as patience:
        async with engine.open(SPEC):
            pytest.fail("open before the upgrade")

    assert patience.cancelled_caught
    assert (engine.streams, engine.abandoned) == (0, 0)


async def test_a_stream_that_hears_no_end_is_left_in_time(double: RevAiDouble) -> None:
    double.plan(stall(after=len(SPEECH)))
    engine = engine_of(double)
    with anyio.fail_after(2):
        async with engine.open(SPEC) as stream:
            for frame in frames(SPEECH):
                await stream.send(frame)

            await stream.end()
            with anyio.move_on_after(0.1) as patience:
                await collect(stream)

            assert patience.cancelled_caught

    assert (engine.streams, engine.abandoned) == (0, 0)


async def test_without_a_token_or_the_package_it_is_unconfigured(
    double: RevAiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused) as refusal:
        async with engine_of(double, token="").open(SPEC):
            pytest.fail("a stream without a token")

    assert refusal.value.code == "engine_unconfigured"
    assert refusal.value.setting == "engines.revai_sdk.token"
    monkeypatch.setitem(sys.modules, "rev_ai", None)
    for module in ("rev_ai.models", "rev_ai.streamingclient", "server.engines.revai_client"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    with pytest.raises(Refused, match="pip install rev_ai") as refusal:
        async with engine_of(double).open(SPEC):
            pytest.fail("a stream without the package")

    assert refusal.value.code == "engine_unconfigured"


async def test_the_token_shows_nowhere(
    double: RevAiDouble, caplog: pytest.LogCaptureFixture
) -> None:
    options = RevAiSdk(token=double.secret)
    assert double.secret not in f"{options!r} {options}"
    caplog.set_level("DEBUG")
    double.plan(
        close(4001, f"bad token {double.secret}"),
        refuse(401, double.secret),
        say(double.secret, after=0),
    )
    for _ in range(3):
        error = await ending(engine_of(double))
        assert double.secret not in "".join(traceback.format_exception(error))

    ours = [each for each in caplog.records if not each.name.startswith("websockets")]
    assert len(ours) == 1
    assert double.secret not in caplog.handler.format(ours[0])


def test_an_address_that_cannot_be_dialled_is_refused() -> None:
    with pytest.raises(ValueError, match="an address is"):
        RevAiSdk(url="https://api.rev.ai")


async def test_audio_after_the_loss_is_not_taken(double: RevAiDouble) -> None:
    double.plan(close(4010, "Shutting Down", after=640))
    async with engine_of(double).open(SPEC) as stream:
        await stream.send(AudioFrame(0, bytes(640)))
        with pytest.raises(UpstreamLost, match="Shutting Down"):
            await stream.receive()

        with pytest.raises(UpstreamLost, match="Shutting Down"):
            await stream.send(AudioFrame(640, bytes(640)))
