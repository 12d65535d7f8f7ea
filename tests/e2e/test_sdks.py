"""The vendors' own SDKs and recorded speech: what they hear is what the room hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from rev_ai.models import MediaConfig
from rev_ai.streamingclient import RevAiStreamingClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.clients import WITHIN
from tests.e2e.vendors import EOF, RAW, SECRET, Document, VendorServer, vendor_serving
from tests.engine_contract import LIBRIVOX, SILENCE, recording
from tests.servers import Server, serving

# Its import of a name that websockets has given up comes with the first connection.
pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")
ROOM = "captions"
CHUNK = 6400
"""Bytes of 0.2 seconds, which vosk's clients send at a time."""
SPEECH = b"".join(
    recording(path) + SILENCE
    for path in sorted(LIBRIVOX.glob("*.wav"))
    if path.stem.endswith(("0880", "0930"))
)
CHUNKS = [SPEECH[at : at + CHUNK] for at in range(0, len(SPEECH), CHUNK)]
MODEL = {"model": "nova-3", "channels": 1, "interim_results": True, "vad_events": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorServer]:
    """A server with the embedded engine; the SDKs' tests differ from others in the client alone."""
    log = tmp_path_factory.mktemp("sdks") / "log"
    with vendor_serving(log, fronts__vosk__room=ROOM) as running:
        yield running
        assert SECRET not in running.output


def history(server: Server, room: str) -> list[str]:
    """Return the finals of a room, as somebody who joins it now is told them."""
    address = f"{server.ws}/v1/rooms/{room}/listen?history=100"
    with connect(address, close_timeout=2) as listener:
        event: Document = {"type": ""}
        while event["type"] != "joined":
            event = msgspec.json.decode(listener.recv(WITHIN))

        finals = [msgspec.json.decode(listener.recv(WITHIN)) for _ in range(event["offset"])]

    return [final["text"] for final in finals]


def check_speech(finals: list[str]) -> None:
    """See that speech was recognized, in more than one piece."""
    assert len(finals) > 1
    assert len(" ".join(finals).split()) > 10


def deepgram_client(kind: Callable[..., Any], server: VendorServer, key: str = SECRET) -> Any:
    """Make a client of Deepgram's SDK that is pointed here."""
    addresses = {"base": server.http, "production": server.ws, "agent": server.ws}
    environment = DeepgramClientEnvironment(**addresses, agent_rest=server.http)
    return kind(api_key=key, environment=environment)


def check_deepgram(server: VendorServer, got: list[Any]) -> None:
    """Compare what a client of Deepgram's SDK got with what the room has."""
    *events, metadata = got
    assert metadata.type == "Metadata"
    assert metadata.duration == pytest.approx(len(SPEECH) / 32_000)
    results = [event for event in events if event.type == "Results"]
    assert {event.type for event in events} == {"Results", "SpeechStarted"}
    finals = [event for event in results if event.is_final]
    texts = [event.channel.alternatives[0].transcript for event in finals]
    check_speech([text for text in texts if text])
    assert history(server, f"deepgram:{metadata.request_id}") == [text for text in texts if text]
    words = [word for event in finals for word in event.channel.alternatives[0].words]
    assert [word.punctuated_word for word in words] == " ".join(texts).split()
    assert all(a.end <= b.start + 0.001 for a, b in pairwise(words))
    assert len(finals) < len(results)


def test_deepgrams_sdk_in_threads(server: VendorServer) -> None:
    got: list[Any] = []
    sdk = deepgram_client(DeepgramClient, server)
    with sdk.listen.v1.connect(**RAW, **MODEL) as stream:
        stream.on(EventType.MESSAGE, got.append)
        listener = Thread(target=stream.start_listening)
        listener.start()
        for chunk in CHUNKS:
            stream.send_media(chunk)

        stream.send_keep_alive()
        stream.send_finalize()
        stream.send_close_stream()
        listener.join(WITHIN)
        assert not listener.is_alive()

    check_deepgram(server, got)
    assert sum(bool(event.from_finalize) for event in got if event.type == "Results") == 1


@pytest.mark.anyio
async def test_deepgrams_sdk_with_asyncio(server: VendorServer) -> None:
    sdk = deepgram_client(AsyncDeepgramClient, server)
    async with sdk.listen.v1.connect(**RAW, **MODEL) as stream:
        for chunk in CHUNKS:
            await stream.send_media(chunk)

        await stream.send_close_stream()
        got = [message async for message in stream]

    check_deepgram(server, got)


@pytest.mark.anyio
async def test_deepgrams_sdk_without_a_key_is_refused(server: VendorServer) -> None:
    sdk = deepgram_client(DeepgramClient, server, " ")
    with (
        pytest.raises((InvalidStatus, ApiError), match="401"),
        sdk.listen.v1.connect(**RAW, model="x"),
    ):
        raise AssertionError("it was accepted")

    with pytest.raises((InvalidStatus, ApiError), match="401"):
        async with deepgram_client(AsyncDeepgramClient, server, " ").listen.v1.connect(model="x"):
            raise AssertionError("it was accepted")


def revai_client(server: Server, token: str = SECRET) -> tuple[Any, list[Any]]:
    """Make a client of Rev.ai's SDK that is pointed here, and a list of its callbacks."""
    calls: list[Any] = []
    media = MediaConfig("audio/x-raw", "interleaved", 16_000, "S16LE", 1)
    sdk = RevAiStreamingClient(
        token,
        media,
        url=server.ws,
        on_connected=calls.append,
        on_close=lambda *close: calls.append(close),
    )
    return sdk, calls


def speak_through_revai(server: Server) -> list[str]:
    """Speak with Rev.ai's SDK and return the finals; the room has the same."""
    sdk, calls = revai_client(server)
    got = [msgspec.json.decode(text) for text in sdk.start(iter(CHUNKS), metadata="notes")]
    sdk.request_thread.join(WITHIN)
    sdk.client.shutdown()
    connection, close = calls
    assert close == (1000, "Normal Closure.")
    finals = [
        "".join(element["value"] for element in each["elements"])
        for each in got
        if each["type"] == "final"
    ]
    assert len(finals) < len(got)
    assert history(server, f"revai:{connection}") == finals
    return finals


def test_revais_sdk(server: VendorServer) -> None:
    check_speech(speak_through_revai(server))


def test_revais_sdk_through_two_servers_in_a_row(server: VendorServer, tmp_path: Path) -> None:
    """SDK, front and engine of one server; front and embedded engine of the other; and back."""
    with serving(
        tmp_path / "log",
        engines__enabled="revai",
        engines__revai__url=f"{server.ws}/speechtotext/v1/stream",
        engines__revai__token=SECRET,
    ) as near:
        through_both = speak_through_revai(near)
        assert SECRET not in near.output

    check_speech(through_both)
    assert through_both == speak_through_revai(server)


def test_revais_sdk_is_told_what_is_wrong(server: VendorServer) -> None:
    sdk, calls = revai_client(server)
    assert list(sdk.start(iter([]), start_ts="soon")) == []
    sdk.request_thread.join(WITHIN)
    sdk.client.shutdown()
    ((code, reason),) = calls
    assert code == 4002
    assert "start_ts" in reason


def test_vosks_clients_send_and_receive_in_lock_step(server: VendorServer) -> None:
    with connect(f"ws://127.0.0.1:{server.vosk_port}", close_timeout=2) as client:
        client.send('{ "config" : { "sample_rate" : 16000 } }')
        replies: list[Document] = []
        messages: list[str | bytes] = [*CHUNKS, EOF]
        for message in messages:
            client.send(message)
            replies.append(msgspec.json.decode(client.recv(WITHIN)))

    finals = [each["text"] for each in replies if each.get("text")]
    check_speech(finals)
    assert any(each.get("partial") for each in replies)
    assert history(server, ROOM) == finals
