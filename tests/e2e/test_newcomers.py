"""The token in the first message, where a client can send no header: over every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import client
from tests.e2e.test_abuse import PING, TEXT, masked
from tests.e2e.test_handshake import BINARY, Peer, head
from tests.e2e.test_tenants import TenantServer
from tests.protocols import PROTOCOLS
from tests.servers import serving
from tests.tokens import OTHER_SECRET, SECRET, mint, tenant

pytestmark = pytest.mark.anyio
TENANTS = msgspec.json.encode(
    tenant()
    | tenant("other", OTHER_SECRET, origins=["https://app.example.com"])
    | tenant("small", SECRET, quotas={"connections": 1})
).decode()
Start = Callable[..., TenantServer]
PONG = 10
CONNECT = "/v1/connect?auth=message"
LISTEN, SPEAK = "/v1/rooms/a/listen?auth=message", "/v1/rooms/a/speak?x=1&auth=message&engine=echo"
SILENCE = bytes(6400)


@pytest.fixture(scope="module")
def start(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers that end with the module, and have logged no token."""
    servers: list[TenantServer] = []

    def start(**settings: object) -> TenantServer:
        log = tmp_path_factory.mktemp("server") / "log"
        more = {"engines__enabled": "echo"} | PROTOCOLS[protocol] | settings
        servers.append(TenantServer(log, tenants=TENANTS, **more))
        servers[-1].start()
        return servers[-1]

    try:
        yield start
        for server in servers:
            server.stop()
            assert "eyJ" not in server.output
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()


@pytest.fixture(scope="module")
def server(start: Start) -> TenantServer:
    """A server of three tenants with the usual limits."""
    return start()


def text(**command: Any) -> bytes:
    """Return the frame of a command."""
    return masked(TEXT, msgspec.json.encode(command))


def refusals(server: TenantServer, code: str) -> float:
    return server.metric(f'roomcast_refusals_total{{code="{code}"}}')


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_the_first_message_lets_one_in_and_all_goes_on_as_with_a_token(
    server: TenantServer, codec: str
) -> None:
    async with client(server.ws + CONNECT, codec) as someone:
        await someone.send(type="auth", id=7, token=mint(sub="ann"))
        hello, ack = await someone.receive(), await someone.receive()
        assert (hello["type"], "expires" in hello) == ("hello", True)
        assert (ack["type"], ack["id"]) == ("ack", 7)
        assert (await someone.ask(type="join", id=8, room="a"))["type"] == "joined"
        assert (await someone.ask(type="refresh", id=9, token=mint(sub="ann")))["type"] == "ack"
        late = await someone.ask(type="auth", id=10, token=mint(sub="ann"))
        assert late["code"] == "bad_message"

    async with client(server.ws + LISTEN, codec) as someone:
        await someone.send(type="auth", token=mint())
        events = [await someone.receive(), await someone.receive()]
        assert [event["type"] for event in events] == ["hello", "joined"]


async def test_a_speaker_introduces_itself_and_speaks(server: TenantServer) -> None:
    async with client(server.ws + SPEAK) as someone:
        await someone.send(type="auth", token=mint())
        await someone.until("speech", lambda event: event["state"] == "ready")
        await someone.audio(SILENCE)
        await someone.send(type="stop")
        ended = await someone.until("speech", lambda event: event["state"] == "ended")
        assert ended["received"] == len(SILENCE)
        assert await someone.closed() == (1000, "normal")


def test_what_comes_in_the_segment_of_the_token_is_not_lost(server: TenantServer) -> None:
    with Peer(server) as peer:
        opening = head("GET", f"GET {SPEAK} HTTP/1.1")
        audio = [masked(BINARY, SILENCE[:640])] * 10
        frames = [text(type="auth", token=mint()), *audio, text(type="stop")]
        assert peer.ask(opening + b"".join(frames)) == 101
        ended = events_until(peer, lambda event: event.get("state") == "ended")
        assert ended["received"] == 6400

    with Peer(server) as peer:
        opening = head("GET", f"GET {CONNECT} HTTP/1.1")
        assert peer.ask(opening + masked(PING, b"?") + text(type="auth", token=mint())) == 101
        assert peer.frame() == (PONG, b"?")
        assert peer.frame()[0] == TEXT

    with Peer(server) as peer:
        assert peer.ask(head("GET", f"GET {CONNECT} HTTP/1.1")) == 101
        commands = [text(type="join", id=n, room=f"r{n}") for n in range(20)]
        peer.sock.sendall(text(type="auth", token=mint()) + b"".join(commands))
        answers = [events_until(peer, lambda event: "id" in event)["id"] for _ in commands]
        assert answers == list(range(20))


def events_until(peer: Peer, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the next event that fits."""
    while True:
        _, payload = peer.frame()
        event: dict[str, Any] = msgspec.json.decode(payload)
        if fits(event):
            return event


BAD: dict[str, tuple[Any, int, str]] = {
    "no command": ("hello", 4501, "unauthorized"),
    "another command": ('{"type":"join","room":"a"}', 4501, "unauthorized"),
    "no token": ('{"type":"auth"}', 4501, "unauthorized"),
    "a field too many": ('{"type":"auth","token":"a","room":"a"}', 4501, "unauthorized"),
    "too long": ('{"type":"auth","token":"' + "x" * 8193 + '"}', 4501, "unauthorized"),
    "audio": (SILENCE[:640], 4501, "unauthorized"),
    "nonsense": ('{"type":"auth","token":"canary"}', 4501, "unauthorized"),
}


@pytest.mark.parametrize("path", [CONNECT, LISTEN, SPEAK])
async def test_any_other_first_message_is_the_end(server: TenantServer, path: str) -> None:
    before = refusals(server, "unauthorized")
    for bad, (message, code, reason) in BAD.items():
        async with client(server.ws + path) as someone:
            await someone.socket.send(message)
            assert await someone.closed() == (code, reason), bad
            assert [event["type"] for event in someone.events] == ["error", "closing"]
            assert "canary" not in str(someone.events)

    assert refusals(server, "unauthorized") == before + len(BAD)


async def test_who_may_not_come_in_is_told_why_by_the_code(server: TenantServer) -> None:
    async def ending(path: str, token: str, **options: Any) -> tuple[int, list[Any]]:
        async with client(server.ws + path, **options) as someone:
            await someone.send(type="auth", id=3, token=token)
            code, _ = await someone.closed()
            error, closing = someone.events
            assert (error["id"], closing["message"]) == (3, error["message"])
            return code, [error["code"], closing["retry"]]

    other = mint(OTHER_SECRET, tenant="other")
    listening = mint(rooms=[{"pattern": "*", "can": ["listen"]}])
    assert await ending(CONNECT, other, origin="https://evil.example") == (
        4502,
        ["forbidden", False],
    )
    assert await ending(SPEAK, listening) == (4502, ["forbidden", False])
    assert await ending(SPEAK.replace("echo", "none"), mint()) == (4503, ["unknown_engine", False])
    small = mint(tenant="small")
    async with client(f"{server.ws}/v1/connect?token={small}"):
        assert await ending(CONNECT, small) == (4006, ["quota_exceeded", True])

    async with client(server.ws + CONNECT, origin="https://app.example.com") as someone:
        await someone.send(type="auth", token=other)
        assert (await someone.receive())["type"] == "hello"


async def test_without_asking_for_it_and_with_a_credential_nothing_waits(
    server: TenantServer,
) -> None:
    for query in ("", "?auth=messages", "?xauth=message", "?auth=message&ticket=canary"):
        with pytest.raises(InvalidStatus, match="401"):
            async with client(f"{server.ws}/v1/connect{query}"):
                pass

    async with client(f"{server.ws}{CONNECT}&token={mint()}") as someone:
        assert (await someone.receive())["type"] == "hello"


async def test_who_says_nothing_in_time_is_closed(start: Start) -> None:
    server = start(limits__auth_within=0.2)
    for frames in ((), ("ping",)):
        async with client(server.ws + CONNECT) as someone:
            for _ in frames:
                await someone.socket.ping()

            assert await someone.closed() == (4500, "auth_timeout")
            (closing,) = someone.events
            assert (closing["type"], closing["retry"]) == ("closing", False)

    assert refusals(server, "auth_timeout") == 2
    assert server.metric('roomcast_connections_opened_total{kind="connect"}') == 0


async def test_no_more_may_wait_than_the_limit_says(start: Start) -> None:
    server = start(limits__unauthenticated=3, limits__auth_within=60)
    with ExitStack() as stack:
        waiting = [stack.enter_context(Peer(server)) for _ in range(3)]
        for peer in waiting:
            assert peer.ask(head("GET", f"GET {LISTEN} HTTP/1.1")) == 101

        with Peer(server) as late:
            assert late.ask(head("GET", f"GET {LISTEN} HTTP/1.1")) == 503
            assert late.answer.getheader("retry-after") == "1"
            assert msgspec.json.decode(late.answer.read())["setting"] == "limits.unauthenticated"

        async with client(f"{server.ws}/v1/connect?token={mint()}") as known:
            assert (await known.receive())["type"] == "hello"

        waiting[0].sock.sendall(text(type="auth", token=mint()))
        events_until(waiting[0], lambda event: event["type"] == "joined")
        with Peer(server) as next_one:
            assert next_one.ask(head("GET", f"GET {LISTEN} HTTP/1.1")) == 101
            next_one.sock.close()

        wait_for_place(server)


def wait_for_place(server: TenantServer) -> None:
    """Ask until who was waiting and went away has given its place back."""
    deadline = time.monotonic() + 20
    while True:
        with Peer(server) as peer:
            if peer.ask(head("GET", f"GET {LISTEN} HTTP/1.1")) == 101:
                return

        assert time.monotonic() < deadline


async def test_in_development_mode_any_token_will_do_but_one_must_come(
    protocol: str, tmp_path: Path
) -> None:
    with serving(tmp_path / "log", **PROTOCOLS[protocol], limits__auth_within=3) as dev:
        async with client(dev.ws + LISTEN) as someone:
            await someone.send(type="auth", token="any")
            assert (await someone.until("joined"))["room"] == "a"

        async with client(dev.ws + CONNECT) as silent:
            assert await silent.closed() == (4500, "auth_timeout")


async def test_a_drain_ends_who_waits(start: Start) -> None:
    server = start(limits__auth_within=60)
    async with client(server.ws + CONNECT) as waiting:
        server.terminate()
        assert (await waiting.closed())[0] == 1012
