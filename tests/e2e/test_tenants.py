"""A server of tenants as a process: it starts without development mode, and it reloads."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import WITHIN, client
from tests.e2e.conftest import LEAN
from tests.processes import ends_within
from tests.server.commands import roomcast, running
from tests.servers import Server
from tests.tokens import OTHER_SECRET, SECRET, mint, tenant

pytestmark = [pytest.mark.anyio, LEAN]
REFUSALS = 'roomcast_refusals_total{code="unauthorized"}'
RELOADED = "tenants after a reload"


class TenantServer(Server):
    """A server without development mode."""

    flags = ()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one tenant."""
    directory = tmp_path_factory.mktemp("tenants")
    write(directory, SECRET)
    return directory


def write(directory: Path, secret: str) -> None:
    """Give the tenant another secret."""
    (directory / "acme.toml").write_text(f"keys.main.secret = '{secret}'\n")


@pytest.fixture(scope="module")
def server(
    protocol: str, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TenantServer]:
    """A server with that directory and one tenant in its settings."""
    server = TenantServer(
        tmp_path_factory.mktemp("server") / "log",
        tenants_directory=directory,
        tenants=msgspec.json.encode(tenant("other", OTHER_SECRET)).decode(),
        server__protocol=protocol,
    )
    server.start()
    try:
        yield server
        server.stop()
        assert "canary" not in server.output
        assert "eyJ" not in server.output
    finally:
        if server.process.poll() is None:
            server.kill()


def connecting(server: Server, **token: Any) -> Any:
    """Connect with a token."""
    return client(f"{server.ws}/v1/connect?token={mint(**token)}")


def reload(server: Server) -> None:
    """Have the tenants read again, and wait until the log says so."""
    before = server.output.count(RELOADED)
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + WITHIN
    while server.output.count(RELOADED) == before:
        assert time.monotonic() < deadline, server.output
        assert not ends_within(server.process, 0.02), server.output


async def test_a_reload_changes_who_may_come_and_drops_nobody(
    server: TenantServer, directory: Path
) -> None:
    async with (
        connecting(server) as acme,
        connecting(server, key=OTHER_SECRET, tenant="other") as other,
    ):
        write(directory, OTHER_SECRET)
        (directory / "new.toml").write_text(f"keys.main.secret = '{SECRET}'\n")
        reload(server)
        with pytest.raises(InvalidStatus, match="401"):
            async with connecting(server):
                pass

        async with connecting(server, key=OTHER_SECRET), connecting(server, tenant="new"):
            pass

        write(directory, "canary")
        (directory / "new.toml").unlink()
        reload(server)
        reload(server)

        async with connecting(server, key=OTHER_SECRET):
            pass

        with pytest.raises(InvalidStatus, match="401"):
            async with connecting(server, tenant="new"):
                pass

        for someone in (acme, other):
            assert (await someone.ask(type="ping", id=1))["type"] == "ack"

    told = [line for line in server.output.splitlines() if "stays as it was" in line]
    assert len(told) == 1
    assert "acme.toml: keys.main: the secret has 6 bytes" in told[0]


async def test_a_flood_of_wrong_tokens_is_counted_and_not_logged(server: TenantServer) -> None:
    before, counted = server.output, server.metric(REFUSALS)
    for _ in range(50):
        with pytest.raises(InvalidStatus, match="401"):
            async with connecting(server, key=SECRET, tenant="other"):
                pass

    assert server.output == before
    assert server.metric(REFUSALS) == counted + 50


def test_the_commands_bring_the_token_of_the_environment(server: TenantServer) -> None:
    theirs: dict[str, Any] = {"key": OTHER_SECRET, "tenant": "other"}
    listening = mint(**theirs, rooms=[{"pattern": "a", "can": ["listen"]}])
    for token, said in (
        ("", "this needs a token; put one into the environment variable ROOMCAST_TOKEN"),
        ("a\nb", "ROOMCAST_TOKEN holds no token"),
        (listening, "the token gives no right to listen to this room"),
    ):
        done = roomcast("listen", "b", "--once", "--url", server.http, ROOMCAST_TOKEN=token)
        assert done.returncode != 0
        assert said in done.stderr

    bench = roomcast("bench", "connect", "--connections", "1", "--url", server.http)
    assert bench.returncode == 1
    assert "the server wants a token: put one into" in " ".join(bench.stdout.split())
    address = f"{server.http}/v1/rooms/a/messages"
    bearer = {"Authorization": f"Bearer {mint(**theirs)}"}
    with urlopen(Request(address, b'{"data": "hello"}', bearer), timeout=WITHIN):
        command = ("listen", "a", "--history", "1", "--url", server.http)

    with running(*command, environ={"ROOMCAST_TOKEN": listening}) as listener:
        assert "hello" in listener.line()


async def test_a_backend_hands_a_browser_a_ticket_that_no_log_keeps(server: TenantServer) -> None:
    def post(path: str, body: bytes, **headers: str) -> Any:
        token = mint(key=OTHER_SECRET, tenant="other")
        bearer = {"Authorization": f"Bearer {token}"}
        with urlopen(
            Request(f"{server.http}{path}", body, bearer | headers), timeout=WITHIN
        ) as got:
            return msgspec.json.decode(got.read())

    order = b'{"rooms": [{"room": "a", "can": ["listen"]}], "sub": "ann"}'
    ticket = post("/v1/tickets", order)["ticket"]
    url = f"{server.ws}/v1/rooms/a/listen?ticket={ticket}"
    async with client(url) as ann:
        await ann.until("joined")
        places = [
            post("/v1/rooms/a/messages", b'{"data": 1}', **{"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        assert places[1] == places[0] | {"duplicate": True}
        assert (await ann.until("message"))["data"] == 1
        assert post("/v1/revoke", b'{"subject": "ann"}')["connections"] == 1
        assert await ann.closed() == (4505, "revoked")

    with pytest.raises(InvalidStatus, match="401"):
        async with client(url):
            pass

    assert ticket not in server.output
