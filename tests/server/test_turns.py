"""How much of the loop a request takes at a time: others have their turn between its parts."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from actors.expiry import LEEWAY
from actors.population import AT_ONCE
from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from server.turns import Turns, give_way
from tests.hosted import hosted
from tests.rawframes import upgrade
from tests.server.api import able, settings_of, token_of

pytestmark = pytest.mark.anyio
GOOD = token_of(rooms=able("*", "publish", "listen"), headers={"kid": "main"})
MANY = 40


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
async def app() -> AsyncIterator[ASGIApp]:
    """The app, running."""
    app = create_app(settings_of())
    async with app.router.lifespan_context(app):
        yield app


async def turns_of(app: ASGIApp, kind: str, path: str, token: str) -> tuple[int, int]:
    """Ask; return the status, and the turns that others had meanwhile."""
    status = 0

    async def receive() -> Message:
        if kind == "websocket":
            return {"type": "websocket.connect"}

        return {"type": "http.request", "body": b'{"data":1}', "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"a"), (b"authorization", b"Bearer " + token.encode())],
        "subprotocols": [],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 4000),
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    asking, turns = asyncio.ensure_future(app(scope, receive, send)), 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1

    await asking
    return status, turns


@pytest.mark.parametrize(
    ("kind", "path", "token", "status", "parts"),
    [
        ("http", "/v1/rooms/a/messages", GOOD, 200, 6),
        ("http", "/v1/rooms/a/messages", GOOD + "x", 401, 4),
        ("websocket", "/v1/connect", GOOD + "x", 401, 3),
    ],
)
async def test_others_have_their_turn_between_the_parts_of_a_request(
    app: ASGIApp, kind: str, path: str, token: str, status: int, parts: int
) -> None:
    # who gives way is called in the next turn, and goes on in the one after that
    assert await turns_of(app, kind, path, token) == (status, 2 * parts - 1)


async def test_of_many_that_wait_one_goes_on_in_a_turn() -> None:
    count, most = 0, 0

    async def go_on() -> None:
        nonlocal count
        for _ in range(3):
            await give_way()
            count += 1

    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(go_on()) for _ in range(20)]
        while not all(each.done() for each in waiting):
            before = count
            await asyncio.sleep(0)
            most = max(most, count - before)

    assert (count, most) == (60, 1)


async def test_who_is_cancelled_holds_up_nobody_and_leaves_the_line() -> None:
    turns = Turns()
    waiting = [asyncio.ensure_future(turns.wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    assert len(turns) == 1000
    for each in waiting[:-2]:
        each.cancel()

    await asyncio.sleep(0)
    await asyncio.sleep(0)  # each is told in the turn after
    assert len(turns) <= 2
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[-2:])

    assert len(turns) == 0


async def test_the_last_one_that_is_cancelled_lets_no_two_go_on_in_a_turn() -> None:
    turns, gone_on = Turns(), list[int]()
    loop = asyncio.get_running_loop()

    async def go_on() -> None:
        await turns.wait()
        gone_on.append(1)

    alone = asyncio.ensure_future(turns.wait())
    loop.call_soon(alone.cancel)
    others = [asyncio.ensure_future(go_on()) for _ in range(4)]
    most, before = 0, 0
    while not all(each.done() for each in others):
        await asyncio.sleep(0)
        most, before = max(most, len(gone_on) - before), len(gone_on)

    assert alone.cancelled()
    assert (len(gone_on), most) == (4, 1)


@pytest.mark.parametrize("how", ["cut", "close", "revoke", "expire"])
async def test_of_many_that_leave_at_once_a_few_do_so_in_a_turn(how: str) -> None:
    app, config = create_app(settings_of()), {"http": HardenedHttp, "ws": LeanWebSocket}
    manager = app.state.node.manager

    def here() -> int:
        return len(manager.fanout.rooms.members("acme/a"))

    token = token_of(exp=int(time.time() - LEEWAY) + 4) if how == "expire" else GOOD
    async with asyncio.timeout(20), hosted(app, **config) as port:
        crowd = [await come(port, token) for _ in range(MANY)]
        assert here() == MANY
        for writer in crowd:
            if how == "cut":
                writer.transport.abort()
            elif how == "close":
                writer.write(b"\x88\x82\0\0\0\0\x03\xe8")

        if how == "revoke":
            assert manager.revoke("acme", key="main") == MANY
            assert here() == MANY - AT_ONCE

        before, most = here(), 0
        while before:
            await asyncio.sleep(0)
            most, before = max(most, before - here()), here()

        assert most <= (1 if how in ("cut", "close") else AT_ONCE)
        for writer in crowd:
            writer.close()


async def come(port: int, token: str) -> asyncio.StreamWriter:
    """Join a room."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(upgrade("/v1/rooms/a/listen", token))
    await reader.readuntil(b'"joined"')
    return writer


@pytest.mark.parametrize(
    ("path", "token"), [("/v1/usage", GOOD), ("/v1/rooms/a/messages", GOOD + "x"), ("/no", GOOD)]
)
async def test_a_connection_that_is_over_leaves_nothing_to_the_garbage_collector(
    path: str, token: str
) -> None:
    config = {"http": HardenedHttp, "ws": LeanWebSocket}
    async with hosted(create_app(settings_of()), **config) as port:
        for request in (
            f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode(),
            upgrade(path, token),
        ):
            await ask(port, request)
            gc.collect()
            before = living()
            gc.disable()
            try:
                for _ in range(20):
                    await ask(port, request)

                assert living() <= before + 2
            finally:
                gc.enable()


def living() -> int:
    """Count the connections that are still in memory."""
    kinds = Counter(type(each).__name__ for each in gc.get_objects())
    return kinds["HardenedHttp"] + kinds["LeanWebSocket"] + kinds["AsgiSession"]


async def ask(port: int, request: bytes) -> None:
    """Send a request, and leave at the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    assert await reader.read(12)
    writer.close()
    await writer.wait_closed()
