"""What a token allows, on every surface: 403 before the upgrade, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.expiry import LEEWAY
from actors.principal import CAPABILITIES, Capability, Grant, Principal
from server.app import create_app
from server.engines.configured import Engines
from server.http import HardenedHttp
from server.node import Node
from server.protocol import LeanWebSocket
from server.routes.fronts import serve_vosk
from server.settings import Settings
from tests.e2e.clients import client
from tests.hosted import hosted

pytestmark = pytest.mark.anyio
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
STREAM = "/speechtotext/v1/stream?access_token=any&content_type=audio/*"
SURFACES: dict[str, Capability] = {
    "/v1/rooms/{room}/speak": "speak",
    "/v1/rooms/{room}/listen": "listen",
    f"{LISTEN}&room={{room}}": "speak",
    "/vosk?room={room}": "speak",
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "lean": {"http": HardenedHttp, "ws": LeanWebSocket},
    "stock": {"ws": "websockets-sansio"},
}
KEY = {"Authorization": "Token any"}


class Doorman:
    """Says who everybody is."""

    def __init__(self) -> None:
        self.principal = Principal("t")

    def __call__(self, *request: object) -> Principal:
        """Say who this is, whatever it brings."""
        return self.principal

    def grant(self, pattern: str, *capabilities: Capability) -> None:
        """Let everybody from here on have this grant alone."""
        self.principal = Principal("t", grants=(Grant(pattern, capabilities),))


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@asynccontextmanager
async def served(app: FastAPI, protocol: str) -> AsyncIterator[int]:
    """Serve an app, and see at the end that every connection goes; yields its port."""
    manager = app.state.node.manager
    async with hosted(app, **PROTOCOLS[protocol]) as port:
        yield port
        with anyio.fail_after(20):
            await manager.population.until(lambda: not manager.actors)


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with the echo engine, and the front of vosk at an address of its own."""
    app = create_app(Settings(dev=True, engines=Engines(enabled=("echo",))))

    async def vosk(websocket: Any) -> None:
        await serve_vosk(app.state.node, websocket)

    app.router.routes.insert(0, WebSocketRoute("/vosk", vosk))
    return app


@pytest.fixture
def doorman(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Doorman:
    """The one who says who everybody is."""
    doorman = Doorman()
    monkeypatch.setattr(app.state.node, "authenticate", doorman)
    return doorman


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """Where the app is served, without a scheme."""
    async with served(app, "lean") as port:
        yield f"127.0.0.1:{port}"


async def knock(url: str) -> dict[str, Any]:
    """Return the problem document of a refused upgrade, or an empty one."""
    try:
        async with connect(url, additional_headers=KEY):
            return {}
    except InvalidStatus as refused:
        problem: dict[str, Any] = msgspec.json.decode(refused.response.body or b"")
        return {**problem, "status": refused.response.status_code}


async def test_a_socket_needs_its_capability_in_its_room(address: str, doorman: Doorman) -> None:
    for surface, needed in SURFACES.items():
        for capability in CAPABILITIES:
            doorman.grant("here*", capability)
            here = await knock(f"ws://{address}{surface.format(room='here:1')}")
            assert here.get("status") == (None if capability == needed else 403), surface
            there = await knock(f"ws://{address}{surface.format(room='there')}")
            assert there["status"] == 403, surface


async def test_publishing_needs_its_capability(address: str, doorman: Doorman) -> None:
    async with httpx2.AsyncClient() as http:
        for capability in CAPABILITIES:
            doorman.grant("here*", capability)
            allowed = capability == "publish"
            for path, status in (
                ("rooms/here:1/messages", 200 if allowed else 403),
                ("rooms/there/messages", 403),
                ("broadcast", 200 if allowed else 403),
            ):
                answer = await http.post(f"http://{address}/v1/{path}", json={"data": 1})
                assert answer.status_code == status, (path, capability)


async def test_a_room_that_is_there_is_forbidden_in_the_same_words_as_any_other(
    app: FastAPI, address: str, doorman: Doorman
) -> None:
    node: Node = app.state.node
    await node.manager.send_message(Principal("t"), "busy", 1)
    doorman.grant("mine", *CAPABILITIES)
    async with httpx2.AsyncClient() as http:
        for surface in SURFACES:
            busy, free = [
                await knock(f"ws://{address}{surface.format(room=room)}") for room in ("busy", "no")
            ]
            for varying in ("dg-request-id", "request_id"):
                busy.pop(varying, None)
                free.pop(varying, None)

            assert busy == free
            assert busy["status"] == 403

        first, second = [
            await http.post(f"http://{address}/v1/rooms/{room}/messages", json={"data": 1})
            for room in ("busy", "no")
        ]
        assert first.content == second.content


async def test_nobody_learns_of_engines_or_limits_behind_a_forbidden_address(
    address: str, doorman: Doorman
) -> None:
    doorman.grant("mine", *CAPABILITIES)
    for path in ("speak?engine=nobody", "listen?history=99999"):
        assert (await knock(f"ws://{address}/v1/rooms/a/{path}"))["code"] == "forbidden"


async def test_a_private_room_of_a_front_needs_a_grant_that_covers_it(
    address: str, doorman: Doorman
) -> None:
    doorman.grant("meeting-*", "speak")
    assert (await knock(f"ws://{address}{LISTEN}"))["err_code"] == "FORBIDDEN"
    assert (await knock(f"ws://{address}/vosk"))["code"] == "forbidden"
    async with connect(f"ws://{address}{STREAM}") as front:
        with pytest.raises(ConnectionClosed) as closed, anyio.fail_after(20):
            await front.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
    for kind, url in (("deepgram", LISTEN), ("vosk", "/vosk")):
        doorman.grant(f"{kind}:*", "speak")
        assert await knock(f"ws://{address}{url}") == {}


async def test_forbidden_commands_are_answered_and_then_end_the_connection(
    address: str, doorman: Doorman
) -> None:
    doorman.grant("mine", *CAPABILITIES)
    async with client(f"ws://{address}/v1/connect") as someone:
        for count in range(9):
            answer = await someone.ask(type="join", id=count, room=f"guess-{count}")
            assert (answer["code"], answer["field"]) == ("forbidden", "room")

        assert (await someone.ask(type="join", id=9, room="mine"))["type"] == "joined"
        await someone.send(type="join", id=10, room="guess")
        assert await someone.closed() == (4502, "forbidden")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("path", ["connect", "rooms/a/listen", "rooms/a/speak"])
async def test_who_is_revoked_between_the_check_and_the_accept_gets_nothing(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, protocol: str, path: str
) -> None:
    manager = app.state.node.manager
    ann = Principal("t", "ann")

    def admit_and_revoke(*request: object) -> Principal:
        manager.revoke("t", subject="ann")
        return ann

    monkeypatch.setattr(app.state.node, "authenticate", admit_and_revoke)
    async with (
        served(app, protocol) as port,
        client(f"ws://127.0.0.1:{port}/v1/{path}") as someone,
    ):
        assert await someone.closed() == (4505, "revoked")
        assert [event["type"] for event in someone.events] == ["hello", "closing"]

    assert manager.statistics().subscriptions == 0
    assert manager.upkeep.speaking == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_token_that_expires_ends_its_connection_and_no_other(
    app: FastAPI, doorman: Doorman, protocol: str
) -> None:
    async with (
        served(app, protocol) as port,
        client(f"ws://127.0.0.1:{port}/v1/rooms/a/listen") as other,
    ):
        await other.until("joined")
        expires = time.time() - LEEWAY + 0.2
        doorman.principal = Principal("t", "ann", expires=expires)
        async with client(f"ws://127.0.0.1:{port}/v1/rooms/a/listen") as someone:
            assert (await someone.until("hello"))["expires"] == expires
            assert await someone.closed() == (4004, "token_expired")
            assert someone.events[-1]["retry"] is True

        assert (await other.ask(type="ping", id=1))["type"] == "ack"
