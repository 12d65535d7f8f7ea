"""A speech provider that breaks, stalls and refuses, and a speaker who must not notice.

Time runs PACE times faster than real, for audio, stalls and deadlines alike;
`make resilience` runs it as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from urllib.parse import quote

import anyio
import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.doubles import RevAiDouble, abort, close, numbered, numbers, refuse, stall
from tests.doubles.provider import Connection, Fault
from tests.e2e.clients import Client, Event, client
from tests.e2e.conftest import LEAN, Serve
from tests.protocols import PROTOCOLS
from tests.servers import Server, serving

pytestmark = [pytest.mark.anyio, LEAN]
PACE = float(os.environ.get("PACE", "10"))
FRAME = 640
SECOND = 32_000
STALL = 30.0


@contextmanager
def relaying(serve: Serve, **settings: object) -> Iterator[tuple[Server, RevAiDouble]]:
    """Run a server whose engine is a double of Rev.ai."""
    with RevAiDouble() as double:
        server = serve(
            **{
                "engines__enabled": "revai",
                "engines__revai__url": double.url,
                "engines__revai__token": double.secret,
                "engines__revai__connection__connect_within": 5 / PACE,
                "engines__revai__connection__send_within": 5 / PACE,
                "limits__upstream__silent_within": 10 / PACE,
                **settings,
            }
        )
        yield server, double


@asynccontextmanager
async def speaking(server: Server) -> AsyncIterator[Client]:
    """Speak on a socket that is told its own words."""
    async with client(f"{server.ws}/v1/rooms/a/speak?transcripts=true") as speaker:
        await speaker.until("speech", lambda event: event["state"] == "ready")
        yield speaker


async def say(speaker: Client, audio: bytes, paced: bool = True) -> None:
    """Send audio in frames of 20 ms, at the pace of the test or as fast as it is taken."""
    began = time.monotonic()
    for count, start in enumerate(range(0, len(audio), FRAME)):
        await speaker.socket.send(audio[start : start + FRAME])
        if paced:
            await anyio.sleep(max(0.0, began + count * 0.02 / PACE - time.monotonic()))


def finals(events: list[Event]) -> list[Event]:
    """Return the finals."""
    return [event for event in events if event["type"] == "transcript" and event["final"]]


def check_order(events: list[Event]) -> None:
    """Finals follow each other, each of a segment of its own."""
    for before, after in pairwise(finals(events)):
        assert before["end"] <= after["start"]

    assert len({event["segment"] for event in finals(events)}) == len(finals(events))


def check_times(events: list[Event], first: int) -> None:
    """Finals follow each other, and each word is where its frame is in the speaker's audio."""
    check_order(events)
    for event in finals(events):
        for word in event["words"]:
            assert word["start"] == pytest.approx((int(word["text"]) - first) * 0.02, abs=0.011)


def heard_by(connections: list[Connection]) -> list[list[int]]:
    """Return the numbers of the frames that each connection brought."""
    return [
        [
            int.from_bytes(connection.audio[at : at + 2], "little")
            for at in range(0, len(connection.audio), FRAME)
        ]
        for connection in connections
    ]


async def test_a_provider_that_breaks_twenty_times_in_a_minute_costs_nothing(serve: Serve) -> None:
    with relaying(serve) as (server, double):
        endings: list[Fault] = [
            abort(after=SECOND * 2 + FRAME * 7 * n)
            if n % 2
            else close(4010, "Shutting Down", after=SECOND * 2 + FRAME * 5 * n)
            for n in range(20)
        ]
        double.plan(*endings)
        async with speaking(server) as speaker, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, speaker)
            await say(speaker, numbered(1, 3000))
            await speaker.send(type="stop", id="stop")

        said = numbers([event["text"] for event in finals(speaker.events)])
        assert said == list(range(1, 3001)), "each frame is in a final, once and in order"
        check_times(speaker.events, 1)
        assert len(double.connections) == 21
        heard = heard_by(double.connections)
        assert sorted({number for each in heard for number in each}) == list(range(1, 3001))
        for each in heard:
            assert each == list(range(each[0], each[-1] + 1)), "whole frames, without holes"

        states = [event["state"] for event in speaker.events if event["type"] == "speech"]
        assert states.count("recovered") == 20
        assert not [event for event in speaker.events if event["type"] == "gap"]


async def collect(speaker: Client) -> None:
    """Read until the stop is acknowledged."""
    await speaker.until("ack", lambda event: event["id"] == "stop")


async def test_a_provider_that_stalls_slows_the_speaker_and_nothing_is_lost(serve: Serve) -> None:
    with relaying(serve) as (server, double):
        double.plan(stall(after=SECOND * 2), *[stall()] * 40)
        blocked = anyio.Event()
        async with speaking(server) as speaker, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, speaker)

            async def flood() -> None:
                await say(speaker, numbered(1, 9000), paced=False)
                blocked.set()
                await speaker.send(type="stop", id="stop")

            tasks.start_soon(flood)
            await anyio.sleep(STALL / PACE)
            assert not blocked.is_set(), "whoever sends too fast is held back"
            double.resume()

        assert numbers([event["text"] for event in finals(speaker.events)]) == list(range(1, 9001))
        check_times(speaker.events, 1)
        assert not [event for event in speaker.events if event["type"] == "gap"]


async def test_under_drop_oldest_a_stall_costs_what_the_gaps_say_and_no_delay(serve: Serve) -> None:
    with relaying(serve, limits__upstream__policy="drop_oldest") as (server, double):
        double.plan(stall(after=SECOND * 2), *[stall()] * 40)
        async with speaking(server) as speaker, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, speaker)

            async def stumble() -> None:
                await anyio.sleep(STALL / PACE)
                double.resume()

            tasks.start_soon(stumble)
            await say(speaker, numbered(1, 2500))
            await speaker.send(type="stop", id="stop")

        said = numbers([event["text"] for event in finals(speaker.events)])
        gaps = [event for event in speaker.events if event["type"] == "gap"]
        missing = {
            number
            for gap in gaps
            for number in range(gap["from"] // FRAME + 1, (gap["to"] + 1) // FRAME + 1)
        }
        assert len(said) == len(set(said))
        assert set(said) | missing == set(range(1, 2501))
        assert not set(said) & missing
        assert missing, "a stall of half a minute is more than the channels hold"
        assert sum(gap["to"] + 1 - gap["from"] for gap in gaps) == len(missing) * FRAME
        check_times(speaker.events, 1)
        lags = [event["lag"] for event in speaker.events if event["type"] == "speech"]
        assert lags[-1] <= 1.0, "what is said after the stall is heard at once"


@pytest.mark.parametrize(
    ("fault", "code", "close_code"),
    [
        (refuse(401), "engine_unauthorized", 4005),
        (refuse(402), "engine_unpaid", 4005),
        (refuse(429), "engine_busy", 1013),
        (close(4001, "bad token"), "engine_unauthorized", 4005),
        (close(4003, "no credits"), "engine_unpaid", 4005),
        (close(4002, "Bad Request: content_type"), "engine_rejected", 4005),
        (close(4013, "Try Again Later"), "engine_busy", 1013),
        (close(4029, "too many"), "engine_busy", 1013),
    ],
)
async def test_a_provider_that_refuses_gives_one_clear_error(
    refusing: tuple[Server, RevAiDouble], fault: Fault, code: str, close_code: int
) -> None:
    server, double = refusing
    double.plan(fault)
    async with client(f"{server.ws}/v1/rooms/a/speak") as speaker:
        assert (await speaker.closed())[0] == close_code

    (error,) = [event for event in speaker.events if event["type"] == "error"]
    assert error["code"] == code
    assert "revai" in error["message"]
    assert double.secret not in str(speaker.events) + server.output


@pytest.fixture(scope="module")
def refusing(
    protocol: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, RevAiDouble]]:
    """A server whose provider does what a test plans."""
    with (
        RevAiDouble() as double,
        serving(
            tmp_path_factory.mktemp("refusing") / "log",
            **PROTOCOLS[protocol],
            engines__enabled="revai,deepgram",
            engines__revai__url=double.url,
            engines__revai__token=double.secret,
            engines__websocket__hosts="stt.example.com",
        ) as server,
    ):
        yield server, double


@pytest.mark.parametrize(
    ("engine", "status", "code", "names"),
    [
        ("parrot", 400, "unknown_engine", "revai, deepgram"),
        ("deepgram", 503, "engine_unconfigured", "engines.deepgram.key"),
        ("ws://169.254.169.254/latest", 403, "engine_forbidden", "engines.websocket.hosts"),
        ("wss://stt.example.com.evil.org/", 403, "engine_forbidden", "engines.websocket.hosts"),
        ("wss://stt.example.com@evil.org/", 403, "engine_forbidden", ""),
        ("http://stt.example.com/", 403, "engine_forbidden", ""),
    ],
)
async def test_an_engine_that_cannot_be_had_is_refused_before_the_upgrade(
    refusing: tuple[Server, RevAiDouble], engine: str, status: int, code: str, names: str
) -> None:
    server, _ = refusing
    with pytest.raises(InvalidStatus) as refusal:
        async with client(f"{server.ws}/v1/rooms/a/speak?engine={quote(engine, safe='')}"):
            pass

    response = refusal.value.response
    problem = msgspec.json.decode(response.body or b"")
    assert (response.status_code, problem["code"]) == (status, code)
    assert names in str(problem)


async def test_the_next_engine_takes_over_from_one_that_does_not_come_back(serve: Serve) -> None:
    with relaying(serve, engines__enabled="revai,echo", engines__failover="revai,echo") as (
        server,
        double,
    ):
        double.plan(abort(after=SECOND), *[refuse(503)] * 50)
        async with speaking(server) as speaker, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, speaker)
            await say(speaker, numbered(1, 250))
            await speaker.send(type="stop", id="stop")

    engines = [event["engine"] for event in speaker.events if event["type"] == "speech"]
    assert (engines[0], engines[-1]) == ("revai", "echo")
    assert finals(speaker.events)[-1]["end"] == pytest.approx(5.0, abs=0.1)
    check_order(speaker.events)
