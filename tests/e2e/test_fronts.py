"""Clients of other vendors' protocols: every message of each, over the echo engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import anyio
import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from actors.messages import AudioSpec
from server.engines import options, providers
from server.engines.remote import RemoteEngine
from tests.e2e.clients import WITHIN, client
from tests.e2e.conftest import LEAN
from tests.e2e.test_abuse import TEXT, masked
from tests.e2e.test_slow import close_code, read_all, upgrade
from tests.e2e.vendors import (
    CLOSE_STREAM,
    EOF,
    FINALIZE,
    KEEP_ALIVE,
    RESET,
    SECOND,
    SECRET,
    TOKEN,
    TYPE,
    Document,
    VendorServer,
    deepgram,
    opened,
    revai,
    vendor_serving,
    vosk,
)
from tests.engine_contract import CHECKS, Check
from tests.protocols import PROTOCOLS
from tests.server.commands import roomcast

pytestmark = pytest.mark.anyio
Serve = Callable[..., VendorServer]
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
STREAM = "/speechtotext/v1/stream"


@pytest.fixture(scope="module")
def server(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorServer]:
    """A server with all fronts and the echo engine alone."""
    log = tmp_path_factory.mktemp("vendors") / "log"
    with vendor_serving(log, engines__enabled="echo", **PROTOCOLS[protocol]) as running:
        yield running
        assert SECRET not in running.output


@pytest.fixture
def serve(protocol: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with all fronts and settings of one's own."""
    more = {"engines__enabled": "echo", **PROTOCOLS[protocol]}
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            vendor_serving(tmp_path / "log", **more, **settings)
        )


def texts(documents: list[Document]) -> list[str]:
    """Return the texts of the finals among what Deepgram's client got."""
    return [
        each["channel"]["alternatives"][0]["transcript"]
        for each in documents
        if each["type"] == "Results" and each["is_final"]
    ]


async def test_deepgram_a_stream_from_speech_to_metadata(server: VendorServer) -> None:
    wanted = {"interim_results": "true", "vad_events": "true", "utterance_end_ms": 1000}
    audio = bytes(range(256)) * 275
    async with (
        client(f"{server.ws}/v1/rooms/dg/listen") as listener,
        deepgram(server, room="dg", name="Ann", **wanted, whatever="1") as front,
    ):
        await listener.until("joined")
        await front.say(audio, CLOSE_STREAM, KEEP_ALIVE, "x", b"late")
        assert await front.ends() == (1000, "")
        heard = await listener.finals(3)

    *events, metadata = front.got
    kinds = [each["type"] for each in events if each.get("is_final") is not False]
    assert kinds == ["SpeechStarted", "Results", "UtteranceEnd"] * 3
    assert texts(events) == [final["text"] for final in heard] == ["echo 1", "echo 2", "echo 3"]
    assert {final["speaker"]["name"] for final in heard} == {"Ann"}
    finals = [each for each in events if each.get("is_final")]
    assert [(each["start"], each["duration"]) for each in finals] == [(0, 1), (1, 1), (2, 0.2)]
    assert 0 < sum(each.get("is_final") is False for each in events) <= 9
    assert metadata["type"] == "Metadata"
    assert (metadata["duration"], metadata["channels"]) == (2.2, 1)
    assert metadata["sha256"] == sha256(audio).hexdigest()
    request = front.socket.response.headers["dg-request-id"]
    assert {metadata["request_id"], *(each["metadata"]["request_id"] for each in finals)} == {
        request
    }


async def test_deepgram_partials_are_for_who_asks_and_empty_messages_are_nothing(
    server: VendorServer,
) -> None:
    async with deepgram(server) as front:
        await front.say(b"", SECOND, b"", CLOSE_STREAM)
        assert await front.ends() == (1000, "")

    assert [each["type"] for each in front.got] == ["Results", "Metadata"]


async def test_deepgram_finalize_is_always_answered(server: VendorServer) -> None:
    async with deepgram(server) as front:
        await front.say(FINALIZE)
        answer = await front.until(type="Results", from_finalize=True)
        assert (answer["is_final"], texts([answer])) == (True, [""])
        await front.say(SECOND[:16_000], *[FINALIZE] * 20, SECOND[:16_000], CLOSE_STREAM)
        assert await front.ends() == (1000, "")

    results = [each for each in front.got if each["type"] == "Results"]
    assert sum(each["from_finalize"] for each in results) == 21
    said = [each for each in results if texts([each]) != [""]]
    assert texts(said) == ["echo 1", "echo 1"]
    assert [each["from_finalize"] for each in said] == [True, False]
    ends = [each["start"] + each["duration"] for each in results]
    assert [each["start"] for each in results] == [0, *ends[:-1]]


async def test_deepgram_what_is_no_message_is_an_error_and_the_stream_lives(
    server: VendorServer,
) -> None:
    async with deepgram(server) as front:
        for text in ("x", "{", '{"type":"Nothing"}', "[" * 3000):
            answer = await front.ask(text)
            assert (answer["type"], answer["variant"]) == ("Error", "SchemaError")
            assert answer["message"] == text[:1000]

        assert (await front.ask('{"type":"Configure","features":{}}'))["type"] == "ConfigureSuccess"
        answer = await front.ask('{"type":"Configure","keyterms":["a"]}')
        assert answer["type"] == "ConfigureFailure"
        await front.say(SECOND, CLOSE_STREAM)
        assert await front.ends() == (1000, "")

    assert texts(front.got) == ["echo 1"]


async def test_deepgram_a_flood_of_garbage_ends_the_connection_and_no_other(
    server: VendorServer,
) -> None:
    async with deepgram(server) as other, deepgram(server) as front:
        await front.say(*["garbage"] * 300)
        assert (await front.ends())[0] == 1008
        assert front.got[-2]["type"] == "Error"
        await other.say(SECOND, CLOSE_STREAM)
        assert await other.ends() == (1000, "")
        assert texts(other.got) == ["echo 1"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("encoding=speex", "encoding"),
        ("encoding=linear16", "sample_rate"),
        ("encoding=linear16&sample_rate=1", "sample_rate"),
        ("encoding=linear16&sample_rate=16000&channels=9", "channels"),
        ("encoding=linear16&sample_rate=16000&utterance_end_ms=5", "utterance_end_ms"),
        ("encoding=linear16&sample_rate=16000&room=a%20b", "room"),
        ("encoding=linear16&sample_rate=16000&engine=none", "engine"),
    ],
)
async def test_deepgram_a_wrong_parameter_is_named_in_a_400(
    server: VendorServer, query: str, named: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with opened(f"{server.ws}/v1/listen?{query}", additional_headers=TOKEN):
            raise AssertionError("it was accepted")

    response = refusal.value.response
    assert response.status_code == 400
    assert named in response.headers["dg-error"]
    body = msgspec.json.decode(response.body or b"")
    assert body["request_id"] == response.headers["dg-request-id"]


async def test_deepgram_without_a_token_it_is_a_401(server: VendorServer) -> None:
    for headers in ({}, {"Authorization": "Token "}, {"Authorization": f"Basic {SECRET}"}):
        with pytest.raises(InvalidStatus) as refusal:
            async with opened(f"{server.ws}{LISTEN}", additional_headers=headers):
                raise AssertionError("it was accepted")

        response = refusal.value.response
        assert response.status_code == 401
        assert response.headers["dg-error"]
        assert response.headers["dg-request-id"]
        assert SECRET not in f"{response.headers}{response.body!r}"


@pytest.mark.parametrize("scheme", ["token", "bearer"])
async def test_deepgram_a_browsers_token_comes_as_a_subprotocol(
    server: VendorServer, scheme: str
) -> None:
    offered = [Subprotocol(each) for each in (scheme, SECRET, "x-deepgram-session-id", "1")]
    async with opened(f"{server.ws}{LISTEN}", subprotocols=offered) as front:
        assert front.socket.subprotocol == scheme
        await front.say(CLOSE_STREAM)
        assert await front.ends() == (1000, "")


async def test_deepgram_audio_that_is_nothing_known_ends_with_data_0000(
    server: VendorServer,
) -> None:
    for audio in (bytes(64), b"OggS" + bytes(300_000)):
        async with deepgram(server, encoding=None, sample_rate=None) as front:
            await front.say(FINALIZE, audio)
            code, reason = await front.ends()
            assert (code, reason.partition(":")[0]) == (1008, "DATA-0000")
            assert [each["type"] for each in front.got] == ["Results", "Error", "Metadata"]

    async with deepgram(server, encoding=None) as front:
        await front.say(SECOND, CLOSE_STREAM)
        assert await front.ends() == (1000, "")
        assert texts(front.got) == ["echo 1"]


async def test_revai_a_stream_from_connected_to_eos(server: VendorServer) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/rev/listen") as listener,
        revai(server, room="rev", start_ts="10", detailed_partials="true", metadata="m") as front,
    ):
        await listener.until("joined")
        await front.say(SECOND, b"", SECOND[:9600], "EOS", b"late", "EOS")
        assert await front.ends() == (1000, "Normal Closure.")
        heard = await listener.finals(2)

    connected, *hypotheses = front.got
    assert connected["type"] == "connected"
    assert connected["id"]
    assert [each["type"] for each in hypotheses] == [*["partial"] * 4, "final", "partial", "final"]
    finals = [each for each in hypotheses if each["type"] == "final"]
    assert (
        ["".join(element["value"] for element in each["elements"]) for each in finals]
        == [each["text"] for each in heard]
        == ["echo 1", "echo 2"]
    )
    assert [(each["ts"], each["end_ts"]) for each in finals] == [(10, 11), (11, 11.2)]
    assert hypotheses[0]["elements"][0] == {
        "type": "text",
        "value": "echo",
        "ts": 10.0,
        "end_ts": 10.067,
        "confidence": 1.0,
    }


async def test_revai_a_content_type_may_come_raw(server: VendorServer) -> None:
    query = f"access_token={SECRET}&content_type={TYPE}&user_agent=x"
    async with opened(f"{server.ws}{STREAM}?{query}") as front:
        await front.say(SECOND, "EOS")
        assert await front.ends() == (1000, "Normal Closure.")

    assert [each["type"] for each in front.got].count("final") == 1


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        (f"content_type={TYPE}", 4001, "access_token"),
        (f"access_token=&content_type={TYPE}", 4001, "access_token"),
        ("access_token=x", 4002, "content_type"),
        ("access_token=x&content_type=audio/x-raw", 4002, "content_type"),
        (f"access_token=x&content_type={TYPE}&start_ts=x", 4002, "start_ts"),
        (f"access_token=x&content_type={TYPE}&metadata={'m' * 600}", 4002, "metadata"),
        (f"access_token=x&content_type={TYPE}&room=%2F", 4002, "room"),
        (f"access_token=x&content_type={TYPE}&engine=none", 4002, "engine"),
    ],
)
async def test_revai_what_is_wrong_is_named_in_the_close_frame(
    server: VendorServer, query: str, code: int, named: str
) -> None:
    async with opened(f"{server.ws}{STREAM}?{query}") as front:
        ended, reason = await front.ends()

    assert (ended, front.got) == (code, [])
    assert named in reason


@pytest.mark.parametrize("text", ["eos", '{"type":"EOS"}', ""])
async def test_revai_any_other_text_is_invalid(server: VendorServer, text: str) -> None:
    async with revai(server) as front:
        await front.until(type="connected")
        await front.say(text)
        assert (await front.ends())[0] == 1007


async def test_revai_early_audio_of_an_unknown_type_has_to_say_what_it_is(
    server: VendorServer,
) -> None:
    async with revai(server, content_type="audio/*") as front:
        await front.until(type="connected")
        await front.say(bytes(64))
        assert (await front.ends())[0] == 1007

    async with revai(server, content_type="audio/*") as front:
        await front.say("EOS")
        assert await front.ends() == (1000, "Normal Closure.")


async def test_vosk_one_reply_for_each_message_in_lock_step(server: VendorServer) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/vosk/listen") as listener,
        vosk(server, "/any/path?engine=echo&room=vosk") as front,
    ):
        await listener.until("joined")
        await front.say('{"config" : {"sample_rate" : 8000, "words" : 1, "model" : "/etc"}}')
        replies = [await front.ask(bytes(3200)) for _ in range(7)]
        partials = [each.get("partial") for each in replies]
        assert partials[:4] == [f"echo 1 part {part}" for part in (1, 2, 3, 4)]
        assert replies[4]["text"] == "echo 1"
        assert [each["word"] for each in replies[4]["result"]] == ["echo", "1"]
        assert partials[5:] == ["echo 2 part 1", "echo 2 part 2"]
        assert await front.ask(b"") == {"partial": "echo 2 part 2"}
        assert (await front.ask(RESET))["text"] == "echo 2"
        await front.say(bytes(8000))
        last = [await front.receive() for _ in range(13)]
        await front.say(EOF)
        assert await front.ends() == (1000, "")
        heard = [final["text"] for final in await listener.finals(3)]

    assert len(front.got) == len(replies) + 2 + len(last) + 1
    assert (
        " ".join(filter(None, (each.get("text") for each in front.got))).split()
        == " ".join(heard).split()
    )


async def test_vosk_without_audio_there_is_nothing_to_say(server: VendorServer) -> None:
    async with vosk(server) as front:
        assert await front.ask(b"") == {"partial": ""}
        assert await front.ask(RESET) == {"text": ""}
        assert await front.ask(EOF) == {"text": ""}
        assert await front.ends() == (1000, "")


async def test_vosk_garbage_is_not_replied_to_and_too_much_of_it_is_an_end(
    server: VendorServer,
) -> None:
    async with vosk(server) as front:
        await front.say("x", "{", '{"type":"Finalize"}', "[" * 3000)
        assert await front.ask(b"") == {"partial": ""}
        await front.say(*["garbage"] * 300)
        assert (await front.ends())[0] == 1008


async def test_vosk_a_rate_that_is_none_ends_the_connection(server: VendorServer) -> None:
    async with vosk(server) as front:
        await front.say('{"config" : {"sample_rate" : "fast"}}')
        code, reason = await front.ends()

    assert code == 1007
    assert "sample_rate" in reason


def test_vosk_its_port_has_no_http(server: VendorServer) -> None:
    with pytest.raises(HTTPError) as missing:
        urlopen(f"http://127.0.0.1:{server.vosk_port}/readyz", timeout=5)

    missing.value.close()
    assert missing.value.code == 404


async def test_vosk_its_port_has_no_other_protocol(server: VendorServer) -> None:
    async with vosk(server, "/v1/connect?engine=echo") as front:
        assert await front.ask(EOF) == {"text": ""}

    with pytest.raises(InvalidStatus) as refusal:
        async with vosk(server, "/?engine=none"):
            raise AssertionError("it was accepted")

    assert refusal.value.response.status_code == 400


FRONTS: dict[str, Callable[..., Any]] = {
    "deepgram": partial(deepgram, interim_results="true"),
    "revai": revai,
    "vosk": vosk,
}


@pytest.mark.parametrize("size", [100_000, 1_000_000])
@pytest.mark.parametrize("name", FRONTS)
async def test_a_text_over_the_limit_is_too_big(server: VendorServer, name: str, size: int) -> None:
    async with FRONTS[name](server) as front:
        await front.say("x" * size)
        assert (await front.ends())[0] == 1009


@LEAN
async def test_who_disappears_leaves_no_session_behind(serve: Serve) -> None:
    server = serve(speech__resume_grace=600)
    async with AsyncExitStack() as stack:
        for connect in FRONTS.values():
            front = await stack.enter_async_context(connect(server))
            await front.socket.send(bytes(6400))
            assert await front.receive()
            front.socket.transport.abort()

        with anyio.fail_after(WITHIN):
            while server.metric('roomcast_engine_streams{engine="echo"}'):
                await anyio.lowlevel.checkpoint()


def test_who_goes_on_after_the_close_is_cut(server: VendorServer) -> None:
    began = time.monotonic()
    turned_away = f"{STREAM}?content_type={TYPE}"
    taken = f"{turned_away}&access_token={SECRET}&engine=echo"
    with upgrade(server, turned_away, 65_536) as first, upgrade(server, taken, 65_536) as second:
        second.sendall(masked(TEXT, b"?"))
        assert [close_code(read_all(each)) for each in (first, second)] == [4001, 1007]

    assert time.monotonic() - began < 4


@LEAN
async def test_a_busy_engine_is_told_in_the_words_of_each_vendor(serve: Serve) -> None:
    server = serve(engines__echo__max_streams=1)
    async with vosk(server) as speaker:
        await speaker.ask(bytes(3200))
        with pytest.raises(InvalidStatus) as refusal:
            async with deepgram(server):
                raise AssertionError("it was accepted")

        assert refusal.value.response.status_code == 429
        assert refusal.value.response.headers["dg-error"]
        async with revai(server) as front:
            assert await front.ends() == (4013, "Try Again Later")

        with pytest.raises(InvalidStatus) as refusal:
            async with vosk(server):
                raise AssertionError("it was accepted")

        assert refusal.value.response.status_code == 503


@LEAN
async def test_a_full_node_is_told_in_the_words_of_each_vendor(serve: Serve) -> None:
    server = serve(limits__connections=1)
    async with client(f"{server.ws}/v1/connect"):
        with pytest.raises(InvalidStatus) as refusal:
            async with deepgram(server):
                raise AssertionError("it was accepted")

        assert refusal.value.response.status_code == 429
        async with revai(server) as front:
            assert (await front.ends())[0] == 4029


async def test_an_end_of_the_server_brings_the_finals_and_the_code_of_each_vendor(
    serve: Serve,
) -> None:
    server = serve()
    async with AsyncExitStack() as stack:
        fronts = {name: await stack.enter_async_context(FRONTS[name](server)) for name in FRONTS}
        part = SECOND[:9600]
        await fronts["deepgram"].say(part)
        await fronts["revai"].say(part)
        await fronts["revai"].until(type="partial")
        assert (await fronts["vosk"].ask(part))["partial"]
        server.terminate()
        ends = {name: await fronts[name].ends() for name in fronts}

    assert server.wait() == 0
    assert ends["deepgram"][0] == 1012
    assert ends["revai"] == (4010, "Shutting Down")
    assert ends["vosk"][0] == 1012
    *results, error, metadata = fronts["deepgram"].got
    assert texts(results) == ["echo 1"]
    assert (error["type"], metadata["type"]) == ("Error", "Metadata")
    assert fronts["revai"].got[-1]["type"] == "final"
    assert fronts["vosk"].got[-1]["text"] == "echo 1"


@LEAN
async def test_silence_is_an_end_and_a_keep_alive_is_no_silence(serve: Serve) -> None:
    server = serve(limits__speech_idle=1.5)
    async with (
        deepgram(server) as silent,
        deepgram(server) as patient,
        revai(server, content_type="audio/*") as mute,
        anyio.create_task_group() as tasks,
    ):

        async def keep_alive() -> None:
            while True:
                await patient.say(KEEP_ALIVE)
                await anyio.sleep(0.1)

        tasks.start_soon(keep_alive)
        code, reason = await silent.ends()
        assert (code, reason.partition(":")[0]) == (1011, "NET-0001")
        assert [each["type"] for each in silent.got] == ["Error", "Metadata"]
        assert (await mute.ends())[0] == 1008
        tasks.cancel_scope.cancel()
        await patient.say(SECOND, CLOSE_STREAM)
        with anyio.CancelScope(shield=True):
            assert await patient.ends() == (1000, "")
            assert texts(patient.got) == ["echo 1"]


def test_the_port_of_vosk_may_be_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = roomcast("serve", "--dev", "--port", "0", ROOMCAST_FRONTS__VOSK__PORT=port)

    assert done.returncode != 0
    assert f"{port}: Address already in use; choose another with fronts.vosk.port" in done.stderr


ENGINES: dict[str, Callable[[VendorServer], RemoteEngine]] = {
    "deepgram": lambda server: providers.deepgram(
        options.Deepgram(key=SECRET, url=f"{server.ws}/v1/listen", interim_results=True)
    ),
    "revai": lambda server: providers.revai(
        options.RevAi(token=SECRET, url=f"{server.ws}{STREAM}")
    ),
    "vosk": lambda server: providers.vosk(options.Vosk(url=f"ws://127.0.0.1:{server.vosk_port}")),
}


@LEAN
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENGINES)
async def test_a_front_is_to_our_own_engines_what_the_vendor_is(
    server: VendorServer, name: str, check: Check
) -> None:
    await check(ENGINES[name](server), AudioSpec(), bytes(80_000))
