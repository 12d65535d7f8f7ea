"""What a browser is told beside an answer: it is not guessed at, not kept, not framed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from server.routes.pages import POLICY
from server.websocket import HardenedWebSocket
from tests.hosted import hosted
from tests.server.api import settings_of, token_of

pytestmark = pytest.mark.anyio
NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
OPEN = ("/livez", "/readyz", "/healthz", "/version", "/metrics", "/openapi.json")
OF_A_TENANT = ("/v1/rooms", "/v1/connections", "/v1/usage")
MISSING = ("/docs", "/redoc", "/docs/oauth2-redirect", "/nothing", "/static/nothing", "/v1/nothing")


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    """An app of two tenants with a bug."""
    app = create_app(settings_of())

    async def bug() -> None:
        raise RuntimeError("canary")

    app.add_api_route("/bug", bug)
    return app


@pytest.fixture(params=[LeanWebSocket, HardenedWebSocket])
async def address(app: FastAPI, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the app is served, by each protocol, without a scheme."""
    async with hosted(app, http=HardenedHttp, ws=request.param) as port:
        yield f"127.0.0.1:{port}"


def check(headers: Any, policy: str = NO_PAGE, cache: str = "no-store") -> None:
    """See that an answer has each header once."""
    expected = {
        "cache-control": cache,
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    found = [(name.lower(), value) for name, value in headers if name.lower() in expected]
    assert sorted(found) == sorted(expected.items())


async def test_every_answer_over_http_has_the_headers_once(address: str) -> None:
    bearer = {"Authorization": f"Bearer {token_of()}"}
    order = {"rooms": [{"room": "a", "can": ["listen"]}]}
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        for path in OPEN:
            for method in ("GET", "HEAD")[: 1 if path == "/openapi.json" else 2]:
                answer = await http.request(method, path)
                assert answer.status_code == 200, path
                check(answer.headers.multi_items())

        for path in OF_A_TENANT:
            allowed, refused = await http.get(path, headers=bearer), await http.get(path)
            assert (allowed.status_code, refused.status_code) == (200, 401)
            check(allowed.headers.multi_items())
            check(refused.headers.multi_items())

        ticket = await http.post("/v1/tickets", json=order, headers=bearer)
        assert ticket.status_code == 200
        check(ticket.headers.multi_items())
        for path in MISSING:
            answer = await http.get(path)
            assert answer.status_code == 404, path
            check(answer.headers.multi_items())

        wrong = await http.get("/v1/tickets")
        assert wrong.status_code == 405
        check(wrong.headers.multi_items())


async def test_a_page_keeps_its_own_policy(address: str) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        page = await http.get("/")
        check(page.headers.multi_items(), POLICY, "no-cache")
        known = await http.get("/static/app.js")
        check(known.headers.multi_items(), POLICY, "no-cache")
        again = {"If-None-Match": known.headers["etag"]}
        unchanged = await http.get("/static/app.js", headers=again)
        assert unchanged.status_code == 304
        check(unchanged.headers.multi_items(), POLICY, "no-cache")
        assert "https:" not in page.text, "the page loads from this server alone"


async def test_the_answer_to_a_bug_has_them_too_and_says_nothing_of_it(address: str) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        answer = await http.get("/bug")
        assert (answer.status_code, "canary" in answer.text) == (500, False)
        check(answer.headers.multi_items())


async def test_a_refused_upgrade_has_them_and_an_accepted_one_needs_none(address: str) -> None:
    for path in ("/v1/connect", "/v1/nothing", "/v1/listen"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://{address}{path}"):
                pass

        check(refused.value.response.headers.raw_items())

    async with connect(f"ws://{address}/v1/connect?token={token_of()}") as socket:
        assert socket.response is not None
        assert "cache-control" not in socket.response.headers
