"""The lean protocol looked at from inside: its patience made short, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import anyio
import pytest
from fastapi import FastAPI

from actors.principal import Principal
from server import asgi, http, lean, protocol
from server.app import create_app
from server.engines.configured import Engines
from server.frames import Payload
from server.http import HardenedHttp
from server.node import Node
from server.ports import PINGS, TURN
from server.protocol import LeanWebSocket
from server.settings import Settings
from server.tenant_settings import DEV
from server.wheel import wheel_of
from tests.e2e.test_bad_input import UPGRADE
from tests.hosted import hosted
from tests.rawframes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frames, masked

pytestmark = pytest.mark.anyio

Kind = TypeVar("Kind")
WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
SHORT = 0.5
JOIN = masked(TEXT, b'{"type":"join","room":"a","id":1}')
START = masked(TEXT, b'{"type":"start","room":"a","engine":"echo"}')
GOODBYE = masked(CLOSE, b"\x03\xe8")


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the server wait for nothing longer than half a second."""
    monkeypatch.setattr(http, "HEAD_WITHIN", SHORT)
    monkeypatch.setattr(protocol, "ACCEPT_WITHIN", SHORT)
    for module in (http, asgi):
        monkeypatch.setattr(module, "FLUSH_WITHIN", SHORT)

    monkeypatch.setattr(lean, "GONE_WITHIN", SHORT)
    monkeypatch.setattr(protocol, "ABORT_AFTER", SHORT)


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with the echo engine."""
    return create_app(Settings(dev=True, engines=Engines(enabled=("echo",))))


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    """A server of the app."""
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        yield port


class Line:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int, data: bytes = b"") -> Line:
        """Connect, and send this."""
        line = cls(*await asyncio.open_connection("127.0.0.1", port))
        line.writer.write(data)
        return line

    async def until(self, text: bytes) -> None:
        """Read until this has come."""
        with anyio.fail_after(WITHIN):
            await self.reader.readuntil(text)

    async def rest(self) -> bytes:
        """Read to the end."""
        with anyio.fail_after(WITHIN):
            data = await self.reader.read()

        self.writer.close()
        return data

    def reset(self) -> None:
        """Cut the line without a goodbye."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def living(kind: type[Kind]) -> list[Kind]:
    """Return all objects of a class that are still in memory."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, kind)]


async def until(check: Callable[[], bool]) -> None:
    """Let the server go on until it is so."""
    with anyio.fail_after(WITHIN):
        while not check():
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("part", [b"", b"G", UPGRADE[:20], UPGRADE])
async def test_a_head_that_never_comes_to_its_end_is_refused_in_time(
    port: int, part: bytes
) -> None:
    began = anyio.current_time()
    answer = await (await Line.to(port, part)).rest()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert SHORT <= anyio.current_time() - began < 4 * SHORT


async def test_a_head_that_comes_byte_by_byte_has_no_more_time(port: int) -> None:
    line = await Line.to(port)

    async def dribble() -> None:
        for byte in UPGRADE * 100:
            line.writer.write(bytes([byte]))
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dribble)
        began = anyio.current_time()
        assert (await line.rest()).startswith(b"HTTP/1.1 408 ")
        assert anyio.current_time() - began < 4 * SHORT
        tasks.cancel_scope.cancel()


async def test_a_second_request_has_as_much_time_as_the_first(port: int) -> None:
    line = await Line.to(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await line.until(b"\r\n\r\n")
    line.writer.write(b"GET /livez")
    assert b"HTTP/1.1 408 " in await line.rest()


async def test_a_head_may_be_cut_before_its_end_and_have_many_frames_behind_it(port: int) -> None:
    frame = masked(TEXT, b'{"type":"ping"}') * 1000
    line = await Line.to(port, UPGRADE + b"\r")
    await until(lambda: any(each.heading for each in living(HardenedHttp)))
    line.writer.write(b"\n" + frame + GOODBYE)
    answer = await line.rest()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\x88\x02\x03\xe8")


async def test_an_application_that_does_not_answer_is_answered_for() -> None:
    waits = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"
        waits.set()

    async with hosted(app, lifespan="off", http=HardenedHttp, ws=LeanWebSocket) as port:
        answer = await (await Line.to(port, UPGRADE + b"\r\n")).rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        with anyio.fail_after(WITHIN):
            await waits.wait()


async def test_a_peer_that_answers_no_ping_is_told_and_cut(app: FastAPI) -> None:
    node: Node = app.state.node
    pings = {"ws_ping_interval": SHORT, "ws_ping_timeout": SHORT}
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket, **pings) as port:
        began = anyio.current_time()
        line = await Line.to(port, UPGRADE + b"\r\n")
        answer = await line.rest()
        assert b"\x89\x00\x88\x18\x03\xf3keepalive ping timeout" in answer
        assert 3 * SHORT <= anyio.current_time() - began < 8 * SHORT
        await until(lambda: not node.manager.actors)


ENDS: dict[str, tuple[bytes, bytes | None, bool]] = {
    "nothing": (b"", None, False),
    "nothing, reset": (b"", None, True),
    "half a head": (UPGRADE, None, False),
    "half a head, reset": (UPGRADE, None, True),
    "an upgrade": (UPGRADE + b"\r\n", None, False),
    "an upgrade, reset": (UPGRADE + b"\r\n", None, True),
    "hello": (UPGRADE + b"\r\n", b'"hello"', False),
    "hello, reset": (UPGRADE + b"\r\n", b'"hello"', True),
    "half a frame": (UPGRADE + b"\r\n" + JOIN[:9], b'"hello"', True),
    "joined": (UPGRADE + b"\r\n" + JOIN, b'"joined"', False),
    "joined, reset": (UPGRADE + b"\r\n" + JOIN, b'"joined"', True),
    "speaking": (UPGRADE + b"\r\n" + START + masked(BINARY, bytes(640)), b'"ready"', True),
    "a close": (UPGRADE + b"\r\n" + JOIN + GOODBYE, b"\x88\x02\x03\xe8", False),
    "a close, reset": (UPGRADE + b"\r\n" + JOIN + GOODBYE, None, True),
    "a violation": (UPGRADE + b"\r\n" + JOIN + b"\xff\xff", b"\x88\x10\x03\xea", False),
    "a violation, reset": (UPGRADE + b"\r\n" + JOIN + b"\xff\xff", None, True),
    "a flood": (UPGRADE + b"\r\n" + masked(PING, b"x" * 125) * 500, None, True),
    "a bad address": (UPGRADE.replace(b"connect", b"nothing") + b"\r\n", b"404", False),
}


@pytest.mark.parametrize("end", ENDS)
async def test_however_a_connection_ends_nothing_of_it_stays(
    port: int, app: FastAPI, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    node: Node = app.state.node
    data, awaited, reset = ENDS[end]
    await (await Line.to(port, UPGRADE + b"\r\n" + GOODBYE)).rest()
    tasks, wheel = asyncio.all_tasks(), wheel_of(asyncio.get_running_loop())
    for _ in range(20):
        line = await Line.to(port, data)
        if awaited is not None:
            await line.until(awaited)

        if reset:
            line.reset()
        else:
            line.writer.close()

    await until(lambda: not node.manager.actors and asyncio.all_tasks() <= tasks)
    await until(lambda: wheel._size == 0)
    await until(lambda: not living(LeanWebSocket))
    found = node.manager.statistics()
    assert all(not number for number in found.connections.values())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class Recorder(lean.Nobody):
    """Keeps each message with the turn of the loop in which it came, and how it ended."""

    def __init__(self) -> None:
        self.turn = 0
        self.heard: list[tuple[int, bytes]] = []
        self.ends: list[int] = []

    def message(self, message: Payload) -> None:
        """Keep a message."""
        assert isinstance(message, bytes)
        assert not self.ends
        self.heard.append((self.turn, message))

    def lost(self, code: int) -> None:
        """Keep the end."""
        self.ends.append(code)

    async def count_turns(self) -> None:
        """Count the turns of the loop, until cancelled."""
        while True:
            self.turn += 1
            await asyncio.sleep(0)


async def connection_of(port: int) -> tuple[Line, LeanWebSocket]:
    """Connect; return both ends."""
    line = await Line.to(port, UPGRADE + b"\r\n")
    await line.until(b'"hello"')
    name = line.writer.get_extra_info("sockname")
    found = (each for each in living(LeanWebSocket) if hasattr(each, "transport"))
    return line, next(each for each in found if each.transport.get_extra_info("peername") == name)


CROWDS: dict[str, list[bytes]] = {
    "messages": [masked(BINARY, b"%d" % number) for number in range(2000)],
    "fragments": [
        masked(BINARY, b"", fin=False)
        + masked(CONTINUATION, b"x" * 32, fin=False) * 100
        + masked(CONTINUATION, b"%d" % number)
        for number in range(20)
    ],
}


@pytest.mark.parametrize("what", CROWDS)
async def test_others_have_their_turn_while_many_frames_are_here(port: int, what: str) -> None:
    line, server = await connection_of(port)
    recorder, crowd = Recorder(), CROWDS[what]
    server.adopt(recorder)
    server.proceed()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recorder.count_turns)
        line.writer.write(b"".join(crowd) + masked(BINARY, b"end") + GOODBYE)
        await until(lambda: bool(recorder.ends))
        tasks.cancel_scope.cancel()

    assert recorder.ends[0] == 1000
    numbers = [message.rpartition(b"x")[2] for _, message in recorder.heard if message != b"end"]
    assert numbers == [b"%d" % number for number in range(len(crowd))]
    turns = [turn for turn, _ in recorder.heard]
    assert turns[-1] - turns[0] >= 2000 // TURN - 1
    assert max(map(turns.count, turns)) <= 2 * TURN
    await line.rest()


async def test_who_holds_meanwhile_gets_the_rest_when_it_proceeds(port: int) -> None:
    line, server = await connection_of(port)
    recorder, size = Recorder(), 3 * TURN
    server.adopt(recorder)
    server.proceed()
    server.data_received(masked(BINARY, b"x") * size)
    assert server.crowded
    server.hold()
    await until(lambda: not server.crowded)
    assert len(recorder.heard) == TURN
    server.proceed()
    await until(lambda: len(recorder.heard) == size)
    line.writer.write(masked(BINARY, b"more") + GOODBYE)
    await until(lambda: bool(recorder.ends))
    assert recorder.heard[size:] == [(0, b"more")]
    await line.rest()


async def test_a_loss_is_told_after_what_came_before_it(port: int) -> None:
    line, server = await connection_of(port)
    recorder, size = Recorder(), 3 * TURN
    server.adopt(recorder)
    server.proceed()
    server.data_received(masked(BINARY, b"x") * size)
    server.abort()
    await until(lambda: bool(recorder.ends))
    assert (len(recorder.heard), recorder.ends) == (size, [1006])
    await line.rest()


@pytest.mark.parametrize("lost_first", [False, True])
async def test_what_an_actor_is_sent_before_a_loss_is_done(
    port: int, app: FastAPI, lost_first: bool
) -> None:
    node: Node = app.state.node
    line, server = await connection_of(port)
    pieces = [b'{"type":"publish","room":"a","data":"', *[b"x" * 40] * 200, b'"}']
    long = b"".join(
        masked(0 if number else TEXT, piece, piece is pieces[-1])
        for number, piece in enumerate(pieces)
    )
    if lost_first:
        server.abort()

    server.data_received(masked(TEXT, b'{"type":"publish","room":"a","data":1}') + long)
    server.abort()
    await until(lambda: not node.manager.actors)
    recovery = await node.manager.backplane.recover(Principal(DEV).key("a"), None, 10)
    assert len(recovery.frames) == 2
    await line.rest()


async def test_a_pong_that_was_asked_for_is_not_counted(app: FastAPI) -> None:
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket, ws_ping_interval=SHORT) as port:
        line, _ = await connection_of(port)
        await line.until(b"\x89\x00")
        line.writer.write(masked(PONG) * (PINGS + 1) + GOODBYE)
        assert (await line.rest()).endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize("cut", range(1, 12))
async def test_a_message_may_come_in_any_two_segments(port: int, cut: int) -> None:
    ping = masked(TEXT, b'{"type":"ping","id":7}', mask=b"\x01\x02\x03\xff") + GOODBYE
    line = await Line.to(port, UPGRADE + b"\r\n")
    await line.until(b'"hello"')
    line.writer.write(ping[:cut])
    await asyncio.sleep(0)
    line.writer.write(ping[cut:])
    data = await line.rest()
    *_, ack, close = frames(data[data.index(b"\x81", 20) :])
    assert b'"ack"' in ack[1]
    assert close == (0x88, b"\x03\xe8")
