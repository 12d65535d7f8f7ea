"""Every surface with every credential, over real sockets: only the right one opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product
from socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, socket
from typing import Any, get_args

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from actors.commands import AnyCommand
from actors.principal import CAPABILITIES
from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from server.settings import Settings
from server.websocket import HardenedWebSocket
from tests.hosted import hosted
from tests.server import authorisation as table
from tests.server.authorisation import ALL, Surface, good, other, rights
from tests.server.prober import Prober, code_of, look_around
from tests.tokens import OPERATOR

pytestmark = pytest.mark.anyio
OURS = "canary of acme"
"""What the other tenant must never see."""
NO_TOKEN = table.BAD["no token"]
CONNECTING = [each for each in table.SURFACES if each.kind != "refresh"]
"""Surfaces to which one comes with what one has."""
USUAL: table.Place = "usual"
TICKET: table.Place = "ticket"
MESSAGE: table.Place = "message"
MESSAGES = f"POST /v1/rooms/{table.ROOM}/messages"
PROTOCOLS = {"lean": LeanWebSocket, "stock": HardenedWebSocket}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


def app_of(vosk: int, **changes: Any) -> FastAPI:
    """Return the app of the table's node, with the front of vosk on a port of its own."""
    tree = {**table.SETTINGS, "fronts": {"vosk": {"port": vosk}}, **changes}
    return create_app(msgspec.convert(tree, Settings))


def listening() -> socket:
    """Listen on a free port; asyncio sends small answers at once if it knows that this is TCP."""
    made = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    return made


@pytest.fixture(scope="module", params=PROTOCOLS)
async def prober(request: pytest.FixtureRequest) -> AsyncIterator[Prober]:
    """Somebody at a server in which both tenants have said something in a room of one name."""
    with listening() as main, listening() as vosk:
        port = vosk.getsockname()[1]
        app = app_of(port)
        async with (
            hosted(app, [main, vosk], http=HardenedHttp, ws=PROTOCOLS[request.param]) as served,
            httpx2.AsyncClient() as http,
        ):
            prober = Prober(http, served, port)
            for token in (good(ALL), other(ALL)):
                await prober.ask(MESSAGES, token, {"data": "first"})

            for kind, name in table.REVOKED:
                await prober.revoke(kind, name)

            yield prober


def names_of(app: FastAPI) -> set[str]:
    """Name every route of an app as the table does."""
    names: set[str] = set()
    for route in app.routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None)
        kind = type(route).__name__
        if methods:
            names |= {f"{method} {path}" for method in methods}
        else:
            prefix = {"WebSocketRoute": "WS ", "Mount": "MOUNT ", "PortRoute": "PORT"}[kind]
            names.add(f"{prefix}{path}")

    return names


def test_every_route_and_every_command_is_in_the_table() -> None:
    listed = {each.name for each in (*table.HTTP, *table.SOCKETS, *table.FRONTS)}
    assert names_of(app_of(1)) == listed | table.OPEN
    assert names_of(app_of(1, dev=True)) == listed | table.OPEN | table.DEVELOPMENT
    commands = {each.body["type"] for each in table.COMMANDS if each.body}
    assert commands == {kind.__struct_config__.tag for kind in get_args(AnyCommand)}
    assert {each.needs for each in table.SURFACES} >= {"speak", "listen", "publish", "admin"}


async def test_the_right_capability_alone_opens_a_surface_in_its_rooms(prober: Prober) -> None:
    wrong = {}
    for surface, capability, pattern in product(table.SURFACES, CAPABILITIES, ("*", "b*")):
        rooms = rights(capability, pattern=pattern)
        got = (await prober.attempt(surface, good(rooms))).outcome
        if got != (wanted := table.expected(surface, rooms)):
            wrong[surface.name, capability, pattern] = (got, wanted)

    assert wrong == {}


async def test_no_bad_credential_opens_a_surface_whatever_it_would_allow(prober: Prober) -> None:
    wrong = {}
    for surface, (name, credential) in product(table.SURFACES, table.BAD.items()):
        for rooms in (ALL, *map(rights, CAPABILITIES)):
            answer = await prober.attempt(surface, credential.make(rooms), credential.place)
            wanted = table.turned_away(surface, credential)
            if answer.outcome != wanted or "canary" in answer.text:
                wrong[surface.name, name] = (answer, wanted)

    assert wrong == {}


async def test_a_token_in_the_first_message_opens_what_it_opens_anywhere(prober: Prober) -> None:
    wrong: dict[object, object] = {}
    for surface in [each for each in table.SURFACES if each.kind in table.NATIVE]:
        for capability, pattern in product(CAPABILITIES, ("*", "b*")):
            rooms = rights(capability, pattern=pattern)
            got = (await prober.attempt(surface, good(rooms), MESSAGE)).outcome
            if got != (wanted := table.expected_of_message(surface, rooms)):
                wrong[surface.name, capability, pattern] = (got, wanted)

        for name, credential in table.BAD.items():
            got = (await prober.attempt(surface, credential.make(ALL) or "", MESSAGE)).outcome
            if got != (wanted := table.CODES[credential.outcome]):
                wrong[surface.name, name, ""] = (got, wanted)

    assert wrong == {}


async def test_another_tenant_finds_its_own_room_of_that_name_and_nothing_of_ours(
    prober: Prober,
) -> None:
    async with prober.listening(good(ALL, sub="bob")) as ours:
        await ours.until("joined")
        await prober.ask(MESSAGES, good(ALL, sub="setup"), {"data": OURS})
        seen, connection = await ours.until("message"), ours.events[0]["connection"]
        assert seen["data"] == OURS
        wrong = {}
        for surface in table.SURFACES:
            answer = await prober.attempt(surface, other(ALL), connection=connection)
            told = any(each in answer.text for each in (OURS, seen["epoch"], connection))
            if answer.outcome != table.found_by_another(surface) or told:
                wrong[surface.name] = answer

        assert wrong == {}
        assert (await ours.ask(type="ping", id=1))["type"] == "ack"
        assert ours.events[-2] == seen  # nothing has come between


async def test_a_token_is_told_the_same_of_every_tenant_but_its_own(prober: Prober) -> None:
    wrong = {}
    for surface, name in product(table.HTTP, ("acme", "other", "nobody")):
        asked = msgspec.structs.replace(surface, query=f"tenant={name}")
        answer = await prober.attempt(asked, good(ALL))
        wanted = table.expected(surface, ALL)
        if name != "acme":
            wanted = table.refusal(surface, "forbidden")

        if answer.outcome != wanted or name in answer.text.replace("acme", ""):
            wrong[surface.name, name] = (answer, wanted)

    assert wrong == {}


async def test_the_operator_s_key_is_for_the_server_api_alone(prober: Prober) -> None:
    wrong = {}
    for surface, named in product(table.SURFACES, (False, True)):
        query = f"{surface.query}&tenant=acme" if named else surface.query
        asked = msgspec.structs.replace(surface, query=query)
        got = (await prober.attempt(asked, OPERATOR)).outcome
        if got != (wanted := table.expected_of_operator(surface, named)):
            wrong[surface.name, named] = (got, wanted)

    assert wrong == {}


async def test_a_ticket_opens_a_socket_once_as_far_as_it_says_and_nothing_else(
    prober: Prober,
) -> None:
    wrong = {}
    for surface, capability, pattern in product(CONNECTING, CAPABILITIES, ("*", "b*")):
        rooms = rights(capability, pattern=pattern)
        ticket = await prober.order(good(ALL), rooms)
        got = [(await prober.attempt(surface, ticket, TICKET)).outcome for _ in range(2)]
        wanted = [table.expected_with_ticket(surface, rooms), table.turned_away(surface, NO_TOKEN)]
        if got != wanted:
            wrong[surface.name, capability, pattern] = (got, wanted)

    assert wrong == {}


async def test_a_ticket_that_is_no_good_opens_nothing(prober: Prober) -> None:
    wrong = {}
    for number, (surface, by) in enumerate(product(CONNECTING, ("maker", "holder", "id", None))):
        names = {"maker": f"maker {number}", "holder": f"holder {number}", "id": f"id {number}"}
        token = good(ALL, sub=names["maker"], jti=names["id"])
        ticket = await prober.order(token, ALL, names["holder"])
        if by is not None:
            await prober.revoke("token" if by == "id" else "subject", names[by])

        got = (await prober.attempt(surface, ticket if by else ticket[:-1], TICKET)).outcome
        if got != (wanted := table.turned_away(surface, NO_TOKEN)):
            wrong[surface.name, by] = (got, wanted)

    assert wrong == {}


async def test_who_is_revoked_is_closed_wherever_it_is(prober: Prober) -> None:
    wrong = {}
    for number, (surface, by) in enumerate(
        product((*table.SOCKETS, *table.FRONTS), ("subject", "token", "maker"))
    ):
        name = f"live {number}"
        token, place = good(ALL, sub=name, jti=name), USUAL
        if by == "maker" and surface.kind in table.TICKETS:
            token, place = await prober.order(token, ALL, "guest"), TICKET

        async with prober.connecting(surface, token, place) as socket:
            await look_around(surface, socket)
            await prober.revoke("token" if by == "token" else "subject", name)
            got = await code_of(socket)
            if got != surface.ends:
                wrong[surface.name, by] = (got, surface.ends)

    assert wrong == {}


async def test_what_is_open_asks_for_nothing(prober: Prober) -> None:
    for name, token in product(table.OPEN, (None, "canary", good(ALL), OPERATOR)):
        method, _, path = name.partition(" ")
        surface = Surface(f"{method.replace('MOUNT', 'GET')} {path}", "http", None)
        if path == "/static":
            surface = msgspec.structs.replace(surface, name="GET /static/app.js")

        assert (await prober.attempt(surface, token)).outcome == "200", name
