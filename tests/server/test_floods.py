"""Providers that send more than speech can need: they are lost or slowed, and others go on."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from websockets.client import ClientProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from actors.errors import UpstreamLost
from actors.messages import Recognition, Word
from server.engines import remote_stream
from server.engines.inflow import CONTROLS, SLICE, Inflow
from server.engines.options import Answers, WebSocket
from server.engines.pace import Pace, cost
from server.engines.providers import websocket
from server.engines.remote import RemoteEngine, Slots
from tests.doubles import GenericDouble, raw
from tests.remote_contract import SPEC, fate, within
from tests.server.remotes import REMOTES

pytestmark = pytest.mark.anyio
ANSWERS = Answers(words="words")
WORD = '{"word":"a","start":1,"end":2}'
LONGEST_TURN = 0.25
"""Seconds of CPU; such a read cost 4 to 10."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Real time, on the server's loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def double() -> Iterator[GenericDouble]:
    with GenericDouble() as running:
        yield running


def frame(first: int, payload: str = "") -> bytes:
    """Build a frame of a server."""
    data = payload.encode()
    if len(data) < 126:
        return bytes([first, len(data)]) + data

    return bytes([first, 127]) + struct.pack("!Q", len(data)) + data


def text(payload: str) -> bytes:
    """Build a text message."""
    return frame(0x81, payload)


def engine_of(double: GenericDouble) -> RemoteEngine:
    return REMOTES[-1].make(double.url, double.secret, answers=ANSWERS)


@asynccontextmanager
async def lively() -> AsyncIterator[None]:
    """Fail if one turn of the loop takes long."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while True:
            await checkpoint()
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield
        tasks.cancel_scope.cancel()

    assert longest < LONGEST_TURN


@pytest.mark.parametrize(
    ("flood", "words"),
    [
        (frame(0x89) * 200_000, "sends pings or pongs without end"),
        (frame(0x8A) * 200_000, "sends pings or pongs without end"),
        (frame(0x01) + frame(0x00) * 200_000, "sends a message in too many fragments"),
        (frame(0x01) + frame(0x00, "a") * 200_000, "sends a message in too many fragments"),
        (
            text(f'{{"text":"x","words":[{",".join([WORD] * 30_000)}]}}'),
            "sent a result of more than 5000 words",
        ),
        (text(f'{{"text":"{"a" * 1_000_000}"}}'), "sent a result of more than 65536 characters"),
    ],
    ids=["pings", "pongs", "nothings", "crumbs", "words", "text"],
)
async def test_what_no_speech_needs_is_a_loss(
    double: GenericDouble, flood: bytes, words: str
) -> None:
    double.plan(raw(flood))
    async with lively(), engine_of(double).open(SPEC) as stream:
        with within(5):
            error = await fate(stream.receive())

    assert isinstance(error, UpstreamLost)
    assert str(error) == f"the websocket engine {words}"


@pytest.mark.parametrize(
    ("flood", "count"), [(text("{}") * 400, 0), (text('{"text":"x"}') * 100, 100)]
)
async def test_messages_beyond_a_rate_wait_and_none_is_lost(
    double: GenericDouble, monkeypatch: pytest.MonkeyPatch, flood: bytes, count: int
) -> None:
    monkeypatch.setattr(remote_stream, "RATE", 400.0)
    monkeypatch.setattr(remote_stream, "BURST", 10.0)
    double.plan(raw(flood + text('{"text":"last"}')))
    async with engine_of(double).open(SPEC) as stream:
        began = time.monotonic()
        found = [(await stream.receive()).text for _ in range(count + 1)]
        assert time.monotonic() - began > 0.2
        assert found == ["x"] * count + ["last"]


async def test_an_answer_to_the_upgrade_without_end_is_a_loss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    client.sendall(b"5\r\naaaaa\r\n" * 5000)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        async with lively():
            error = await fate(websocket(WebSocket(url=url)).open(SPEC).__aenter__())

        await anyio.to_thread.run_sync(thread.join)

    assert str(error) == "the websocket engine answers the upgrade without end"


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "cut"])
async def test_all_that_came_before_the_end_is_taken_before_it(
    monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setattr(remote_stream, "RATE", 4000.0)
    count = 10 * SLICE // 20
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                wire = ServerProtocol()
                wire.receive_data(client.recv(65_536))
                (request,) = wire.events_received()
                assert isinstance(request, Request)
                wire.send_response(wire.accept(request))
                answer = b"".join(wire.data_to_send())
                end = b"\x88\x02\x0f\xa0" if closes else b""
                client.sendall(answer + text('{"text":"x"}') * count + end)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        async with websocket(WebSocket(url=url), Slots(1)).open(SPEC) as stream:
            found = [await stream.receive() for _ in range(count)]
            error = await fate(stream.receive())

        await anyio.to_thread.run_sync(thread.join)

    assert [each.segment for each in found] == list(range(count))
    assert f"closed the stream with {4000 if closes else 1006}" in str(error)


async def test_tiny_messages_without_end_hold_nobody_up(double: GenericDouble) -> None:
    double.plan(raw(text("{}") * 1_000_000))
    async with lively(), engine_of(double).open(SPEC) as stream:
        with anyio.move_on_after(0.5):
            await stream.receive()

        with within(1):
            await stream.aclose()


def test_a_pace_allows_a_burst_and_then_a_rate() -> None:
    pace = Pace(10, 5)
    assert [pace.spend(1, 100.0) for _ in range(5)] == [0.0] * 5
    assert pace.spend(1, 100.0) == pytest.approx(0.1)
    assert pace.spend(20, 100.1) == pytest.approx(2.0)
    assert pace.spend(1, 110.0) == 0.0


def test_what_is_long_costs_more() -> None:
    word = Word("x", 0.0, 0.0, 1.0)
    short, long = (Recognition(0, 0, True, "x", 0.0, 0.0, (word,) * n) for n in (0, 5000))
    assert cost(0, ()) < cost(0, [short]) == 1 < cost(0, [short, short]) < cost(0, [long])
    assert cost(1_000_000, ()) > 200


def test_a_slice_is_parsed_at_a_time_and_only_when_the_last_one_is_taken() -> None:
    wire = ClientProtocol(parse_uri("ws://any/"))
    inflow = Inflow(wire, SLICE)
    inflow.feed(b"HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n" + bytes(SLICE * 3))
    turns = 0
    while inflow.waiting:
        inflow.parse()
        turns += 1
        assert inflow.next(0.0) is None

    assert turns == 4
    assert CONTROLS < SLICE
