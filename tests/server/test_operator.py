"""The operator's key: what it opens, for which tenant, and where it is but a wrong token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus

from server.app import create_app
from server.cli.config import veiled
from server.settings import BadSettings, load
from tests.e2e.clients import client
from tests.hosted import hosted
from tests.server.api import Caller, able, settings_of, token_of
from tests.tokens import NEXT_OPERATOR, OPERATOR, tenant

pytestmark = pytest.mark.anyio
Ask = Callable[[str | None], Caller]


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with two tenants and an operator."""
    return create_app(settings_of())


async def test_the_operator_does_for_a_tenant_what_its_administrator_does(
    address: str, caller: Ask
) -> None:
    operator = caller(OPERATOR)
    url = f"ws://{address}/v1/rooms/a/listen?token={token_of(sub='ann')}"
    async with client(url) as ann:
        await ann.until("joined")
        body = {"data": 1}
        sent = await operator.post("/v1/rooms/a/messages?tenant=acme", body, Idempotency_Key="k")
        assert (sent["room"], sent["offset"]) == ("a", 1)
        assert (await ann.until("message"))["sender"] == ""
        assert await operator.post("/v1/broadcast?tenant=acme", {"data": 2}) == {"rooms": 1}
        assert (await operator.get("/v1/rooms?tenant=acme"))["rooms"][0]["members"] == 1
        assert await operator.get("/v1/rooms?tenant=other") == {"rooms": []}
        assert (await operator.get("/v1/usage?tenant=acme"))["usage"]["publishes"] == 2
        (listed,) = (await operator.get("/v1/connections?tenant=acme"))["connections"]
        assert await operator.get("/v1/connections?tenant=other") == {"connections": []}
        gone = await operator.ask("DELETE", f"/v1/connections/{listed['id']}?tenant=other")
        assert gone.status_code == 404
        theirs = await operator.post("/v1/revoke?tenant=other", {"subject": "ann"})
        assert theirs["connections"] == 0
        assert (await ann.ask(type="ping", id=1))["type"] == "ack"
        ours = await operator.post("/v1/revoke?tenant=acme", {"subject": "ann"})
        assert ours["connections"] == 1
        assert await ann.closed() == (4505, "revoked")


async def test_the_operator_names_one_tenant_that_there_is(caller: Ask) -> None:
    for query, status, code in (
        ("", 400, "bad_message"),
        ("?tenant=acme&tenant=other", 400, "bad_message"),
        ("?tenant=", 404, "not_found"),
        ("?tenant=nobody", 404, "not_found"),
        ("?tenant=dev", 404, "not_found"),
        ("?tenant=acme", 200, None),
        ("?tenant=%61cme&x=1", 200, None),
    ):
        answer = await caller(OPERATOR).ask("GET", f"/v1/usage{query}")
        assert (answer.status_code, answer.json().get("code")) == (status, code), query
        assert status == 200 or answer.json()["field"] == "tenant"


async def test_each_key_counts_and_nothing_that_is_like_one(caller: Ask) -> None:
    for key, status in (
        (OPERATOR, 200),
        (NEXT_OPERATOR, 200),
        (OPERATOR[:-1], 401),
        (f"{OPERATOR}x", 401),
        (OPERATOR.upper(), 401),
        (f"{OPERATOR},{NEXT_OPERATOR}", 401),
        ("", 401),
    ):
        assert (await caller(key).ask("GET", "/v1/usage?tenant=acme")).status_code == status, key


async def test_a_key_is_a_wrong_token_wherever_it_does_not_belong(
    address: str, caller: Ask
) -> None:
    wanted = await caller(None).ask("GET", f"/v1/usage?tenant=acme&token={OPERATOR}")
    assert (wanted.status_code, wanted.json()["code"]) == (401, "unauthorized")
    bearer: dict[str, Any] = {"additional_headers": {"Authorization": f"Bearer {OPERATOR}"}}
    for path, options in (
        ("/v1/connect", bearer),
        ("/v1/connect?tenant=acme", bearer),
        (f"/v1/connect?token={OPERATOR}", {}),
        ("/v1/listen?encoding=linear16&sample_rate=8000", bearer),
    ):
        with pytest.raises(InvalidStatus, match="401"):
            async with client(f"ws://{address}{path}", **options):
                pass


async def test_a_ticket_of_the_operator_opens_a_socket_of_the_tenant(
    address: str, caller: Ask
) -> None:
    body = {"rooms": able("a", "listen"), "sub": "ann"}
    made = await caller(OPERATOR).post("/v1/tickets?tenant=acme", body)
    async with client(f"ws://{address}/v1/connect?ticket={made['ticket']}") as ann:
        assert "expires" not in await ann.until("hello")
        assert (await ann.ask(type="join", id=1, room="a"))["type"] == "joined"
        (listed,) = (await caller(token_of()).get("/v1/connections"))["connections"]
        assert (listed["subject"], listed["name"]) == ("ann", "operator")


async def test_a_tenant_s_token_may_name_its_own_tenant_alone(caller: Ask) -> None:
    ours = caller(token_of())
    assert (await ours.get("/v1/usage?tenant=acme"))["tenant"] == "acme"
    hidden, missing = [
        await ours.ask("GET", f"/v1/usage?tenant={name}") for name in ("other", "nobody")
    ]
    assert hidden.status_code == missing.status_code == 403
    assert hidden.content == missing.content
    assert hidden.json()["code"] == "forbidden"
    both = await ours.ask("GET", "/v1/usage?tenant=acme&tenant=other")
    assert both.status_code == 403


async def test_tenants_are_listed_in_pages_for_the_operator_alone(caller: Ask) -> None:
    operator = caller(OPERATOR)
    await operator.post("/v1/rooms/a/messages?tenant=other", {"data": 1})
    whole = await operator.get("/v1/tenants")
    assert [each["tenant"] for each in whole["tenants"]] == ["acme", "other"]
    assert [each["usage"]["publishes"] for each in whole["tenants"]] == [0, 1]
    assert whole["tenants"][1] == await operator.get("/v1/usage?tenant=other")
    assert "next" not in whole
    first = await operator.get("/v1/tenants?limit=1")
    assert first == {"tenants": whole["tenants"][:1], "next": "acme"}
    assert await operator.get("/v1/tenants?limit=1&after=acme") == {"tenants": whole["tenants"][1:]}
    assert (await operator.ask("GET", "/v1/tenants?limit=0")).status_code == 400
    for token, status in ((token_of(), 403), (token_of("other"), 403), (None, 401), ("x", 401)):
        assert (await caller(token).ask("GET", "/v1/tenants?tenant=acme")).status_code == status


async def test_a_page_of_a_foreign_origin_has_no_use_for_a_key() -> None:
    table = tenant(origins=["https://app.example.com"])
    app = create_app(settings_of(tenants=table))
    async with hosted(app) as port, httpx2.AsyncClient() as http:
        operator = Caller(http, f"127.0.0.1:{port}", OPERATOR)
        for origin, status in (("https://app.example.com", 200), ("https://evil.example", 403)):
            answer = await operator.ask("GET", "/v1/usage?tenant=acme", Origin=origin)
            assert answer.status_code == status


async def test_in_development_mode_the_operator_has_the_tenant_dev_too() -> None:
    app = create_app(settings_of(dev=True, tenants={}))
    async with hosted(app) as port, httpx2.AsyncClient() as http:
        operator = Caller(http, f"127.0.0.1:{port}", OPERATOR)
        assert (await operator.get("/v1/usage?tenant=dev"))["tenant"] == "dev"
        assert [each["tenant"] for each in (await operator.get("/v1/tenants"))["tenants"]] == [
            "dev"
        ]
        anybody = Caller(http, f"127.0.0.1:{port}", None)
        assert (await anybody.ask("GET", "/v1/tenants")).status_code == 403


async def test_without_a_key_in_the_settings_there_is_no_operator() -> None:
    app = create_app(settings_of(operator={}))
    async with hosted(app) as port, httpx2.AsyncClient() as http:
        for key in (OPERATOR, ""):
            nobody = Caller(http, f"127.0.0.1:{port}", key)
            assert (await nobody.ask("GET", "/v1/usage?tenant=acme")).status_code == 401


@pytest.mark.parametrize("key", ["", "short", "é" * 40, "a b" * 20, "x" * 513])
def test_a_key_that_cannot_be_used_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(BadSettings) as error:
        load(None, {"ROOMCAST_OPERATOR__KEYS": msgspec.json.encode([OPERATOR, key]).decode()})

    assert f"operator.keys[1] is {len(key.encode())} bytes; a key is 32 to 512" in str(error.value)
    assert not key or key not in str(error.value)


def test_a_key_is_never_shown() -> None:
    settings: Any = load(None, {"ROOMCAST_OPERATOR__KEYS": f"{OPERATOR},{NEXT_OPERATOR}"})
    assert settings.operator.keys == (OPERATOR, NEXT_OPERATOR)
    shown = msgspec.to_builtins(veiled(settings))
    assert shown["operator"] == {"keys": ["***", "***"]}
    gate = create_app(settings_of()).state.node.gate
    for text in (repr(settings), str(shown), repr(gate), repr(settings.operator)):
        assert "canary" not in text


async def test_no_key_is_looked_at_from_where_too_many_wrong_ones_came() -> None:
    app = create_app(settings_of(limits={}))
    node = app.state.node
    for _ in range(1000):
        node.turnstile.failed("127.0.0.1", node.manager.clock.monotonic())

    async with hosted(app) as port, httpx2.AsyncClient() as http:
        for key in (OPERATOR, OPERATOR.upper()):
            asking = Caller(http, f"127.0.0.1:{port}", key)
            answer = await asking.ask("GET", "/v1/usage?tenant=acme")
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
