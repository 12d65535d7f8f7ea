"""Tokens, tickets and keys: wherever they are, no log, metric or answer shows one, at any level."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from server import websocket
from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from server.settings import Settings
from server.websocket import HardenedWebSocket
from tests.e2e.clients import WITHIN
from tests.hosted import hosted
from tests.server.api import UNBOUNDED
from tests.tokens import OTHER_SECRET, mint, tenant

pytestmark = pytest.mark.anyio
GOOD, EXPIRED = mint(sub="good"), mint(sub="late", exp=1)
FOREIGN = mint(OTHER_SECRET, sub="foreign")
NONSENSE = "canary.nonsense-of-the-header.and-more-of-it"
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000&room=a"
STREAM = "/speechtotext/v1/stream?content_type=audio/*&room=a"


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
async def gossip() -> AsyncIterator[int]:
    """A provider that repeats whatever key it is shown, in the reason of its refusal."""

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        if "/gossip" in request.path:
            return connection.respond(401, f"{request.path} {dict(request.headers)}")

        return None

    async def close(connection: ServerConnection) -> None:
        assert connection.request is not None
        told = f"{connection.request.headers.get('Authorization')} {await connection.recv()!r}"
        await connection.close(4001, told[:120])

    async with serve(close, "127.0.0.1", 0, process_request=refuse) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest.fixture
def app(gossip: int) -> FastAPI:
    """An app of one tenant whose engines' keys are canaries."""
    here = f"ws://127.0.0.1:{gossip}"
    settings = {
        "limits": UNBOUNDED | {"upstream": {"open_within": 2, "lost_within": 2}},
        "tenants": tenant(),
        "engines": {
            "enabled": ["echo", "deepgram", "revai", "websocket"],
            "deepgram": {
                "url": f"{here}/gossip",
                "key": "canary-deepgram",
                "parameters": {"tag": "canary-parameter"},
            },
            "revai": {"url": f"{here}/stream", "token": "canary-revai"},
            "websocket": {
                "url": f"{here}/?key=canary-query",
                "headers": {"Authorization": "canary-header"},
                "first": "canary-first",
                "subprotocols": ["canary-subprotocol"],
            },
        },
    }
    return create_app(msgspec.convert(settings, Settings))


@pytest.fixture(params=[LeanWebSocket, HardenedWebSocket])
async def address(app: FastAPI, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the app is served, by each protocol, without a scheme."""
    async with hosted(app, http=HardenedHttp, ws=request.param, access_log=False) as port:
        yield f"127.0.0.1:{port}"


async def told(url: str, *messages: str, **options: Any) -> str:
    """Connect, send this, and return everything that comes until it ends or is quiet."""
    got: list[str] = []
    try:
        async with connect(f"ws://{url}", compression=None, **options) as socket:
            got.append(str(socket.response and socket.response.headers))
            for message in messages:
                await socket.send(message)

            with anyio.move_on_after(0 if not messages else WITHIN):
                while "ended" not in got[-1]:
                    got.append(str(await socket.recv()))
    except InvalidStatus as refused:
        got += [str(refused.response.headers), (refused.response.body or b"").decode()]
    except ConnectionClosed as closed:
        got.append(str(closed))

    return "\n".join(got)


def places(address: str, token: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every way to bring a token with a WebSocket."""
    bearer = {"additional_headers": {"Authorization": f"Bearer {token}"}}
    return [
        (f"{address}/v1/connect", bearer),
        (f"{address}/v1/nothing", bearer),
        (f"{address}/v1/connect?token={token}", {}),
        (f"{address}/v1/connect", {"subprotocols": ["roomcast.v1", f"bearer.{token}"]}),
        (f"{address}/v1/connect?ticket={token}", {}),
        (address + LISTEN, {"additional_headers": {"Authorization": f"Token {token}"}}),
        (address + LISTEN, {"subprotocols": ["token", token]}),
        (f"{address}{STREAM}&access_token={token}", {"open_timeout": WITHIN}),
    ]


async def test_no_token_is_shown_wherever_it_was_brought(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown, tokens = [], [GOOD, EXPIRED, FOREIGN, NONSENSE]
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        for token in tokens:
            for url, options in places(address, token):
                shown.append(await told(url, **options))

            first = msgspec.json.encode({"type": "auth", "token": token, "id": 1}).decode()
            refresh = msgspec.json.encode({"type": "refresh", "token": token, "id": 2}).decode()
            over = '{"type":"ping","id":"ended"}'
            url = f"{address}/v1/connect?auth=message"
            shown += [
                await told(url, first, over),
                await told(url, token),
                await told(url, f"{first}{{"),
            ]
            shown.append(await told(f"{address}/v1/connect?token={GOOD}", refresh, over))
            for path in ("/v1/usage", "/nothing", f"/v1/rooms?token={token}"):
                answer = await http.get(path, headers={"Authorization": f"Bearer {token}"})
                shown.append(f"{answer.headers}{answer.text}")

        order = {"rooms": [{"room": "a", "can": ["listen"]}]}
        bearer = {"Authorization": f"Bearer {GOOD}"}
        ticket = (await http.post("/v1/tickets", json=order, headers=bearer)).json()["ticket"]
        url = f"{address}/v1/connect?ticket={ticket}"
        shown += [await told(url), await told(url)]
        shown += [(await http.get("/metrics")).text, logged(caplog)]

    everything = "\n".join(shown)
    assert '"ended"' in everything
    for secret in (ticket, *(part for token in tokens for part in token.split(".")[1:])):
        assert secret not in everything


def test_whoever_sets_up_uvicorn_s_loggers_makes_no_protocol_talk() -> None:
    loggers: dict[str, Any] = {"uvicorn": {}}
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "loggers": loggers}
    )  # resets the level of every logger below
    assert websocket.log.getEffectiveLevel() == logging.ERROR


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the server logged: the clients and the provider of these tests are no part of it,
    and uvicorn's access log is one that the command line turns off.
    """
    others = ("websockets.client", "websockets.server", "httpx", "httpcore", "uvicorn.access")
    ours = [each for each in caplog.records if not each.name.startswith(others)]
    return "\n".join(f"{each.getMessage()} {each.exc_text}" for each in ours)


@pytest.mark.parametrize("engine", ["deepgram", "revai", "websocket"])
async def test_no_key_of_an_engine_is_shown_however_talkative_its_provider(
    address: str, caplog: pytest.LogCaptureFixture, engine: str
) -> None:
    caplog.set_level(logging.DEBUG)
    start = f'{{"type":"start","room":"a","engine":"{engine}","id":1}}'
    url = f"{address}/v1/rooms/a/speak?token={GOOD}&engine={engine}"
    everything = await told(url, start)
    assert engine in everything
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        everything += (await http.get("/metrics")).text

    assert "canary" not in everything + logged(caplog)
