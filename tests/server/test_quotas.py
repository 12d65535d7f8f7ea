"""Quotas as they are set, and what the sockets of every kind answer who is over one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio import to_thread
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.errors import Refused
from actors.meter import Meters
from actors.population import Population
from actors.principal import Principal
from actors.quota import UNLIMITED, Quotas
from server.app import create_app
from server.auth import site_of
from server.engines.configured import Engines
from server.http import HardenedHttp
from server.node import WAITING, Node
from server.protocol import LeanWebSocket
from server.routes.fronts import serve_vosk
from server.settings import BadSettings, Settings, load
from server.tenants import Tenants
from tests.e2e.clients import client
from tests.hosted import hosted
from tests.server.commands import roomcast
from tests.tokens import SECRET, tenant

SPEAK = {
    "/v1/rooms/a/speak": 429,
    "/v1/listen?encoding=linear16&sample_rate=16000": 429,
    "/vosk?room=a": 429,
    "/speechtotext/v1/stream?access_token=any&content_type=audio/*": 4029,
}
"""Who speaks, and the HTTP status or close code of a refusal."""
KEY = {"Authorization": "Token any"}


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    """The app of a node in development mode, with the front of vosk at an address of its own."""
    app = create_app(Settings(dev=True, engines=Engines(enabled=("echo",))))

    async def vosk(websocket: Any) -> None:
        await serve_vosk(app.state.node, websocket)

    app.router.routes.insert(0, WebSocketRoute("/vosk", vosk))
    return app


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """Where the app is served."""
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        yield f"ws://127.0.0.1:{port}"


def limit(app: FastAPI, **changes: int) -> None:
    """Bound the tenant `dev` before anybody has come."""
    node: Node = app.state.node
    quotas = msgspec.structs.replace(UNLIMITED, **changes)
    node.manager.meters.quotas_of = lambda tenant: quotas


@pytest.mark.anyio
@pytest.mark.parametrize("changes", [{"speakers": 1}, {"connections_per_address": 1}])
async def test_a_speaker_too_many_is_refused_in_the_words_of_every_protocol(
    app: FastAPI, address: str, changes: dict[str, int]
) -> None:
    limit(app, **changes)
    async with client(f"{address}/v1/rooms/b/speak") as speaker:
        await speaker.until("speech", lambda event: event["state"] == "ready")
        for path, expected in SPEAK.items():
            if expected == 4029:
                async with connect(f"{address}{path}") as late:
                    with pytest.raises(ConnectionClosed) as closed:
                        await late.recv()

                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == expected
                continue

            with pytest.raises(InvalidStatus) as denial:
                async with connect(f"{address}{path}", additional_headers=KEY):
                    pass

            response = denial.value.response
            assert (response.status_code, response.headers["Retry-After"]) == (expected, "5")


@pytest.mark.anyio
async def test_the_places_of_those_who_have_gone_are_free(app: FastAPI, address: str) -> None:
    limit(app, connections=1, rooms=1)
    meters: Meters = app.state.node.manager.meters
    population: Population = app.state.node.manager.population
    for room in ("a", "b"):
        async with client(f"{address}/v1/rooms/{room}/listen") as ear:
            await ear.until("joined")
            assert meters.of("dev").connections == 1

        await population.until(lambda: not population.actors)
        assert meters.of("dev").connections == 0
        assert len(meters.of("dev").rooms) == 0


@pytest.mark.anyio
async def test_the_command_says_which_quota_keeps_it_out(app: FastAPI, address: str) -> None:
    limit(app, connections=1)
    url = address.replace("ws:", "http:")
    async with client(f"{address}/v1/connect") as first:
        await first.until("hello")
        done = await to_thread.run_sync(partial(roomcast, "listen", "a", "--url", url))
        assert done.returncode != 0
        assert "takes no connections now: the tenant's quota connections is 1" in done.stderr


@pytest.mark.parametrize(
    ("peer", "site"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:0:1:2::3", 1), "2001:db8:0:1::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("unix:socket", 1), "unix:socket"),
        (None, ""),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network(peer: object, site: str) -> None:
    assert site_of({"client": peer}) == site


def test_a_tenant_has_the_quotas_of_all_where_it_has_none_of_its_own(tmp_path: Path) -> None:
    directory, file = tmp_path / "tenants", tmp_path / "roomcast.toml"
    directory.mkdir()
    (directory / "c.toml").write_text(f"quotas.rooms = 3\nkeys.k.secret = '{SECRET}'")
    file.write_text(
        f"tenants_directory = '{directory}'\n"
        "[quotas]\nconnections = 5\nrooms = 6\n"
        f"[tenants.a]\nkeys.k.secret = '{SECRET}'\n"
        f"[tenants.b]\nquotas.connections = 0\nkeys.k.secret = '{SECRET}'\n"
    )
    expected = {"a": (5, 6), "b": (0, 6), "c": (5, 3), "gone": (5, 6), "dev": (0, 0)}
    tenants = Tenants(load(file, {}))
    for name, numbers in expected.items():
        quotas = tenants.quotas(name)
        assert (quotas.connections, quotas.rooms) == numbers

    tenants = Tenants(load(file, {"ROOMCAST_QUOTAS__ROOMS": "7"}))
    assert [tenants.quotas(name).rooms for name in "abc"] == [7, 7, 3]


def test_quotas_of_a_table_in_a_variable_are_those_of_all_too() -> None:
    table = msgspec.json.encode(tenant(quotas={"rooms": 3})).decode()
    settings = load(None, {"ROOMCAST_TENANTS": table, "ROOMCAST_QUOTAS__CONNECTIONS": "5"})
    quotas = settings.tenants["acme"].quotas
    assert (quotas.rooms, quotas.connections, quotas.speakers) == (3, 5, Quotas().speakers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[quotas]\nconnections = -1", r"quotas\.connections"),
        ("[quotas]\nconections = 1", r"quotas\.conections"),
        ("[tenants.a.quotas]\npublishes_burst = 0", r"tenants\.a\.quotas\.publishes_burst"),
        ("tenants = {a = {quotas = 1}}", r"tenants\.a\.quotas"),
        ("quotas = 1\n[tenants.a]\n", "quotas"),
        ("tenants = 1", "tenants"),
    ],
)
def test_what_is_no_quota_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text(text)
    with pytest.raises(BadSettings, match=said):
        load(file, {})


def test_who_is_not_bounded_is_nobody_but_the_tenant_of_development() -> None:
    node = Node(Settings(dev=True))
    meters = node.manager.meters
    assert meters.of("dev").quotas is UNLIMITED
    assert meters.of("acme").quotas == Quotas()
    node.manager.admit(Principal("acme"), "192.0.2.1")


@pytest.mark.anyio
async def test_a_hundred_requests_of_a_tenant_wait_for_their_turn_and_one_more_is_refused(
    app: FastAPI,
) -> None:
    node: Node = app.state.node
    node.manager.meters.quotas_of = lambda tenant: Quotas(commands_per_second=1, commands_burst=1)
    node.manager.meters.of("dev").commands.spend(1000, node.manager.clock.monotonic())
    async with anyio.create_task_group() as tasks:
        for _ in range(WAITING):
            tasks.start_soon(node.pace, "dev")

        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Refused) as refusal:
            await node.pace("dev")

        assert refusal.value.setting == "tenants.dev.quotas.commands_per_second"
        assert refusal.value.retry_after > 900
        tasks.cancel_scope.cancel()

    assert not node._waiting
