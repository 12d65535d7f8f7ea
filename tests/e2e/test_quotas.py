"""Two tenants on one server, of which one asks for ten times what it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import client
from tests.e2e.conftest import LEAN
from tests.e2e.test_tenants import TenantServer
from tests.processes import fetch
from tests.tokens import OTHER_SECRET, mint, tenant

pytestmark = [pytest.mark.anyio, LEAN]
QUOTAS = {"connections": 3, "publishes_per_second": 5, "publishes_burst": 5}
SLOW = 3.0
"""Seconds that a message of the other tenant may take on a busy machine."""


@pytest.fixture(scope="module")
def server(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantServer]:
    """A server with a tenant of few rights, and one with the usual ones."""
    tenants = tenant("acme", quotas=QUOTAS) | tenant("other", OTHER_SECRET)
    server = TenantServer(
        tmp_path_factory.mktemp("quotas") / "log",
        tenants=msgspec.json.encode(tenants).decode(),
        quotas__speakers=7,
        server__protocol=protocol,
    )
    server.start()
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def acme(server: TenantServer, path: str = "/v1/connect") -> Any:
    """Connect as the tenant that asks for too much."""
    return client(f"{server.ws}{path}?token={mint()}")


def other(server: TenantServer, path: str = "/v1/connect") -> Any:
    """Connect as the tenant that should notice nothing."""
    return client(f"{server.ws}{path}?token={mint(OTHER_SECRET, tenant='other')}")


async def flood(server: TenantServer) -> list[dict[str, Any]]:
    """Publish ten times what the tenant may in a second; return what was refused."""
    async with acme(server) as talker:
        answers = [
            await talker.ask(type="publish", id=n, room="a", data="x" * 1000) for n in range(50)
        ]

    assert sum(each["type"] == "ack" for each in answers) < 25
    return [each for each in answers if each["type"] == "error"]


async def test_a_tenant_at_ten_times_its_quota_is_told_so_and_the_other_notices_nothing(
    server: TenantServer,
) -> None:
    refused: list[dict[str, Any]] = []

    async def storm() -> None:
        refused.extend(await flood(server))

    async with other(server, "/v1/rooms/a/listen") as ear, other(server) as talker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storm)
            for number in range(40):
                began = time.monotonic()
                await talker.send(type="publish", room="a", data=number)
                assert (await ear.until("message"))["data"] == number
                assert time.monotonic() - began < SLOW
                await anyio.sleep(0.005)

        assert all(event["type"] != "error" for event in talker.events)

    assert len(refused) > 25
    for error in refused:
        assert error["code"] == "quota_exceeded"
        assert error["message"] == "the tenant's quota publishes_per_second is 5"
        assert error["setting"] == "tenants.acme.quotas.publishes_per_second"
        assert 0 < error["retry_after"] <= 0.2


async def test_http_and_upgrades_are_refused_with_429_and_retry_after(
    server: TenantServer,
) -> None:
    async with httpx2.AsyncClient(base_url=server.http) as http:
        for _ in range(20):
            response = await http.post(
                "/v1/rooms/a/messages",
                json={"data": 1},
                headers={"Authorization": f"Bearer {mint()}"},
            )
            if response.status_code != 200:
                break

        problem = response.json()
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["setting"]) == (
            "quota_exceeded",
            "tenants.acme.quotas.publishes_per_second",
        )
        assert 0 < problem["retry_after"] <= 0.2

    async with acme(server), acme(server), acme(server), other(server):
        with pytest.raises(InvalidStatus) as denial:
            async with acme(server):
                pass

        denied = denial.value.response
        assert (denied.status_code, denied.headers["Retry-After"]) == (429, "5")
        assert b"tenants.acme.quotas.connections" in (denied.body or b"")
        async with other(server) as free:
            assert (await free.ask(type="ping", id=1))["type"] == "ack"


async def test_a_tenant_is_told_what_it_has_used_and_nothing_of_another(
    server: TenantServer,
) -> None:
    tokens = {"acme": mint(), "other": mint(OTHER_SECRET, tenant="other")}
    async with httpx2.AsyncClient(base_url=server.http) as http:

        async def usage(token: str) -> httpx2.Response:
            return await http.get("/v1/usage", headers={"Authorization": f"Bearer {token}"})

        before = {name: (await usage(token)).json() for name, token in tokens.items()}
        async with acme(server), other(server, "/v1/rooms/a/listen") as ear:
            await ear.until("joined")
            refused = await flood(server)
            async with other(server) as talker:
                for number in range(40):
                    await talker.ask(type="publish", id=number, room="a", data=1)

            await ear.messages(40)
            after = {name: (await usage(token)).json() for name, token in tokens.items()}

        listener = mint(rooms=[{"pattern": "*", "can": ["listen"]}])
        assert (await usage(listener)).status_code == 403

    grown = {
        name: {key: after[name]["usage"][key] - before[name]["usage"][key] for key in each["usage"]}
        for name, each in after.items()
    }
    assert [each["tenant"] for each in after.values()] == ["acme", "other"]
    assert grown["acme"]["publishes"] == 50 - len(refused)
    assert grown["acme"]["published_bytes"] >= 1000 * grown["acme"]["publishes"]
    assert grown["acme"]["deliveries"] == 0
    assert (grown["other"]["publishes"], grown["other"]["deliveries"]) == (40, 40)
    assert (after["acme"]["usage"]["rooms"], after["other"]["usage"]["rooms"]) == (0, 1)
    assert {name: after["acme"]["quotas"][name] for name in QUOTAS} == QUOTAS
    assert after["acme"]["quotas"]["speakers"] == after["other"]["quotas"]["speakers"] == 7
    assert server.metric("roomcast_published_bytes_total") == sum(
        each["usage"]["published_bytes"] for each in after.values()
    )
    assert server.metric('roomcast_refusals_total{code="quota_exceeded"}') >= len(refused)
    assert "acme" not in fetch(f"{server.http}/metrics")
