"""Who may come: every bad token in every place on every surface, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.errors import Refused
from server.app import create_app
from server.auth import Credentials, Gate, credentials_of
from server.http import HardenedHttp
from server.node import SystemClock
from server.protocol import LeanWebSocket
from server.routes.fronts import serve_vosk
from server.settings import Settings
from server.websocket import HardenedWebSocket
from tests.e2e.clients import client
from tests.hosted import hosted
from tests.server.api import UNBOUNDED
from tests.tokens import OTHER_SECRET, SECRET, forge, mint, pem, tenant

ORIGIN = "https://app.example.com"
TABLE = {
    **tenant(),
    **tenant("other", OTHER_SECRET, origins=[ORIGIN, "http://localhost:3000"]),
    "public": {"keys": {"main": {"pem": pem("RS256")}}},
}
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000&room=a"
STREAM = "/speechtotext/v1/stream?content_type=audio/*&room=a"
SOCKETS = ("/v1/rooms/a/speak", "/v1/rooms/a/listen", "/v1/connect")
BAD: dict[str, Callable[[], str]] = {
    "expired": lambda: mint(exp=int(time.time()) - 31),
    "another tenant's": lambda: mint(key=OTHER_SECRET),
    "unknown tenant": lambda: mint(tenant="nobody"),
    "wrong rooms": lambda: mint(rooms=[{"pattern": "*", "can": ["canary"]}]),
    "wrong algorithm": lambda: forge({"alg": "HS512"}),
    "alg none": lambda: forge({"alg": "none"}),
    "unsigned": lambda: forge({"alg": "none"}).rpartition(".")[0] + ".",
    "key confusion": lambda: forge({"alg": "HS256"}, pem("RS256").encode(), tenant="public"),
    "bad kid": lambda: mint(headers={"kid": "canary"}),
    "future": lambda: mint(nbf=int(time.time()) + 60),
    "no base64": lambda: mint().replace(".", ".*", 1),
    "huge": lambda: mint(x="canary" * 1400),
    "unknown crit": lambda: forge({"alg": "HS256", "crit": ["canary"], "canary": 1}),
    "jku": lambda: mint(key=OTHER_SECRET, headers={"jku": "http://127.0.0.1:1/canary"}),
}


def settings_of(dev: bool = False, **tenants: Any) -> Settings:
    """Return settings with tenants and the echo engine alone."""
    table = {
        "dev": dev,
        "engines": {"enabled": ["echo"]},
        "tenants": tenants,
        "limits": UNBOUNDED,
    }
    return msgspec.convert(table, Settings)


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with tenants, and the front of vosk at an address of its own."""
    return app_of(settings_of(**TABLE))


def app_of(settings: Settings) -> FastAPI:
    """Return the app of some settings, and the front of vosk at an address of its own."""
    app = create_app(settings)

    async def vosk(websocket: Any) -> None:
        await serve_vosk(app.state.node, websocket)

    app.router.routes.insert(0, WebSocketRoute("/vosk", vosk))
    return app


@pytest.fixture
async def address(app: FastAPI, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the app is served, without a scheme; by the lean protocol unless a test wants both."""
    protocol = getattr(request, "param", LeanWebSocket)
    async with hosted(app, http=HardenedHttp, ws=protocol) as port:
        yield f"127.0.0.1:{port}"


BOTH = pytest.mark.parametrize("address", [LeanWebSocket, HardenedWebSocket], indirect=True)


Place = Callable[[str], tuple[str, dict[str, Any]]]
PLACES: dict[str, Place] = {
    "header": lambda token: ("", {"additional_headers": {"Authorization": f"Bearer {token}"}}),
    "subprotocol": lambda token: ("", {"subprotocols": ["roomcast.v1", f"bearer.{token}"]}),
    "query": lambda token: (f"token={token}", {}),
}


class Answer(msgspec.Struct):
    """What came of asking for a WebSocket: a status, and a close code where there was one."""

    status: int
    body: str = ""
    headers: str = ""
    code: int = 0


async def knock(url: str, query: str = "", **options: Any) -> Answer:
    """Ask for a WebSocket, and end what is accepted unless the server does."""
    joined = f"{url}{'&' if '?' in url else '?'}{query}" if query else url
    try:
        async with connect(f"ws://{joined}", compression=None, **options) as socket:
            answer = Answer(101, headers=str(socket.response and socket.response.headers))
            if "speechtotext" in url:
                try:
                    await socket.recv()  # it is connected at once, or closed
                except ConnectionClosed as closed:
                    told = closed.rcvd
                    answer.code, answer.body = (told.code, told.reason) if told else (1006, "")

            return answer
    except InvalidStatus as refused:
        response = refused.response
        body = (response.body or b"").decode()
        return Answer(response.status_code, body, str(response.headers))


def is_told(answer: Answer, token: str) -> bool:
    """Return whether an answer repeats anything that nobody should see."""
    text = answer.body + answer.headers
    return "canary" in text or any(len(part) > 8 and part in text for part in token.split("."))


@pytest.mark.anyio
@BOTH
async def test_a_good_token_is_let_in_at_every_place_and_never_repeated(address: str) -> None:
    token = mint()
    for place in PLACES.values():
        query, options = place(token)
        for surface in SOCKETS:
            answer = await knock(address + surface, query, **options)
            assert answer.status == 101, surface
            assert not is_told(answer, token)

    only = await knock(f"{address}/v1/connect", subprotocols=[f"bearer.{token}"])
    assert only.status == 101
    assert "rotocol" not in only.headers
    packed = ["roomcast.v1.msgpack", f"bearer.{token}"]
    both = await knock(f"{address}/v1/connect", subprotocols=packed)
    assert "roomcast.v1.msgpack" in both.headers
    for authorization in (f"Token {token}", f"Bearer {token}"):
        header = {"Authorization": authorization}
        assert (await knock(address + LISTEN, additional_headers=header)).status == 101

    pair = await knock(address + LISTEN, subprotocols=["token", token])
    assert pair.status == 101
    assert not is_told(pair, token)
    assert (await knock(f"{address}{STREAM}", f"access_token={token}", open_timeout=9)).code == 0


@pytest.mark.anyio
@BOTH
async def test_a_bad_token_is_refused_at_every_place_of_every_surface(address: str) -> None:
    for bad, make in BAD.items():
        await check_refused(address, bad, make())


async def check_refused(address: str, bad: str, token: str) -> None:
    """Every surface refuses a token at every place, by its own status or code."""
    answers = []
    for place in PLACES.values():
        query, options = place(token)
        answers += [await knock(address + surface, query, **options) for surface in SOCKETS]

    header = {"Authorization": f"Token {token}"}
    deepgram = await knock(address + LISTEN, additional_headers=header)
    pair = await knock(address + LISTEN, subprotocols=["token", token])
    vosk = await knock(f"{address}/vosk", f"token={token}")
    revai = await knock(address + STREAM, f"access_token={token}")
    if bad == "huge" and deepgram.status == 431:  # the stock protocol takes no such line
        assert {answer.status for answer in (*answers, pair, vosk, revai)} == {431}
        return

    for answer in (*answers, deepgram, pair, vosk):
        assert answer.status == 401, (bad, answer)
        assert not is_told(answer, token)

    code = "token_expired" if bad == "expired" else "unauthorized"
    assert f'"err_code":"{code.upper()}"' in deepgram.body
    assert all("Bearer" in answer.headers for answer in answers)
    assert (revai.status, revai.code) == (101, 4001)
    assert not is_told(revai, token)
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        for path in ("/v1/rooms/a/messages", "/v1/broadcast"):
            for asked, headers in (
                (path, {"Authorization": f"Bearer {token}"}),
                (f"{path}?token={token}", {}),
            ):
                response = await http.post(asked, json={"data": 1}, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json()["code"] == code
                assert not is_told(Answer(401, response.text, str(response.headers)), token)


@pytest.mark.anyio
async def test_without_a_token_nobody_is_let_in(address: str) -> None:
    for surface in (*SOCKETS, LISTEN, "/vosk"):
        assert (await knock(address + surface)).status == 401, surface

    assert (await knock(address + STREAM)).code == 4001
    for header in ("", "Bearer", "Bearer ", "Basic YTpi", f"Token {mint()}", mint()):
        told = {"Authorization": header}
        assert (await knock(f"{address}/v1/connect", additional_headers=told)).status == 401

    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        assert (await http.post("/v1/broadcast", json={"data": 1})).status_code == 401
        for path in ("/livez", "/readyz", "/version", "/metrics", "/"):
            assert (await http.get(path)).status_code == 200


@pytest.mark.anyio
async def test_a_token_speaks_for_its_own_tenant_alone(app: FastAPI, address: str) -> None:
    manager = app.state.node.manager
    async with connect(f"ws://{address}/v1/rooms/a/listen?token={mint()}") as mine:
        await mine.recv()
        (actor,) = manager.actors
        assert actor.principal.key("a") == "acme/a"
        async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
            theirs = {"Authorization": f"Bearer {mint(key=OTHER_SECRET, tenant='other')}"}
            sent = await http.post("/v1/broadcast", json={"data": 1}, headers=theirs)
            assert sent.json() == {"rooms": 0}


@pytest.mark.anyio
async def test_a_tenant_may_be_kept_to_its_own_engines() -> None:
    table = {"engines": {"enabled": ["vosk", "echo"]}, "tenants": tenant(engines=["echo"])}
    app = app_of(msgspec.convert(table, Settings))
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        address = f"127.0.0.1:{port}/v1/rooms/a/speak"
        for engine, status in (("", 101), ("echo", 101), ("vosk", 400)):
            answer = await knock(address, f"engine={engine}&token={mint()}")
            assert answer.status == status

        async with client(f"ws://{address}?token={mint()}") as someone:
            ready = await someone.until("speech", lambda event: event["state"] == "ready")
            assert ready["engine"] == "echo"


@pytest.mark.anyio
async def test_a_live_connection_takes_another_token_and_a_revoked_one_is_not_let_in(
    app: FastAPI, address: str
) -> None:
    ann, ben = mint(sub="ann", jti="1"), mint(sub="ben")
    async with client(f"ws://{address}/v1/connect?token={ann}") as someone:
        for token, code in (
            (mint(sub="ann", exp=1), "token_expired"),
            (forge({"alg": "none"}, sub="ann"), "unauthorized"),
            (ben, "forbidden"),
            (mint(sub="ann"), None),
        ):
            answer = await someone.ask(type="refresh", id=1, token=token)
            assert answer.get("code") == code
            assert token not in str(answer)

        app.state.node.manager.revoke("acme", subject="ann")
        assert await someone.closed() == (4505, "revoked")

    refused = await knock(f"{address}/v1/connect", f"token={ann}")
    assert (refused.status, "revoked" in refused.body) == (401, True)
    assert (await knock(f"{address}/v1/connect", f"token={ben}")).status == 101


ORIGINS: dict[str | None, int] = {
    None: 101,
    ORIGIN: 101,
    "http://localhost:3000": 101,
    "null": 403,
    "https://app.example.com.evil.example": 403,
    "https://evil-app.example.com": 403,
    "https://example.com": 403,
    "https://x.app.example.com": 403,
    "http://app.example.com": 403,
    "https://app.example.com:8443": 403,
    "https://app.example.com:443": 403,
    "https://app.example.com/": 403,
    "https://APP.example.com": 403,
    "https://app.example.com@evil.example": 403,
    "http://localhost": 403,
    f"{ORIGIN} {ORIGIN}": 403,
}


@pytest.mark.anyio
async def test_an_origin_is_one_of_the_tenant_s_or_refused_before_the_upgrade(
    address: str,
) -> None:
    token = mint(key=OTHER_SECRET, tenant="other")
    for origin, status in ORIGINS.items():
        await check_origin(address, origin, status, token)


async def check_origin(address: str, origin: str | None, status: int, token: str) -> None:
    """Every surface lets an origin in or refuses it before the upgrade."""
    told = {} if origin is None else {"Origin": origin}
    for path, key in (
        ("/v1/connect", {"Authorization": f"Bearer {token}"}),
        (LISTEN, {"Authorization": f"Token {token}"}),
        (f"{STREAM}&access_token={token}", {}),
    ):
        answer = await knock(address + path, additional_headers=told | key, open_timeout=9)
        assert answer.status == status, (origin, path)

    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        bearer = {"Authorization": f"Bearer {token}"}
        sent = await http.post("/v1/broadcast", json={"data": 1}, headers=told | bearer)
        assert sent.status_code == (200 if status == 101 else 403)


def scope_of(
    *headers: tuple[bytes, bytes], query: bytes = b"", offered: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the scope of a request from this machine."""
    return {
        "headers": list(headers),
        "query_string": query,
        "subprotocols": list(offered),
        "client": ("127.0.0.1", 5),
    }


def test_a_request_brings_one_token_and_shows_none() -> None:
    header = (b"authorization", b"bearer  a.b.c ")
    offered = ("roomcast.v1", "bearer.d.e.f")
    query = b"since=1&token=g.h.i&x=1"
    for scope, token in (
        (scope_of(header, query=query, offered=offered), "a.b.c"),
        (scope_of(query=query, offered=offered), "d.e.f"),
        (scope_of(query=query), "g.h.i"),
        (scope_of(query=b"token="), ""),
        (scope_of(query=b"access_token=g.h.i&xtoken=1"), None),
        (scope_of((b"authorization", b"Basic a.b.c")), None),
        (scope_of((b"authorization", b"")), None),
    ):
        found = credentials_of(scope)
        assert (found.token, found.origin, found.address) == (token, None, "127.0.0.1")
        assert repr(found) == "Credentials(origin=None, address='127.0.0.1')"

    assert credentials_of({"headers": [], "client": None}).address == ""
    twice = scope_of((b"origin", ORIGIN.encode()), (b"origin", ORIGIN.encode()))
    assert credentials_of(twice).origin == "null"


@pytest.mark.anyio
async def test_development_mode_has_its_tenant_beside_the_others_on_this_machine_only() -> None:
    alone = Gate(settings_of(dev=True), SystemClock())
    for credentials in (Credentials(), Credentials(token="any", address="10.0.0.1")):
        assert alone.admit(credentials).tenant == "dev"

    beside = Gate(settings_of(dev=True, **TABLE), SystemClock())
    assert beside.admit(Credentials(address="127.0.0.1")).tenant == "dev"
    assert beside.admit(Credentials(address="::1")).tenant == "dev"
    assert beside.admit(Credentials(token=mint(), address="127.0.0.1")).tenant == "acme"
    for credentials in (
        Credentials(),
        Credentials(address="10.0.0.1"),
        Credentials(token="any", address="127.0.0.1"),
        Credentials(token="", address="127.0.0.1"),
        Credentials(token=mint(key=OTHER_SECRET), address="127.0.0.1"),
    ):
        with pytest.raises(Refused, match="token"):
            beside.admit(credentials)

    nobody = Gate(settings_of(), SystemClock())
    with pytest.raises(Refused, match="no tenant is configured"):
        nobody.admit(Credentials(address="127.0.0.1"))


GATE_SETTINGS = settings_of(dev=True, **TABLE)


@pytest.mark.anyio
@given(
    header=st.binary(max_size=60).map(lambda text: b"Bearer " + text) | st.binary(max_size=60),
    query=st.binary(max_size=60).map(lambda text: b"token=" + text) | st.binary(max_size=60),
    offered=st.lists(st.text(max_size=60) | st.text(max_size=60).map("bearer.".__add__)),
)
def test_whatever_a_request_brings_it_is_dev_or_refused(
    header: bytes, query: bytes, offered: list[str]
) -> None:
    scope = scope_of((b"authorization", header), query=query, offered=tuple(offered))
    gate = Gate(GATE_SETTINGS, SystemClock())
    with suppress(Refused):
        assert gate.admit(credentials_of(scope)).tenant == "dev"


def test_a_secret_of_a_tenant_is_in_no_repr_of_a_gate() -> None:
    gate = Gate(GATE_SETTINGS, SystemClock())
    assert SECRET not in f"{gate} {gate.tenants} {vars(gate)} {vars(gate.tenants)}"
