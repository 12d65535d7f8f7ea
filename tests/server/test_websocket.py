"""The stock protocol looked at from inside: how much it does in one turn of the loop."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest

from server.http import HardenedHttp
from server.ports import TURN
from server.websocket import PIECE, HardenedWebSocket
from tests.e2e.test_bad_input import UPGRADE
from tests.hosted import hosted
from tests.rawframes import BINARY, CLOSE, masked

pytestmark = pytest.mark.anyio

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
CROWD = [masked(BINARY, b"%04d" % number) for number in range(2000)]
MOST = TURN + PIECE // len(CROWD[0]) + 1
"""Messages of one turn: the frames of the last piece are beyond the bound."""


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


class Route:
    """An application that keeps each message with the turn of the loop in which it came."""

    def __init__(self) -> None:
        self.turn = 0
        self.heard: list[tuple[int, bytes]] = []
        self.code: int | None = None
        self.accepted, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Accept, and read to the end."""
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted.set()
        while (event := await receive())["type"] == "websocket.receive":
            self.heard.append((self.turn, event["bytes"]))

        self.code = event["code"]
        self.ended.set()

    async def count_turns(self) -> None:
        """Count the turns of the loop, until cancelled."""
        while True:
            self.turn += 1
            await asyncio.sleep(0)


async def connected(route: Route, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE + b"\r\n")
    with anyio.fail_after(WITHIN):
        await reader.readuntil(b"\r\n\r\n")
        await route.accepted.wait()

    return reader, writer


async def test_others_have_their_turn_while_many_frames_are_here() -> None:
    route = Route()
    async with hosted(route, lifespan="off", http=HardenedHttp, ws=HardenedWebSocket) as port:
        _, writer = await connected(route, port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(route.count_turns)
            writer.write(b"".join(CROWD) + masked(CLOSE, b"\x03\xe8"))
            with anyio.fail_after(WITHIN):
                await route.ended.wait()

            tasks.cancel_scope.cancel()

        writer.close()
        await writer.wait_closed()

    assert [message for _, message in route.heard] == [b"%04d" % number for number in range(2000)]
    turns = [turn for turn, _ in route.heard]
    assert max(map(turns.count, turns)) <= 2 * MOST
    assert route.code == 1000


async def test_a_loss_is_told_after_what_came_before_it() -> None:
    route = Route()
    async with hosted(route, lifespan="off", http=HardenedHttp, ws=HardenedWebSocket) as port:
        reader, writer = await connected(route, port)
        name = writer.get_extra_info("sockname")
        found = (each for each in gc.get_objects() if isinstance(each, HardenedWebSocket))
        server = next(each for each in found if each.client == name)
        server.data_received(b"".join(CROWD))
        assert server._rest
        server.transport.abort()
        with anyio.fail_after(WITHIN):
            await route.ended.wait()
            await reader.read()

        writer.close()

    assert (len(route.heard), route.code) == (len(CROWD), 1006)
