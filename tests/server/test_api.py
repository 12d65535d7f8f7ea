"""The server API over HTTP: who may ask what, what is told, and what is done."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus

from actors.expiry import LEEWAY
from actors.principal import CAPABILITIES
from actors.revocation import KEEP
from server.app import create_app
from tests.e2e.clients import Client, client
from tests.server.api import Caller, able, settings_of, token_of
from tests.tokens import OTHER_SECRET, mint

pytestmark = pytest.mark.anyio
Surface = tuple[str, str, Any, str]
SURFACES: tuple[Surface, ...] = (
    ("GET", "/v1/rooms", None, "admin"),
    ("GET", "/v1/rooms/a", None, "admin"),
    ("POST", "/v1/rooms/a/unsubscribe", {"subject": "nobody"}, "admin"),
    ("GET", "/v1/rooms/a/presence", None, "presence"),
    ("GET", "/v1/connections", None, "admin"),
    ("DELETE", "/v1/connections/nobody", None, "admin"),
    ("POST", "/v1/revoke", {"connection": "nobody"}, "admin"),
    ("POST", "/v1/rooms/a/messages", {"data": 1}, "publish"),
    ("POST", "/v1/broadcast", {"data": 1}, "publish"),
    ("GET", "/v1/usage", None, "admin"),
    ("POST", "/v1/tickets", {"rooms": able("a", "admin")}, "admin"),
)
"""Method, path, a body, and the capability that it needs."""
FOUND = {"/v1/connections/nobody": 404, "/v1/revoke": 404}
"""What a good token is answered, where that is not 200."""
TENANTWIDE = ("/v1/connections", "/v1/connections/nobody", "/v1/revoke")
WRONG: tuple[tuple[str, str, Any, int], ...] = (
    ("GET", "/v1/rooms?limit=1001", None, 400),
    ("GET", "/v1/rooms?limit=0", None, 400),
    ("GET", "/v1/connections?limit=x", None, 400),
    ("GET", "/v1/rooms/%20", None, 400),
    ("POST", "/v1/revoke", {}, 400),
    ("POST", "/v1/revoke", {"subject": "a", "token": "b"}, 400),
    ("POST", "/v1/revoke", {"subject": ""}, 400),
    ("POST", "/v1/revoke", {"subject": "a", "key": "b"}, 400),
    ("POST", "/v1/rooms/a/unsubscribe", {"who": "a"}, 400),
    ("POST", "/v1/rooms/a/unsubscribe", {"subject": "x" * 70_000}, 413),
    ("PUT", "/v1/rooms", None, 405),
)
BAD: dict[str, Callable[[], str | None]] = {
    "none": lambda: None,
    "expired": lambda: token_of(exp=int(time.time()) - 31),
    "another tenant's key": lambda: mint(key=OTHER_SECRET),
}


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    """The app of a node with two tenants."""
    return create_app(settings_of())


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """What carries the requests."""
    async with httpx2.AsyncClient() as http:
        yield http


Ask = Callable[[str | None], Caller]


@pytest.fixture
def caller(address: str, http: httpx2.AsyncClient) -> Ask:
    """Make somebody who asks with a token."""
    return lambda token: Caller(http, address, token)


@asynccontextmanager
async def listener(
    address: str, room: str = "a", path: str = "", **claims: Any
) -> AsyncIterator[Client]:
    """Connect to a room, or anywhere, and wait to be let in."""
    where = path or f"/v1/rooms/{room}/listen"
    async with client(f"ws://{address}{where}?token={token_of(**claims)}") as someone:
        await someone.until("hello")
        if not path:
            await someone.until("joined")

        yield someone


def id_of(someone: Client) -> str:
    """Return the id of a connection."""
    return str(someone.events[0]["connection"])


async def test_every_surface_needs_its_capability(caller: Ask) -> None:
    good = caller(token_of())
    await good.post("/v1/rooms/a/messages", {"data": 1})
    for method, path, body, needed in SURFACES:
        for capability in CAPABILITIES:
            answer = await caller(token_of(rooms=able("*", capability))).ask(method, path, body)
            allowed = FOUND.get(path, 200)
            assert answer.status_code == (allowed if capability == needed else 403), (path, answer)

        elsewhere = await caller(token_of(rooms=able("b*", needed))).ask(method, path, body)
        forbidden = "/a" in path or path in (*TENANTWIDE, "/v1/tickets")
        assert elsewhere.status_code == (403 if forbidden else 200), path


async def test_no_surface_takes_a_bad_token(caller: Ask) -> None:
    for (method, path, body, _), (bad, make) in product(SURFACES, BAD.items()):
        answer = await caller(make()).ask(method, path, body)
        code = "token_expired" if bad == "expired" else "unauthorized"
        assert (answer.status_code, answer.json()["code"]) == (401, code), (path, bad)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_what_another_tenant_has_is_answered_like_what_nobody_has(
    address: str, caller: Ask
) -> None:
    acme = caller(token_of())
    async with listener(address, "a", tenant="other", sub="ann") as theirs:
        await caller(token_of("other")).post("/v1/rooms/a/messages", {"data": 1})
        name = id_of(theirs)
        for method, path, named in (
            ("DELETE", "/v1/connections/{}", False),
            ("POST", "/v1/revoke", True),
            ("POST", "/v1/rooms/a/unsubscribe", True),
        ):
            hidden, missing = [
                await acme.ask(method, path.format(each), {"connection": each} if named else None)
                for each in (name, "nobody")
            ]
            assert hidden.status_code == missing.status_code == 404, path
            assert hidden.content == missing.content

        there, nowhere = [await acme.ask("GET", f"/v1/rooms/{room}") for room in ("a", "b")]
        assert there.status_code == nowhere.status_code == 404
        assert there.content == nowhere.content
        for path, body in (
            ("/v1/revoke", {"subject": "ann"}),
            ("/v1/rooms/a/unsubscribe", {"subject": "ann"}),
        ):
            assert (await acme.post(path, body))["connections"] == 0

        assert await acme.get("/v1/rooms") == {"rooms": []}
        assert await acme.get("/v1/connections") == {"connections": []}
        assert (await theirs.ask(type="ping", id=1))["type"] == "ack"


async def test_rooms_are_listed_with_who_is_in_them(address: str, caller: Ask) -> None:
    admin = caller(token_of())
    for number in range(5):
        place = await admin.post(f"/v1/rooms/r{number}/messages", {"data": number})

    async with (
        listener(address, "r1"),
        client(f"ws://{address}/v1/rooms/r1/speak?token={token_of()}") as speaker,
    ):
        await speaker.until("speech")
        one = {"room": "r1", "members": 1, "speakers": 1, "offset": 1}
        found = await admin.get("/v1/rooms/r1")
        assert {name: found[name] for name in one} == one

        names, page = [], {"next": ""}
        while "next" in page:
            page = await admin.get(f"/v1/rooms?limit=2&after={page['next']}")
            assert len(page["rooms"]) <= 2
            names += [each["room"] for each in page["rooms"]]

    assert names == [f"r{number}" for number in range(5)]
    some = await caller(token_of(rooms=able("r4", "admin"))).get("/v1/rooms")
    last = {"room": "r4", "members": 0, "speakers": 0, "epoch": place["epoch"], "offset": 1}
    assert some == {"rooms": [last]}


async def test_connections_are_listed_without_a_token(address: str, caller: Ask) -> None:
    admin = caller(token_of())
    before = time.time()
    async with (
        listener(address, "a", sub="ann", name="Ann", jti="secret-id"),
        client(f"ws://{address}/v1/rooms/b/speak?token={token_of(sub='bob')}") as speaker,
        listener(address, path="/v1/connect"),
    ):
        started = await speaker.until("speech")
        text = (await admin.ask("GET", "/v1/connections")).text
        listed = await admin.get("/v1/connections")
        pages = [await admin.get("/v1/connections?limit=2")]
        pages.append(await admin.get(f"/v1/connections?after={pages[0]['next']}"))

    assert pages[0]["connections"] + pages[1]["connections"] == listed["connections"]
    assert "secret-id" not in text
    assert "eyJ" not in text
    kinds = {each["kind"]: each for each in listed["connections"]}
    ann = kinds["listen"]
    assert (ann["subject"], ann["name"], ann["rooms"]) == ("ann", "Ann", ["a"])
    assert before - 1 <= ann["since"] <= time.time() + 1
    assert kinds["speak"]["speech"] == {"session": started["session"], "room": "b"}
    assert "speech" not in kinds["connect"]


async def test_a_connection_is_ended_for_good(address: str, caller: Ask) -> None:
    admin = caller(token_of())
    async with listener(address) as someone, listener(address) as other:
        answer = await admin.ask("DELETE", f"/v1/connections/{id_of(someone)}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert await someone.closed() == (4502, "forbidden")
        assert someone.events[-1]["retry"] is False
        assert (await other.ask(type="ping", id=1))["type"] == "ack"
        again = await admin.ask("DELETE", f"/v1/connections/{id_of(someone)}")
        assert again.status_code == 404


async def test_who_is_unsubscribed_leaves_this_room_alone(address: str, caller: Ask) -> None:
    admin = caller(token_of())
    async with (
        listener(address, path="/v1/connect", sub="ann") as ann,
        listener(address, "a", sub="bob") as bob,
    ):
        for room in ("a", "b"):
            await ann.ask(type="join", id=room, room=room)

        path = "/v1/rooms/a/unsubscribe"
        assert await admin.post(path, {"connection": id_of(ann)}) == {"connections": 1}
        told = await ann.until("error")
        assert (told["code"], told["room"]) == ("forbidden", "a")
        assert (await admin.get("/v1/rooms/b"))["members"] == 1
        assert await admin.post(path, {"subject": "bob"}) == {"connections": 1}
        assert await bob.closed() == (4502, "forbidden")
        gone = await admin.ask("POST", path, {"connection": id_of(ann)})
        assert gone.status_code == 404


async def test_who_is_revoked_is_closed_and_not_let_in_again(address: str, caller: Ask) -> None:
    admin = caller(token_of())
    async with listener(address, sub="ann", jti="t1") as ann, listener(address, sub="bob") as bob:
        began = time.time()
        done = await admin.post("/v1/revoke", {"token": "t1"})
        assert done["connections"] == 1
        assert began + KEEP < done["expires"] <= time.time() + KEEP + LEEWAY
        assert await ann.closed() == (4505, "revoked")
        assert (await bob.ask(type="ping", id=1))["type"] == "ack"
        assert await admin.post("/v1/revoke", {"connection": id_of(bob)}) == {"connections": 1}
        assert await bob.closed() == (4505, "revoked")

    assert (await admin.post("/v1/revoke", {"subject": "bob"}))["connections"] == 0
    for claims in ({"sub": "bob"}, {"jti": "t1"}):
        assert (await caller(token_of(**claims)).ask("GET", "/v1/rooms")).status_code == 401


async def test_what_has_a_wrong_form_is_a_problem(caller: Ask) -> None:
    for method, path, body, status in WRONG:
        answer = await caller(token_of()).ask(method, path, body)
        assert answer.status_code == status, (path, body)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_message_that_is_sent_again_under_its_key_is_published_once(
    address: str, caller: Ask
) -> None:
    ours, path = caller(token_of()), "/v1/rooms/a/messages"
    async with listener(address) as someone:
        first = await ours.post(path, {"data": 1}, Idempotency_Key="k")
        again = await ours.post(path, {"data": 2}, Idempotency_Key="k")
        assert again == first | {"duplicate": True}
        theirs = await caller(token_of("other")).post(path, {"data": 3}, Idempotency_Key="k")
        assert "duplicate" not in theirs
        assert (await ours.post(path, {"data": 4}))["offset"] == 2
        assert [each["data"] for each in await someone.messages(2)] == [1, 4]

        await ours.post("/v1/rooms/b/messages", {"data": 0})
        assert await ours.post("/v1/broadcast", {"data": 5}, Idempotency_Key="k") == {"rooms": 2}
        await ours.post("/v1/rooms/c/messages", {"data": 0})
        again = await ours.post("/v1/broadcast", {"data": 5}, Idempotency_Key="k")
        assert again == {"rooms": 3, "duplicate": True}
        offsets = {each["room"]: each["offset"] for each in (await ours.get("/v1/rooms"))["rooms"]}
        assert offsets == {"a": 3, "b": 2, "c": 2}

    for bad in ("", "a b", "x" * 129):
        assert (await ours.ask("POST", path, {"data": 1}, Idempotency_Key=bad)).status_code == 400


async def test_a_ticket_opens_one_connection_with_its_own_rights(address: str, caller: Ask) -> None:
    body = {"rooms": able("a*", "listen"), "sub": "ann", "name": "Ann"}
    made = await caller(token_of()).post("/v1/tickets", body)
    assert 0 < made["expires"] - time.time() <= 30
    url = f"ws://{address}/v1/connect?ticket={made['ticket']}"
    async with client(url) as ann:
        assert "expires" in await ann.until("hello")
        assert (await ann.ask(type="join", id=1, room="ab"))["type"] == "joined"
        assert (await ann.ask(type="join", id=2, room="b"))["code"] == "forbidden"
        refused = await ann.ask(type="publish", id=3, room="a", data=1)
        assert refused["code"] == "forbidden"
        (listed,) = (await caller(token_of()).get("/v1/connections"))["connections"]
        assert (listed["subject"], listed["name"]) == ("ann", "Ann")

    await refuses(url)


async def test_a_ticket_is_for_sockets_of_its_tenant_while_its_maker_is_good(
    address: str, caller: Ask
) -> None:
    body = {"rooms": able("*", "listen")}
    for claims in ({"sub": "boss", "jti": "t1"}, {"sub": "chief"}):
        made = await caller(token_of(**claims)).post("/v1/tickets", body | {"sub": "ann"})
        wanted = await caller(None).ask("GET", f"/v1/rooms?ticket={made['ticket']}")
        assert wanted.status_code == 401
        name = {"token": "t1"} if "jti" in claims else {"subject": "chief"}
        await caller(token_of()).post("/v1/revoke", name)
        await refuses(f"ws://{address}/v1/connect?ticket={made['ticket']}")

    theirs = await caller(token_of("other")).post("/v1/tickets", body)
    async with client(f"ws://{address}/v1/connect?ticket={theirs['ticket']}"):
        assert await caller(token_of()).get("/v1/connections") == {"connections": []}


async def test_a_ticket_is_never_wider_than_who_makes_it(caller: Ask) -> None:
    maker = caller(token_of(rooms=able("a*", "listen", "admin")))
    for rooms, status in (
        (able("a*", "listen"), 200),
        ([{"room": "ab", "can": ["admin"]}], 200),
        (able("*", "listen"), 403),
        (able("a*", "speak"), 403),
        ([*able("a*", "listen"), *able("b", "listen")], 403),
        ([], 400),
        (able("a*", "canary"), 400),
    ):
        assert (await maker.ask("POST", "/v1/tickets", {"rooms": rooms})).status_code == status

    for wrong in ({"ttl": 31}, {"ttl": 0}, {"sub": "x" * 129}, {"tenant": "other"}):
        body = {"rooms": able("a", "listen")} | wrong
        assert (await maker.ask("POST", "/v1/tickets", body)).status_code == 400


async def refuses(url: str) -> None:
    """See that an upgrade is refused with 401."""
    with pytest.raises(InvalidStatus, match="401"):
        async with client(url):
            pass
