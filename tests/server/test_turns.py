"""How much of the loop a request takes at a time: others have their turn between its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from server.app import create_app
from tests.server.api import able, settings_of, token_of

pytestmark = pytest.mark.anyio
GOOD = token_of(rooms=able("*", "publish", "listen"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The server's loop."""
    return "asyncio", {"use_uvloop": True}


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
        ("websocket", "/v1/connect", GOOD + "x", 401, 2),
    ],
)
async def test_others_have_their_turn_between_the_parts_of_a_request(
    app: ASGIApp, kind: str, path: str, token: str, status: int, parts: int
) -> None:
    assert await turns_of(app, kind, path, token) == (status, parts)
