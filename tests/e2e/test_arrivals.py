"""Too many connections and too many wrong tokens: refused before anything is looked at."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.door import FLOOD
from tests.e2e.clients import WITHIN, client
from tests.e2e.test_tenants import TenantServer
from tests.processes import free_port
from tests.protocols import PROTOCOLS
from tests.servers import Server, serving
from tests.tokens import mint, tenant

pytestmark = pytest.mark.anyio
TENANTS = msgspec.json.encode(tenant()).decode()
Start = Callable[..., TenantServer]
WRONG, ADDRESS = "canary.canary.canary", {"X-Forwarded-For": "192.0.2.1"}
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000&room=a"
STREAM = "/speechtotext/v1/stream?content_type=audio/*&room=a"


@pytest.fixture
def start(protocol: str, tmp_path: Path) -> Iterator[Start]:
    """Start a server of one tenant behind a proxy, with these limits of arrivals."""
    servers: list[TenantServer] = []

    def start(**limits: int) -> TenantServer:
        settings: dict[str, object] = {
            f"limits__arrivals__{name}": value for name, value in limits.items()
        }
        settings |= PROTOCOLS[protocol] | {
            "tenants": TENANTS,
            "engines__enabled": "echo",
            "server__trusted_proxies": "127.0.0.1",
            "fronts__vosk__port": free_port(),
        }
        servers.append(TenantServer(tmp_path / "log", **settings))
        servers[-1].start()
        return servers[-1]

    try:
        yield start
        for server in servers:
            server.stop()
            assert "canary" not in server.output
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()


def vosk_port(server: Server) -> int:
    return int(server._environ["ROOMCAST_FRONTS__VOSK__PORT"])


async def knock(url: str, address: str = "192.0.2.1", key: str = "") -> Any:
    """Return the answer to an upgrade from an address, and end it if it was accepted."""
    headers = {"X-Forwarded-For": address} | ({"Authorization": key} if key else {})
    try:
        async with connect(url, compression=None, additional_headers=headers) as socket:
            return socket.response
    except InvalidStatus as refused:
        return refused.response


async def until(url: str, status: int, **options: Any) -> Any:
    """Knock until this is the status of the answer, and return it."""
    deadline = time.monotonic() + WITHIN
    while (answer := await knock(url, **options)).status_code != status:
        assert time.monotonic() < deadline, answer

    return answer


async def test_an_address_that_opens_too_many_connections_is_refused_and_no_other(
    start: Start,
) -> None:
    server = start(per_address=1, per_address_burst=3)
    answer = await until(f"{server.ws}/v1/connect", 429)
    problem = msgspec.json.decode(answer.body)
    assert (problem["code"], problem["setting"]) == ("rate_limited", "limits.arrivals.per_address")
    assert answer.headers["Retry-After"] == "1"
    for path in (f"{server.ws}/v1/nothing", f"{server.ws}{LISTEN}", f"{server.ws}{STREAM}"):
        await until(path, 429)

    await until(f"ws://127.0.0.1:{vosk_port(server)}/", 429)
    bearer = f"Bearer {mint()}"
    assert (await knock(f"{server.ws}/v1/connect", "192.0.2.2", bearer)).status_code == 101
    await until(f"{server.ws}/v1/connect", 101, key=bearer)
    assert server.metric('roomcast_refusals_total{code="rate_limited"}') >= 5


async def test_a_node_that_is_asked_for_too_many_connections_says_so(start: Start) -> None:
    server = start(per_node=1, per_node_burst=3)
    url, bearer = f"{server.ws}/v1/connect", f"Bearer {mint()}"
    for number in range(1000):
        answer = await knock(url, f"198.51.{number >> 8}.{number & 255}", bearer)
        if answer.status_code != 101:
            break

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    problem = msgspec.json.decode(answer.body)
    assert (problem["code"], problem["setting"]) == ("overload", "limits.arrivals.per_node")
    await until(url, 101, key=bearer)


async def test_strangers_use_up_no_place_of_those_who_bring_a_token(start: Start) -> None:
    server = start(per_address=0, per_node=1, per_node_burst=40)
    url = f"{server.ws}/v1/connect"
    for stranger in (f"{url}?auth=message", f"{server.ws}{STREAM}"):
        problem = msgspec.json.decode((await until(stranger, 503)).body)
        assert (problem["code"], problem["setting"]) == ("overload", "limits.arrivals.per_node")

    for _ in range(20):
        assert (await knock(url, key=f"Bearer {mint()}")).status_code == 101


async def test_a_network_of_ipv6_is_bounded_as_a_whole(start: Start) -> None:
    server = start(per_address=1, per_address_burst=2)
    url, statuses = f"{server.ws}/v1/connect", list[int]()
    while 429 not in statuses:
        assert len(statuses) < 1000
        answer = await knock(url, f"2001:db8:0:{len(statuses):x}::1")
        statuses.append(answer.status_code)

    assert statuses[:10] == [401] * 10
    assert (await knock(url, "2001:db8:1::1")).status_code == 401


async def test_an_address_with_too_many_wrong_tokens_is_refused_over_http(start: Start) -> None:
    server = start(failures_per_address=1, failures_burst=50)
    async with httpx2.AsyncClient(base_url=server.http) as http:

        async def publish(token: str, address: str) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
            return await http.post("/v1/rooms/a/messages", json={"data": 1}, headers=headers)

        wrong = 0
        while (told := await publish(WRONG, "192.0.2.1")).status_code == 401:
            wrong += 1

        assert wrong >= 50
        assert (told.status_code, told.headers["retry-after"]) == (429, "1")
        assert told.json()["setting"] == "limits.arrivals.failures_per_address"
        assert (await publish(mint(), "192.0.2.2")).status_code == 200


async def test_an_address_with_too_many_wrong_tokens_is_refused_on_every_socket(
    start: Start,
) -> None:
    server = start(per_address=0, failures_per_address=1, failures_burst=5)
    answer = None
    for url, key in (
        (f"{server.ws}/v1/connect", f"Bearer {WRONG}"),
        (f"{server.ws}/v1/connect?ticket=canary", ""),
        (f"{server.ws}/v1/connect?token={WRONG}", ""),
        (f"ws://127.0.0.1:{vosk_port(server)}/?token={WRONG}", ""),
        (f"{server.ws}{LISTEN}", f"Token {WRONG}"),
    ):
        answer = await until(url, 429, key=key)
        assert answer.headers["Retry-After"] == "1"

    assert answer is not None
    assert b"RATE_LIMITED" in answer.body
    code = 0
    while code != 4013:
        code = await ending_of_stream(f"{server.ws}{STREAM}&access_token={WRONG}")
        assert code in (4001, 4013)

    while code != 4006:
        code = await ending_of_newcomer(f"{server.ws}/v1/connect?auth=message", WRONG)
        assert code in (4501, 4006)

    url, bearer = f"{server.ws}/v1/connect", f"Bearer {mint()}"
    assert (await knock(url, "192.0.2.2", bearer)).status_code == 101


async def ending_of_stream(url: str) -> int:
    """Ask Rev.ai's front and return the close code."""
    async with connect(url, compression=None, additional_headers=ADDRESS) as stream:
        with pytest.raises(ConnectionClosed) as closed:
            await stream.recv()

    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def ending_of_newcomer(url: str, token: str) -> int:
    """Send a token as the first message and return the close code."""
    async with client(url, additional_headers=ADDRESS) as someone:
        await someone.send(type="auth", token=token)
        code, _ = await someone.closed()
        return code


async def test_who_goes_on_though_it_is_refused_is_cut_unread_and_nobody_else_is(
    protocol: str, tmp_path: Path
) -> None:
    limits = {"failures_per_address": 1, "failures_burst": 1, "refusals_burst": 3}
    settings: dict[str, object] = {f"limits__arrivals__{name}": limits[name] for name in limits}
    server = TenantServer(tmp_path / "log", tenants=TENANTS, **settings, **PROTOCOLS[protocol])
    server.start()
    try:
        told = [ask(server, "127.0.0.2")]
        while told[-1]:
            told.append(ask(server, "127.0.0.2"))

        statuses = [int(each.split()[1]) for each in told[:-1]]
        assert statuses[0] == 401
        assert statuses.count(429) >= 3
        assert b"connection: close" in told[-2].lower()
        assert ask(server, "127.0.0.1").startswith(b"HTTP/1.1 401")
        assert server.metric("roomcast_connections_cut_total") >= 1
        deadline = time.monotonic() + WITHIN
        while not ask(server, "127.0.0.2"):
            assert time.monotonic() < deadline

        told = [ask(server, "127.0.0.2") for _ in range(3 * FLOOD)]
        assert told.count(b"") > 2 * FLOOD
        assert ask(server, "127.0.0.3").startswith(b"HTTP/1.1 401")
        server.stop()  # in the flood
    finally:
        if server.process.poll() is None:
            server.kill()


def ask(server: Server, source: str) -> bytes:
    """Send a request with a wrong token from an address of this machine; return the answer."""
    where = urlsplit(server.http)
    head = f"GET /v1/usage HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {WRONG}\r\n"
    with socket.create_connection(
        (str(where.hostname), where.port or 80), WITHIN, (source, 0)
    ) as peer:
        try:
            peer.sendall(f"{head}Connection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: peer.recv(65536), b""))
        except ConnectionError:
            return b""


async def test_a_good_token_is_not_looked_at_either_until_time_has_passed(start: Start) -> None:
    server = start(per_address=0, failures_per_address=1, failures_burst=2)
    url, good = f"{server.ws}/v1/connect", f"Bearer {mint()}"
    answer = None
    while answer is None or answer.status_code != 429:
        await until(url, 429, key=f"Bearer {WRONG}")
        answer = await knock(url, key=good)

    assert msgspec.json.decode(answer.body)["code"] == "rate_limited"
    await until(url, 101, key=good)


async def test_wrong_tokens_of_an_open_connection_count_too(start: Start) -> None:
    server = start(per_address=0, failures_per_address=1, failures_burst=5)
    url, good = f"{server.ws}/v1/connect", mint(sub="ann")
    bearer = ADDRESS | {"Authorization": f"Bearer {good}"}
    async with client(url, additional_headers=bearer) as someone:
        codes, status = [], 101
        while status != 429:
            told = await someone.ask(type="refresh", id=1, token=WRONG)
            codes.append(told["code"])
            if codes[-1] == "rate_limited":
                status = (await knock(url, key=f"Bearer {good}")).status_code

        assert set(codes) == {"unauthorized", "rate_limited"}
        assert codes.index("rate_limited") >= 5
        assert told["setting"] == "limits.arrivals.failures_per_address"
        assert (await knock(url, "192.0.2.2", f"Bearer {good}")).status_code == 101
        await until(url, 101, key=f"Bearer {good}")
        assert (await someone.ask(type="refresh", id=2, token=good))["type"] == "ack"


async def test_who_brings_no_token_has_brought_no_wrong_one(start: Start) -> None:
    server = start(per_address=0, failures_per_address=1, failures_burst=1)
    for _ in range(5):
        assert (await knock(f"{server.ws}/v1/connect")).status_code == 401


async def test_an_expired_token_is_told_apart(start: Start) -> None:
    server, expired = start(), mint(exp=1)
    denied = await knock(f"{server.ws}/v1/connect?token={expired}")
    assert (denied.status_code, denied.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert msgspec.json.decode(denied.body)["code"] == "token_expired"
    async with client(f"{server.ws}/v1/connect?auth=message") as someone:
        await someone.send(type="auth", token=expired)
        assert await someone.closed() == (4004, "token_expired")
        assert someone.events[-1]["retry"]

    deepgram = await knock(f"{server.ws}{LISTEN}", key=f"Token {expired}")
    assert (deepgram.status_code, b"TOKEN_EXPIRED" in deepgram.body) == (401, True)
    async with connect(f"{server.ws}{STREAM}&access_token={expired}") as stream:
        with pytest.raises(ConnectionClosed) as closed:
            await stream.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, "expired" in closed.value.rcvd.reason) == (4001, True)


async def test_development_mode_without_tenants_bounds_nobody(
    protocol: str, tmp_path: Path
) -> None:
    limits = {f"limits__arrivals__{name}": 1 for name in ("per_address_burst", "failures_burst")}
    with serving(tmp_path / "log", **PROTOCOLS[protocol], **limits) as dev:
        for _ in range(50):
            assert (await knock(f"{dev.ws}/v1/connect?token=any")).status_code == 101
