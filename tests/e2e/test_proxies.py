"""Behind a proxy: an address is what a trusted one says, on every port and protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import WITHIN
from tests.e2e.test_tenants import TenantServer
from tests.processes import free_port
from tests.protocols import PROTOCOLS
from tests.servers import Server
from tests.tokens import mint, tenant

pytestmark = pytest.mark.anyio
TENANTS = msgspec.json.encode(tenant(quotas={"connections_per_address": 1})).decode()
Start = Callable[..., Server]
ANN, BEN = "198.51.100.1", "2001:db8:0:1::5"


@pytest.fixture
def start(protocol: str, tmp_path: Any) -> Iterator[Start]:
    """Start a server of one tenant, of which an address may have one connection."""
    servers: list[Server] = []

    def start(kind: type[Server] = TenantServer, **settings: object) -> Server:
        more = {"engines__enabled": "echo"} | PROTOCOLS[protocol] | settings
        servers.append(kind(tmp_path / "log", tenants=TENANTS, **more))
        servers[-1].start()
        return servers[-1]

    try:
        yield start
        for server in servers:
            server.stop()
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()


def via(url: str, *forwarded: str, token: bool = True) -> Any:
    """Connect as through a proxy on this machine, which says for whom."""
    lines = [("X-Forwarded-For", line) for line in forwarded]
    key = [("Authorization", f"Bearer {mint()}")] if token else []
    return connect(url, compression=None, additional_headers=[*lines, *key])


async def status(url: str, *forwarded: str, token: bool = True) -> int:
    """Return the status that a connection is answered with, and end it."""
    try:
        async with via(url, *forwarded, token=token):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_connections_are_counted_by_what_a_trusted_proxy_says(start: Start) -> None:
    vosk = free_port()
    server = start(server__trusted_proxies="127.0.0.0/8", fronts__vosk__port=vosk)
    url = f"{server.ws}/v1/connect"
    async with AsyncExitStack() as stack:
        for forwarded in ((ANN,), (BEN,), ("unknown",), ()):
            await stack.enter_async_context(via(url, *forwarded))

        assert await status(url, "192.0.2.9", ANN) == 429
        assert await status(url, f"{ANN}, 127.0.0.5") == 429
        assert await status(url, f"{ANN}:4711") == 429
        assert await status(url, "2001:db8:0:1:ffff::1") == 429
        assert await status(url, "other garbage") == 429
        assert await status(url) == 429
        assert await status(f"{server.ws}/v1/listen?room=a", ANN) == 429
        here = f"ws://127.0.0.1:{vosk}/?token={mint()}"
        assert await status(here, ANN, token=False) == 429
        assert await status(here, "192.0.2.9", token=False) == 101


async def test_without_the_setting_nobody_is_believed(start: Start) -> None:
    url = f"{start().ws}/v1/connect"
    async with via(url, ANN):
        assert await status(url, BEN) == 429
        assert await status(url) == 429


async def test_another_peer_is_not_believed(start: Start) -> None:
    url = f"{start(server__trusted_proxies='10.0.0.0/8,127.0.0.2').ws}/v1/connect"
    async with via(url, ANN):
        assert await status(url, BEN) == 429


async def test_development_mode_is_for_this_machine_also_behind_its_proxy(start: Start) -> None:
    server = start(Server, server__trusted_proxies="127.0.0.1")
    for forwarded, answer in (((), 101), ((ANN,), 401), (("127.0.0.1", ANN), 401), (("x",), 401)):
        assert await status(f"{server.ws}/v1/connect", *forwarded, token=False) == answer
        assert publish(server, *forwarded) == (200 if answer == 101 else 401)


async def test_development_mode_takes_the_proxy_for_the_client_without_the_setting(
    start: Start,
) -> None:
    server = start(Server)
    assert await status(f"{server.ws}/v1/connect", ANN, token=False) == 101
    assert publish(server, ANN) == 200


def publish(server: Server, *forwarded: str) -> int:
    """Publish without a token as through a proxy; return the status."""
    headers = {"X-Forwarded-For": ", ".join(forwarded)} if forwarded else {}
    request = Request(f"{server.http}/v1/rooms/a/messages", b'{"data": 1}', headers)
    try:
        with urlopen(request, timeout=WITHIN) as answer:
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code
