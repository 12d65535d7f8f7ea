"""Keys and tenants that are taken away: what becomes of tokens, tickets, connections and speech."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus

from actors.access import REVOKED_TOKEN
from server.app import create_app
from server.auth import WITHDRAWN
from server.node import Node
from server.tokens import EXPIRED
from tests.e2e.clients import WITHIN, client
from tests.server.api import Caller, able, settings_of, token_of
from tests.tokens import OPERATOR, OTHER_SECRET, SECRET, mint

pytestmark = pytest.mark.anyio
Ask = Callable[[str], Caller]
LATER = 4_000_000_000.0
"""A Unix time at which every token has expired."""
OLD, NEW = (
    f"[keys.{kid}]\nsecret = '{s}'\n" for kid, s in (("old", SECRET), ("new", OTHER_SECRET))
)


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of the one tenant, which has two keys."""
    file = tmp_path / "acme.toml"
    file.write_text(OLD + NEW)
    return file


@pytest.fixture
def app(file: Path) -> FastAPI:
    """The app of a node with that tenant and an operator."""
    return create_app(settings_of(tenants={}, tenants_directory=str(file.parent)))


def by(secret: str, **changes: Any) -> str:
    """Make a token that is signed with a secret, and names no key."""
    return mint(key=secret, **changes)


def change(app: FastAPI, file: Path, text: str) -> None:
    """Write another file, or none, and have the tenants read again."""
    if text:
        file.write_text(text)
    else:
        file.unlink()

    tenants = app.state.node.gate.tenants
    tenants.take(tenants.read())


async def order(maker: Caller, tenant: str = "") -> str:
    """Get a ticket for one who listens."""
    body = {"rooms": able("*", "listen", "speak"), "sub": "guest"}
    return str((await maker.post(f"/v1/tickets{tenant}", body))["ticket"])


async def refusal(url: str) -> str:
    """Return what a socket is refused with."""
    with pytest.raises(InvalidStatus, match="401") as refused:
        async with client(url):
            pass

    return (refused.value.response.body or b"").decode()


async def test_a_leaked_key_is_revoked_with_all_that_came_of_it(address: str, caller: Ask) -> None:
    url = f"ws://{address}/v1/connect"
    leaked, admin = caller(by(SECRET, sub="mallory")), caller(by(OTHER_SECRET, sub="admin"))
    used, unused = await order(leaked), await order(leaked)
    async with (
        client(f"{url}?token={by(SECRET, sub='eve')}") as eve,
        client(f"{url}?ticket={used}") as guest,
        client(f"{url}?token={by(OTHER_SECRET, sub='bob')}") as bob,
    ):
        for each in (eve, guest, bob):
            await each.until("hello")

        assert (await admin.post("/v1/revoke", {"key": "nobody's"}))["connections"] == 0
        done = await admin.post("/v1/revoke", {"key": "old"})
        assert done["connections"] == 2
        assert done["expires"] > 0
        for each in (eve, guest):
            assert await each.closed() == (4505, "revoked")

        refreshed = await bob.ask(type="refresh", id=1, token=by(SECRET, sub="bob"))
        assert refreshed["code"] == "unauthorized"
        assert (await bob.ask(type="ping", id=2))["type"] == "ack"

    for query in (f"token={by(SECRET, jti='another')}", f"ticket={unused}"):
        assert REVOKED_TOKEN in await refusal(f"{url}?{query}")


async def test_a_ticket_is_no_good_without_the_key_of_its_maker_or_without_its_tenant(
    app: FastAPI, address: str, caller: Ask, file: Path
) -> None:
    for text in (NEW, ""):
        change(app, file, OLD + NEW)
        tickets = [await order(caller(by(secret))) for secret in (SECRET, OTHER_SECRET)]
        by_operator = await order(caller(OPERATOR), "?tenant=acme")
        change(app, file, text)
        for ticket, good in ((tickets[0], ""), (tickets[1], text), (by_operator, text)):
            url = f"ws://{address}/v1/connect?ticket={ticket}"
            if good:
                async with client(url) as someone:
                    await someone.until("hello")
            else:
                assert WITHDRAWN in await refusal(url)


async def test_the_operator_reaches_a_tenant_that_is_gone_while_it_is_connected(
    app: FastAPI, address: str, caller: Ask, file: Path
) -> None:
    operator = caller(OPERATOR)
    async with client(f"ws://{address}/v1/connect?token={by(SECRET)}") as left:
        await left.until("hello")
        change(app, file, "")
        assert [each["tenant"] for each in (await operator.get("/v1/tenants"))["tenants"]] == [
            "acme"
        ]
        assert (await operator.get("/v1/usage?tenant=acme"))["usage"]["connections"] == 1
        (listed,) = (await operator.get("/v1/connections?tenant=acme"))["connections"]
        gone = await operator.ask("DELETE", f"/v1/connections/{listed['id']}?tenant=acme")
        assert gone.status_code == 204
        assert await left.closed() == (4502, "forbidden")

    await until_empty(app.state.node)
    assert await operator.get("/v1/tenants") == {"tenants": []}
    assert (await operator.ask("GET", "/v1/usage?tenant=acme")).status_code == 404


async def test_the_operator_ends_speech_that_a_gone_tenant_has_left_behind(
    app: FastAPI, address: str, caller: Ask, file: Path
) -> None:
    operator, node = caller(OPERATOR), app.state.node
    url = f"ws://{address}/v1/rooms/a/speak?token={by(SECRET, sub='ann')}"
    async with client(url) as ann:
        await ann.until("speech", lambda event: event["state"] == "ready")
        ann.socket.transport.abort()

    await until_empty(node)
    change(app, file, "")
    assert node.lingering() == {"acme"}
    done = await operator.post("/v1/revoke?tenant=acme", {"subject": "ann"})
    assert done["connections"] == 0
    with anyio.fail_after(WITHIN):
        await node.manager.population.until(lambda: not node.manager.upkeep.speaking)

    assert node.lingering() == set()


async def until_empty(node: Node) -> None:
    """Wait until no connection is left."""
    with anyio.fail_after(WITHIN):
        await node.manager.population.until(lambda: not node.manager.actors)


async def test_a_token_of_a_tenant_that_is_gone_is_told_what_any_other_is(
    app: FastAPI, address: str, caller: Ask, file: Path
) -> None:
    change(app, file, "")
    named = {"headers": {"kid": "old"}}
    for changes in ({}, named):
        answers = [
            (await caller(token_of(tenant=name, **changes)).ask("GET", "/v1/rooms")).content
            for name in ("acme", "nobody")
        ]
        assert answers[0] == answers[1]
        assert b"no tenant is configured" not in answers[0]


WAYS: dict[str, Callable[[FastAPI, Path], None]] = {
    REVOKED_TOKEN: lambda app, file: app.state.node.manager.access.revoke("acme", subject="eve"),
    WITHDRAWN: lambda app, file: change(app, file, NEW),
    EXPIRED: lambda app, file: setattr(app.state.node.manager.clock, "wall", lambda: LATER),
}
BODIES: dict[str, Any] = {
    "/v1/rooms/a/messages": {"data": 1},
    "/v1/broadcast": {"data": 1},
    "/v1/rooms/a/unsubscribe": {"subject": "bob"},
    "/v1/revoke": {"subject": "bob"},
    "/v1/tickets": {"rooms": able("*", "listen")},
}


@pytest.mark.parametrize("why", WAYS, ids=["revoked", "removed", "expired"])
@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_comes_after_its_sender_may_no_more_does_nothing(
    app: FastAPI, address: str, file: Path, path: str, why: str
) -> None:
    token, body = by(SECRET, sub="eve"), msgspec.json.encode(BODIES[path])
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with anyio.fail_after(WITHIN):
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert b"100" in await reader.readuntil(b"\r\n\r\n")
        WAYS[why](app, file)
        writer.write(body)
        answer = await reader.readuntil(b"}")
        writer.close()

    assert b" 401 " in answer
    assert why.encode() in answer
