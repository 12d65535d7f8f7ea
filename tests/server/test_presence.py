"""Presence over real sockets, and over HTTP from outside of the room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from tests.e2e.clients import Client, client
from tests.hosted import hosted
from tests.server.api import Caller, able, settings_of, token_of
from tests.tokens import OTHER_SECRET, SECRET, tenant

pytestmark = pytest.mark.anyio
TABLE = tenant("acme", SECRET, presence=["open-*", "lobby"]) | tenant("other", OTHER_SECRET)


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where an app of two tenants is served, without a scheme."""
    app = create_app(settings_of(tenants=TABLE))
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        yield f"127.0.0.1:{port}"


def here(address: str, path: str, tenant: str = "acme", **claims: Any) -> Any:
    """Connect with a token of somebody."""
    return client(f"ws://{address}{path}", additional_headers=bearer(tenant, **claims))


def bearer(tenant: str = "acme", **claims: Any) -> dict[str, str]:
    """Return the header with a token of somebody."""
    return {"Authorization": f"Bearer {token_of(tenant, **claims)}"}


async def news(ear: Client, **wanted: Any) -> dict[str, Any]:
    """Wait for a presence event in which these fields have these values."""
    return await ear.until(
        "presence", lambda event: all(event[name] == value for name, value in wanted.items())
    )


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_listener_sees_who_is_there_who_comes_and_who_goes(
    address: str, codec: str
) -> None:
    url = f"ws://{address}/v1/rooms/lobby/listen?presence=true"
    ann, bob = {"id": "ann", "name": "Ann"}, {"id": "bob", "name": "Bob"}
    async with client(url, codec, additional_headers=bearer(sub="ann", name="Ann")) as ear:
        first = await news(ear, kind="snapshot")
        assert (first["room"], first["members"], first["joined"]) == ("lobby", 1, [ann])
        async with here(address, "/v1/connect", sub="bob", name="Bob") as other:
            await other.ask(type="start", id=1, room="lobby", engine="echo")
            await news(ear, kind="delta", joined=[bob], left=[], members=2)

        await news(ear, kind="delta", joined=[], left=[bob], members=1)


async def test_presence_is_listed_in_pages_by_person(address: str) -> None:
    async with httpx2.AsyncClient() as http:
        caller = Caller(http, address, token_of(rooms=able("*", "presence")))
        path = "/v1/rooms/lobby/presence"
        assert await caller.get(path) == {"room": "lobby", "members": 0, "people": []}
        async with (
            here(address, "/v1/rooms/lobby/listen", sub="ann", name="Ann") as one,
            here(address, "/v1/rooms/lobby/listen", sub="ann") as two,
            here(address, "/v1/rooms/lobby/speak?engine=echo", sub="bob", name="Bob") as three,
            here(address, "/v1/rooms/lobby/listen", "other", sub="eve") as stranger,
        ):
            for each in (one, two, stranger):
                await each.until("joined")

            await three.until("speech", lambda event: event["state"] == "ready")
            first = await caller.get(f"{path}?limit=1")
            ann = {"id": "ann", "name": "Ann", "connections": 2, "speaking": False}
            assert first == {"room": "lobby", "members": 2, "people": [ann], "next": "ann"}
            rest = await caller.get(f"{path}?after=ann")
            bob = {"id": "bob", "name": "Bob", "connections": 0, "speaking": True}
            assert rest == {"room": "lobby", "members": 2, "people": [bob]}


async def test_what_is_not_allowed_is_refused_before_the_upgrade(address: str) -> None:
    deaf: dict[str, Any] = {"rooms": able("*", "listen", "admin")}
    nothing: dict[str, Any] = {}
    for path, claims in (("lobby", deaf), ("closed", nothing)):
        with pytest.raises(InvalidStatus) as refusal:
            async with here(address, f"/v1/rooms/{path}/listen?presence=true", **claims):
                pass

        assert refusal.value.response.status_code == 403

    async with httpx2.AsyncClient() as http:
        caller = Caller(http, address, token_of(**deaf))
        assert (await caller.ask("GET", "/v1/rooms/lobby/presence")).status_code == 403
        answer = await Caller(http, address, token_of()).ask("GET", "/v1/rooms/closed/presence")
        problem = answer.json()
        assert (problem["status"], problem["code"]) == (403, "forbidden")
        assert problem["setting"] == "tenants.acme.presence"
        assert (await Caller(http, address, None).ask("GET", "/v1/rooms/lobby/presence")).json()[
            "status"
        ] == 401
