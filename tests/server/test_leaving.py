"""How a WebSocket is left, whatever the peer sends last and however it hangs up; on uvloop."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI

from server.app import create_app
from server.http import HardenedHttp
from server.node import Node
from server.ports import CLOSE_WITHIN, TURN
from server.protocol import LeanWebSocket
from tests.hosted import hosted
from tests.rawframes import BINARY, CLOSE, CONTINUATION, FIN, TEXT, masked, upgrade
from tests.server.api import able, settings_of, token_of
from tests.tokens import tenant

pytestmark = pytest.mark.anyio
WITHIN = 10.0
GOODBYE = masked(CLOSE, b"\x03\xe8")
AUDIO = masked(BINARY, bytes(640))
TOKEN = token_of(rooms=able("*", "speak", "listen", "publish"))
FLUSH = masked(TEXT, b'{"type":"flush"}')
PUBLISH = masked(TEXT, b'{"type":"publish","room":"q","data":1}')


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Real time, on the loop of a server: its transports refuse to be written to once closed."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with the echo engine and a tenant that may publish without end."""
    quotas = {"publishes_per_second": 0, "bytes_per_second": 0}
    return create_app(settings_of(tenants=tenant(quotas=quotas)))


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    """A server of the app."""
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        yield port


@asynccontextmanager
async def line(
    port: int, path: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a WebSocket and wait for its greeting."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(upgrade(path, TOKEN))
        await reader.readuntil(b'"hello"')
        await reader.readuntil(b"}")
        yield reader, writer
    finally:
        writer.transport.abort()


async def nobody(node: Node) -> None:
    """Wait until no connection and no session is left."""
    manager = node.manager
    await manager.population.until(lambda: not (manager.actors or manager.upkeep.speaking))


@pytest.mark.parametrize(
    "last",
    [
        b"",
        masked(TEXT, b'{"type":"join","room":"q"}'),
        FLUSH,
        masked(TEXT, b'{"type":"ping","id":1}'),
        PUBLISH,
        PUBLISH * 17,
    ],
    ids=["nothing", "join", "flush", "ping", "publish", "publishes"],
)
async def test_a_speaker_that_leaves_with_a_command_and_shuts_down_harms_nobody(
    app: FastAPI, port: int, last: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(WITHIN):
        for _ in range(3):
            async with line(port, "/v1/rooms/a/speak?rate=16000") as (reader, writer):
                writer.write(AUDIO)
                await reader.readuntil(b'"ready"')
                writer.write(last + GOODBYE)
                writer.write_eof()
                await nobody(app.state.node)

        async with line(port, "/v1/rooms/a/listen"):
            assert len(app.state.node.manager.actors) == 1

    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("reset", [False, True], ids=["shut down", "reset"])
async def test_who_goes_behind_commands_that_wait_and_more_than_a_turn_of_frames_is_forgotten(
    app: FastAPI, port: int, reset: bool
) -> None:
    manager = app.state.node.manager
    with anyio.fail_after(WITHIN):
        for _ in range(3):
            async with line(port, "/v1/rooms/a/speak?rate=16000") as (reader, writer):
                writer.write(AUDIO)
                await reader.readuntil(b'"ready"')
                writer.write(FLUSH * 3 + masked(BINARY, bytes(32)) * (TURN + 36))
                if reset:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.close()
                else:
                    writer.write_eof()

                # Its session may be resumed, and stays a while.
                await manager.population.until(lambda: not manager.actors)


async def test_each_of_many_that_say_goodbye_and_shut_down_at_once_is_answered(
    app: FastAPI, port: int
) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(GOODBYE)
        writer.write_eof()
        return await reader.read()

    with anyio.fail_after(WITHIN):
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(line(port, "/v1/connect")) for _ in range(40)]
            said = await asyncio.gather(*[leave(*each) for each in crowd])

        await nobody(app.state.node)

    assert said == [bytes((FIN | CLOSE, 2)) + b"\x03\xe8"] * 40


@pytest.mark.parametrize("pieces", [TURN - 2, TURN - 1, TURN])
async def test_who_does_not_read_and_leaves_at_the_end_of_a_turn_is_gone_at_once(
    app: FastAPI, port: int, pieces: int
) -> None:
    node: Node = app.state.node
    with anyio.fail_after(CLOSE_WITHIN - 1):
        async with line(port, "/v1/rooms/a/listen") as (reader, writer):
            await reader.readuntil(b'"joined"')
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            (actor,) = node.manager.actors
            while not actor.egress:
                await node.manager.send_message(actor.principal, "a", "x" * 60_000)
                await checkpoint()

            parts = [masked(CONTINUATION, fin=False)] * (pieces - 1)
            writer.write(b"".join([masked(TEXT, fin=False), *parts, GOODBYE]))
            await nobody(node)
