"""Encoded speech is recognized as plain speech is, also if the speaker was cut off meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import Client, client
from tests.engine_contract import DATA, word_errors
from tests.protocols import PROTOCOLS
from tests.servers import Server, serving

pytestmark = pytest.mark.anyio
SAID = "go forward ten meters"
OPUS = ("-c:a", "libopus", "-b:a", "24k")
ENCODERS: dict[str, tuple[str, ...]] = {
    "encoding=mulaw": ("-ar", "8000", "-f", "mulaw"),
    "encoding=alaw&rate=16000": ("-f", "alaw"),
    "encoding=webm": (*OPUS, "-f", "webm", "-live", "1", "-cluster_time_limit", "200"),
    "encoding=ogg": (*OPUS, "-f", "ogg", "-page_duration", "20000"),
    "encoding=flac": ("-f", "flac"),
    "encoding=wav": ("-ar", "44100", "-f", "wav"),
}


def encoded(options: tuple[str, ...]) -> bytes:
    """Return a recording of human speech, and the silence that ends it, as ffmpeg encodes it."""
    recording = ["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(DATA / "goforward.raw")]
    command = ["ffmpeg", "-loglevel", "error", *recording, "-af", "apad=pad_dur=1", *options, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the embedded engine, over the lean protocol."""
    log = tmp_path_factory.mktemp("inputs") / "log"
    with serving(log, **PROTOCOLS["lean"]) as running:
        yield running


async def finals(speaker: Client) -> list[str]:
    """End the session and return the texts of its finals."""
    await speaker.send(type="stop", id="stop")
    await speaker.until("ack", lambda event: event["id"] == "stop")
    return [
        event["text"]
        for event in speaker.events
        if event["type"] == "transcript" and event["final"]
    ]


def check_speech(encoding: str, heard: str) -> None:
    """Compare with what was said; of a telephone's 8 kHz the model mistakes a word."""
    wrong = word_errors(SAID.split(), heard.split())
    assert wrong <= (encoding == "encoding=mulaw"), heard


@pytest.mark.parametrize("query", ENCODERS)
async def test_encoded_speech_is_recognized(server: Server, query: str) -> None:
    audio = encoded(ENCODERS[query])
    async with client(f"{server.ws}/v1/rooms/a/speak?transcripts=true&{query}") as speaker:
        await speaker.audio(audio, 997)
        heard = await finals(speaker)
        (ended,) = [event for event in speaker.events if event.get("state") == "ended"]

    check_speech(query, " ".join(heard))
    assert ended["received"] == len(audio)


async def test_a_recorder_that_was_cut_off_goes_on(server: Server) -> None:
    audio = encoded(ENCODERS["encoding=webm"])
    address = f"{server.ws}/v1/rooms/a/speak?transcripts=true&encoding=webm"
    async with client(address) as speaker:
        ready = await speaker.until("speech", lambda event: event["state"] == "ready")
        await speaker.audio(audio[: len(audio) // 2], 997)
        await speaker.until("transcript")
        speaker.socket.transport.abort()

    async with client(f"{address}&resume={ready['session']}") as again:
        resumed = await again.until("speech", lambda event: event["state"] == "resumed")
        assert 0 < resumed["received"] <= len(audio) // 2
        await again.audio(audio[resumed["received"] :], 997)
        heard = await finals(again)

    assert " ".join(heard) == SAID


async def test_what_is_no_audio_ends_the_session_with_an_error_that_says_so(
    server: Server,
) -> None:
    async with client(f"{server.ws}/v1/rooms/a/speak?encoding=webm") as speaker:
        await speaker.audio(b"this is no recording" * 100)
        code, _ = await speaker.closed()

    (error,) = [event for event in speaker.events if event["type"] == "error"]
    assert (error["code"], error["field"], code) == ("bad_audio", "encoding", 4503)


@pytest.mark.parametrize(
    "query", ["encoding=mp3", "encoding=mulaw&rate=1", "encoding=alaw&channels=9"]
)
async def test_an_encoding_that_is_not_known_is_refused_before_the_upgrade(
    server: Server, query: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with client(f"{server.ws}/v1/rooms/a/speak?{query}"):
            pass

    problem = msgspec.json.decode(refusal.value.response.body or b"")
    assert (problem["status"], problem["code"]) == (400, "unsupported_audio")


@pytest.mark.parametrize(
    ("kind", "query"),
    [("encoding=webm", ""), ("encoding=mulaw", "&encoding=mulaw&sample_rate=8000")],
)
async def test_encoded_speech_comes_through_a_front(server: Server, kind: str, query: str) -> None:
    audio = encoded(ENCODERS[kind])
    address = f"{server.ws}/v1/listen?model=nova-3{query}"
    async with connect(address, additional_headers={"Authorization": "Token any"}) as socket:
        for start in range(0, len(audio), 997):
            await socket.send(audio[start : start + 997])

        await socket.send('{"type":"CloseStream"}')
        answers = [msgspec.json.decode(message) async for message in socket]

    texts = [
        answer["channel"]["alternatives"][0]["transcript"]
        for answer in answers
        if answer["type"] == "Results" and answer["is_final"]
    ]
    check_speech(kind, " ".join(filter(None, texts)))
