"""What single engines behind a WebSocket add to the contract, against their doubles."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec
from server.engines import remote_stream
from server.engines.options import Connection, Deepgram, RevAi, Vosk
from server.engines.outbox import GATHERED
from server.engines.providers import deepgram, revai, vosk
from server.engines.remote_stream import WAITING
from tests.doubles import DeepgramDouble, RevAiDouble, VoskDouble, close, mute, numbered, numbers
from tests.doubles import raw as raw_bytes
from tests.engine_contract import collect, converse, finals, frames
from tests.remote_contract import SECOND, SPEC, fate, until, within

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Real time, on the server's loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def rev() -> Iterator[RevAiDouble]:
    with RevAiDouble() as double:
        yield double


@pytest.fixture
def deep() -> Iterator[DeepgramDouble]:
    with DeepgramDouble() as double:
        yield double


async def test_revai_is_sent_nothing_before_it_is_ready(rev: RevAiDouble) -> None:
    rev.ready_after = 0.1
    engine = revai(RevAi(url=rev.url, token=rev.secret))
    async with engine.open(SPEC) as stream:
        assert rev.connections[0].sent == 1
        assert stream.send_nowait(frames(numbered(1, 1))[0])

    late = revai(RevAi(url=rev.url, token=rev.secret, connection=Connection(connect_within=0.05)))
    with within(1):
        error = await fate(late.open(SPEC).__aenter__())

    assert isinstance(error, UpstreamLost)
    assert late.streams == 0
    await until(rev, lambda: not rev.open)


@pytest.mark.parametrize("token", ["wrong", "a&b=c", "ü", " "])
async def test_a_wrong_token_is_refused_and_never_shown(rev: RevAiDouble, token: str) -> None:
    error = await fate(revai(RevAi(url=rev.url, token=token)).open(SPEC).__aenter__())
    assert isinstance(error, Refused)
    assert (error.code, error.setting) == ("engine_unauthorized", "engines.revai.token")
    assert rev.connections[0].parameter("access_token") == token


async def test_a_parameter_that_revai_does_not_take_is_named(rev: RevAiDouble) -> None:
    options = RevAi(url=rev.url, token=rev.secret, custom_vocabulary_id="unknown")
    error = await fate(revai(options).open(SPEC).__aenter__())
    assert isinstance(error, Refused)
    assert error.code == "engine_rejected"
    assert "custom_vocabulary_id" in str(error)


async def test_revai_takes_every_parameter_that_can_be_set(rev: RevAiDouble) -> None:
    options = RevAi(
        url=rev.url,
        token=rev.secret,
        metadata="m",
        custom_vocabulary_id="v",
        filter_profanity=True,
        remove_disfluencies=True,
        detailed_partials=True,
        max_segment_duration_seconds=5,
        transcriber="t",
        enable_speaker_switch=True,
        skip_postprocessing=True,
        priority="speed",
        max_connection_wait_seconds=5,
        delete_after_seconds=0,
    )
    async with revai(options).open(AudioSpec(rate=8000, channels=2)) as stream:
        found = await converse(stream, frames(numbered(1, 60, 8000, 2)))

    assert all(each.words for each in found)  # also partials, as they are detailed
    assert numbers(finals(found)) == list(range(1, 61))


async def test_a_flush_brings_the_final_of_what_was_sent(deep: DeepgramDouble) -> None:
    engine = deepgram(Deepgram(url=deep.url, key=deep.secret, interim_results=False))
    assert not engine.acknowledges
    async with engine.open(SPEC) as stream:
        for frame in frames(numbered(1, 30)):
            assert stream.send_nowait(frame)

        assert stream.heard == 0.6
        assert await stream.flush()
        answer = await stream.receive()
        assert (answer.final, answer.flushed) == (True, True)
        assert numbers([answer.text]) == list(range(1, 31))
        assert await stream.flush()
        answer = await stream.receive()
        assert (answer.text, answer.final, answer.flushed) == ("", True, True)
        assert finals(await converse(stream, frames(numbered(31, 40)))) == [
            " ".join(map(str, range(31, 41)))
        ]
        assert not await stream.flush()


async def test_a_flush_without_an_answer_is_answered_in_time_or_at_the_end(
    deep: DeepgramDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "FLUSHED_WITHIN", 0.1)
    deep.answers_finalize = False
    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        with within(0.5):
            assert await stream.flush()
            assert (await stream.receive()).flushed

        assert await stream.flush()
        await stream.end()
        assert [each.flushed for each in await collect(stream)] == [True]


async def test_a_flush_of_a_lost_stream_is_a_loss(deep: DeepgramDouble) -> None:
    deep.plan(close(1008, "DATA-0000", after=640))
    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        await stream.send(frames(numbered(1, 1))[0])
        assert isinstance(await fate(collect(stream)), Refused)
        assert isinstance(await fate(stream.flush()), UpstreamLost)
        assert isinstance(await fate(stream.end()), Refused)


async def test_others_cannot_flush(rev: RevAiDouble) -> None:
    async with revai(RevAi(url=rev.url, token=rev.secret)).open(SPEC) as stream:
        assert not await stream.flush()

    with VoskDouble() as double:
        async with vosk(Vosk(url=double.url)).open(SPEC) as stream:
            assert not await stream.flush()


async def test_deepgram_is_kept_alive_while_no_audio_flows(
    deep: DeepgramDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "KEEPALIVE", 0.05)
    deep.idle_within = 1.0
    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        await stream.send(frames(numbered(1, 1))[0])
        await until(deep, lambda: len(deep.connections[0].texts) >= 24)
        assert {json.loads(text)["type"] for text in deep.connections[0].texts} == {"KeepAlive"}
        assert numbers(finals(await converse(stream, frames(numbered(2, 9))))) == [*range(1, 10)]


async def test_deepgram_waits_for_a_speaker_who_is_late_and_times_are_as_if_not(
    deep: DeepgramDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "KEEPALIVE", 0.05)
    deep.idle_within = 1.0
    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        await until(deep, lambda: len(deep.connections[0].texts) >= 24)
        assert bytes(deep.connections[0].audio) == bytes(640)
        found = await converse(stream, frames(numbered(1, 10)))
        assert found[-1].start == 0
        assert found[-1].end == pytest.approx(0.2)
        assert stream.heard == 0.2


async def test_deepgram_drops_a_client_that_is_silent(
    deep: DeepgramDouble,
) -> None:
    deep.idle_within = 0.1
    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        error = await fate(stream.receive())
        assert isinstance(error, UpstreamLost)
        assert "NET-0001" in str(error)


async def test_deepgram_tells_how_far_it_is(deep: DeepgramDouble) -> None:
    engine = deepgram(Deepgram(url=deep.url, key=deep.secret))
    assert engine.acknowledges
    async with engine.open(SPEC) as stream:
        await stream.send(AudioFrame(0, bytes(SECOND)))  # of silence: all results are empty
        await stream.send(frames(numbered(1, 10))[0])
        for frame in frames(numbered(1, 9)):
            await stream.send(frame)

        assert (await stream.receive()).text == "1 1 2 3 4 5 6 7 8 9"
        assert stream.heard == 1.2


async def test_vosk_is_sent_no_more_than_it_may_leave_unanswered() -> None:
    with VoskDouble() as double:
        double.plan(mute())
        engine = vosk(Vosk(url=double.url, unanswered=5, connection=Connection(send_within=0.2)))
        assert engine.acknowledges
        async with engine.open(SPEC) as stream:
            taken = [stream.send_nowait(frame) for frame in frames(numbered(1, 8))]
            assert taken == [True] * 5 + [False] * 3
            await until(double, lambda: double.connections[0].messages == 5)
            assert isinstance(await fate(stream.send(frames(numbered(1, 1))[0])), UpstreamLost)


async def test_a_flood_of_results_stops_the_provider_and_loses_nothing(
    rev: RevAiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "RATE", 1e6)
    text = json.dumps({"type": "final", "elements": [{"type": "text", "value": "x" * 1000}]})
    frame = b"\x81\x7e" + len(text).to_bytes(2, "big") + text.encode()
    flood = 4000
    rev.plan(raw_bytes(frame * flood, after=640))
    connection = Connection(ping_interval=0.1)
    engine = revai(RevAi(url=rev.url, token=rev.secret, connection=connection))
    async with engine.open(SPEC) as stream:
        await stream.send(frames(numbered(1, 1))[0])
        await anyio.sleep(0.4)  # longer than two pings: who is not read cannot answer
        assert len(stream._found) == WAITING
        for _ in range(flood):
            assert (await stream.receive()).final


async def test_a_refusal_without_a_length_ends_with_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 402 Payment Required\r\n\r\nno credit")

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        with within(1):
            error = await fate(vosk(Vosk(url=url)).open(SPEC).__aenter__())

        await anyio.to_thread.run_sync(thread.join)

    assert isinstance(error, Refused)
    assert error.code == "engine_unpaid"


@pytest.mark.parametrize("answer", [b"", b"\0\1\2", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
async def test_what_is_no_websocket_is_a_loss(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        with within(1):
            error = await fate(vosk(Vosk(url=url)).open(SPEC).__aenter__())

        await anyio.to_thread.run_sync(thread.join)

    assert isinstance(error, UpstreamLost)


async def test_pings_without_end_are_not_answered_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            wire = ServerProtocol()
            with client, suppress(OSError):
                wire.receive_data(client.recv(65_536))
                (request,) = wire.events_received()
                assert isinstance(request, Request)
                wire.send_response(wire.accept(request))
                client.sendall(b"".join(wire.data_to_send()))
                while True:
                    client.sendall((b"\x89\x7d" + bytes(125)) * 1000)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        async with vosk(Vosk(url=url)).open(SPEC) as stream:
            with within(5):
                error = await fate(stream.receive())

        await anyio.to_thread.run_sync(thread.join)

    assert isinstance(error, UpstreamLost)
    assert "pings" in str(error)


async def test_a_proxy_of_the_environment_is_not_taken(
    rev: RevAiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async with revai(RevAi(url=rev.url, token=rev.secret)).open(SPEC):
        pass


async def test_the_key_is_in_no_log(
    rev: RevAiDouble, deep: DeepgramDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with revai(RevAi(url=rev.url, token=rev.secret)).open(SPEC) as stream:
        await converse(stream, frames(numbered(1, 3)))

    async with deepgram(Deepgram(url=deep.url, key=deep.secret)).open(SPEC) as stream:
        await converse(stream, frames(numbered(1, 3)))

    ours = [record for record in caplog.records if record.name != "websockets.server"]
    assert rev.secret not in "".join(record.getMessage() for record in ours)


async def test_a_dial_that_is_given_up_at_any_moment_leaves_nothing(rev: RevAiDouble) -> None:
    engine = revai(RevAi(url=rev.url, token=rev.secret))
    with anyio.fail_after(10):
        for count in range(40):
            patience = (-0.2, 0.0, 0.0002, 0.0005, 0.001)[count % 5]
            with anyio.move_on_after(patience):
                async with engine.open(SPEC):
                    pass

    assert engine.streams == 0
    await until(rev, lambda: not rev.open)


@pytest.mark.parametrize("gather", [0.0, 100.0])
async def test_audio_that_is_gathered_comes_before_what_is_said_after_it(
    deep: DeepgramDouble, gather: float
) -> None:
    connection = Connection(gather_ms=gather)
    options = Deepgram(url=deep.url, key=deep.secret, connection=connection)
    async with deepgram(options).open(SPEC) as stream:
        for frame in frames(numbered(1, 5)):
            await stream.send(frame)

        assert await stream.flush()
        assert (await stream.receive()).text == "1 2 3 4 5"


async def test_of_one_stream_only_so_much_is_gathered(deep: DeepgramDouble) -> None:
    connection = Connection(gather_ms=100.0)
    options = Deepgram(url=deep.url, key=deep.secret, connection=connection)
    async with deepgram(options).open(SPEC) as stream:
        waiting = []
        for number in range(GATHERED // 640 + 1):
            assert stream.send_nowait(AudioFrame(640 * number, bytes(640)))
            waiting.append(stream._link._size)

        assert max(waiting) < GATHERED
        assert waiting[-1] == 0
