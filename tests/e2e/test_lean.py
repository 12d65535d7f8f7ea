"""What uvicorn's own WebSocket classes leave open, closed by the lean protocol."""

from __future__ import annotations

import asyncio
import socket
import struct

import anyio
import msgspec
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.e2e.clients import client
from tests.e2e.conftest import LEAN, Serve
from tests.e2e.test_abuse import disconnects, read_until, sockets, wait_until
from tests.e2e.test_bad_input import UPGRADE, converse
from tests.e2e.test_handshake import Peer, head
from tests.e2e.test_slow import close_code, read_all, upgrade
from tests.rawframes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, masked
from tests.servers import Server

pytestmark = [pytest.mark.anyio, LEAN]

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
MESSAGE = 131_072
"""Bytes of a message at the protocol's bound: twice what a command or a piece of audio may have."""


def memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def send_for_ever(sock: socket.socket, data: bytes, most: int) -> int:
    """Send again and again until the server ends the connection; return the bytes it let pass."""
    sock.settimeout(WITHIN)
    sent = 0
    try:
        while sent < most:
            sent += sock.send(data)
    except (ConnectionResetError, BrokenPipeError):
        pass

    return sent


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "header bytes": (UPGRADE + b"X: ", b"x" * 60_000),
    "header lines": (UPGRADE, b"X: 1\r\n" * 10_000),
    "a request line": (b"GET /", b"x" * 60_000),
    "empty fragments": (
        UPGRADE + b"\r\n" + masked(BINARY, fin=False),
        masked(CONTINUATION, fin=False) * 10_000,
    ),
    "two-byte fragments": (
        UPGRADE + b"\r\n" + masked(BINARY, fin=False),
        masked(CONTINUATION, b"xx", fin=False) * 8000,
    ),
    "pings": (UPGRADE + b"\r\n", masked(PING, b"x" * 125) * 400),
    "pongs": (UPGRADE + b"\r\n", masked(PONG) * 10_000),
    "what comes after a violation": (UPGRADE + b"\r\n" + b"\xff\xff", b"x" * 60_000),
    "what comes after a close": (UPGRADE + b"\r\n" + masked(CLOSE), b"x" * 60_000),
    "a message": (UPGRADE + b"\r\n" + b"\x02\xff" + bytes(5) + b"\x01\0\0\0\0\0\0", b"x" * 60_000),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_nothing_without_end_is_read_without_end_or_kept(server: Server, what: str) -> None:
    start, more = ENDLESS[what]
    before = memory(server)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(start)
        assert send_for_ever(sock, more, 200_000_000) < 50_000_000

    assert memory(server) < before + 10_000_000
    wait_until(lambda: sockets(server) == 0)


LEGAL = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
ILLEGAL = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def test_a_legal_code_is_echoed_without_its_reason(server: Server) -> None:
    for code in LEGAL:
        answer = converse(server, masked(CLOSE, code.to_bytes(2, "big") + b"why"))
        assert answer.endswith(b"\x88\x02" + code.to_bytes(2, "big"))


def test_an_illegal_close_is_answered_with_the_code_of_its_fault(server: Server) -> None:
    for code in ILLEGAL:
        assert close_code(converse(server, masked(CLOSE, code.to_bytes(2, "big")))) == 1002

    assert close_code(converse(server, masked(CLOSE, b"\x03"))) == 1002
    assert close_code(converse(server, masked(CLOSE, b"\x03\xe8\xff"))) == 1007
    assert converse(server, masked(CLOSE)).endswith(b"\x88\x00")


@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_a_message_over_the_bound_is_1009_in_one_frame_or_in_many(
    server: Server, pieces: int
) -> None:
    size = MESSAGE // pieces + 1
    parts = [masked(0 if n else BINARY, bytes(size), n == pieces - 1) for n in range(pieces)]
    with upgrade(server, "/v1/connect", 65_536) as sock:
        send_for_ever(sock, b"".join(parts), 1)
        assert close_code(read_all(sock)) == 1009


def test_control_frames_may_come_between_the_fragments_of_a_listener(server: Server) -> None:
    with upgrade(server, "/v1/rooms/between/listen", 65_536) as sock:
        read_until(sock, b'"joined"')
        sock.sendall(masked(TEXT, b'{"type":"pi', fin=False) + masked(PING, b"?") + masked(PONG))
        read_until(sock, b"\x8a\x01?")
        sock.sendall(masked(CONTINUATION, b'ng","id":', fin=False) + masked(PING, b"!"))
        read_until(sock, b"\x8a\x01!")
        sock.sendall(masked(CONTINUATION, b"7}"))
        read_until(sock, b'"ack"')


def test_half_a_connection_is_none(server: Server) -> None:
    before = disconnects(server, 1006)
    with upgrade(server, "/v1/rooms/half/listen", 65_536) as sock:
        read_until(sock, b'"joined"')
        sock.shutdown(socket.SHUT_WR)
        assert close_code(b"\r\n\r\n" + read_all(sock)) == 0

    wait_until(lambda: disconnects(server, 1006) == before + 1)
    assert server.metric("roomcast_subscriptions") == 0


async def test_what_was_sent_before_the_close_is_done_by_a_busy_connection(serve: Serve) -> None:
    server = serve()
    sock = upgrade(server, "/v1/connect", 65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    read_until(sock, b'"hello"')
    sock.sendall(masked(TEXT, b'{"type":"start","room":"busy","id":1}'))
    read_until(sock, b'"ready"')
    (worker,) = server.workers()
    async with client(f"{server.ws}/v1/rooms/busy/listen") as listener:
        await listener.until("joined")
        worker.suspend()
        sock.settimeout(WITHIN)
        while server.metric('roomcast_channel_depth{channel="ingress"}') < 32:
            sock.sendall(masked(BINARY, bytes(1280)) * 16)

        last = masked(TEXT, b'{"type":"publish","room":"busy","data":"last words"}')
        sock.sendall(last + masked(CLOSE, b"\x03\xe8"))
        worker.resume()
        assert (await listener.until("message"))["data"] == "last words"
        assert await anyio.to_thread.run_sync(read_all, sock)

    sock.close()
    wait_until(lambda: disconnects(server, 1000) == 2)


async def visit(server: Server, number: int) -> None:
    """Connect, and end it in one of several ways."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    ends = (
        UPGRADE + b"\r\n" + masked(CLOSE, b"\x03\xe8"),
        UPGRADE.replace(b"connect", b"rooms/a/listen") + b"\r\n" + masked(CLOSE),
        UPGRADE + b"\r\n",
        UPGRADE[:50],
        UPGRADE + b"\r\n\xff\xff",
    )
    writer.write(ends[number % len(ends)])
    if number % len(ends) in (0, 1, 4):
        await reader.read()
    else:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", number % 2, 0))

    writer.close()


async def test_ten_thousand_visits_leave_nothing_behind(serve: Serve) -> None:
    server = serve()

    async def visitor(count: int) -> None:
        for number in range(count):
            await visit(server, number)

    async def visits(count: int) -> int:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(visitor, count // 20)

        wait_until(lambda: sockets(server) == 0)
        return memory(server)

    with anyio.fail_after(120):
        before = await visits(2000)
        assert await visits(8000) < before + 4_000_000

    assert server.metric("roomcast_subscriptions") == 0
    for kind in ("connect", "listen"):
        for state in ("connected", "draining"):
            assert server.metric(f'roomcast_connections{{kind="{kind}",state="{state}"}}') == 0


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_deflated_messages_are_right_in_both_directions(serve: Serve, codec: str) -> None:
    server = serve(server__deflate=True)
    name = Subprotocol("roomcast.v1" if codec == "json" else "roomcast.v1.msgpack")
    coder = msgspec.json if codec == "json" else msgspec.msgpack
    data = ["x" * 20_000, "é", 1, None]
    async with (
        connect(f"{server.ws}/v1/connect", subprotocols=[name]) as packed,
        client(f"{server.ws}/v1/rooms/deflated/listen") as plain,
    ):
        assert [each.name for each in packed.protocol.extensions] == ["permessage-deflate"]
        await plain.until("joined")
        for number, command in enumerate(("join", "publish")):
            more = {"data": data} if command == "publish" else {}
            sent = coder.encode({"type": command, "room": "deflated", "id": number} | more)
            await packed.send(sent.decode() if codec == "json" else sent)

        found = {}
        while "message" not in found:
            event = coder.decode(await packed.recv())
            found[event["type"]] = event

        assert found["message"]["data"] == data
        assert (await plain.until("message"))["data"] == data


async def test_a_deflated_bomb_is_1009(serve: Serve) -> None:
    server = serve(server__deflate=True)
    before = memory(server)
    async with connect(f"{server.ws}/v1/connect") as bomber:
        await bomber.send("x" * 100_000_000)
        await bomber.wait_closed()
        assert bomber.close_code == 1009

    assert memory(server) < before + 5_000_000


def test_what_is_heard_by_a_deflating_client_is_small(serve: Serve) -> None:
    server = serve(server__deflate=True)
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    with Peer(server) as peer:
        assert peer.ask(head("GET", "GET /v1/connect HTTP/1.1", offer)) == 101
        assert "permessage-deflate" in (peer.answer.getheader("sec-websocket-extensions") or "")
        command = b'{"type":"join","room":"a","id":1}'
        publish = b'{"type":"publish","room":"a","data":"%s"}' % (b"x" * 20_000)
        peer.sock.sendall(masked(TEXT, command) + masked(TEXT, publish))
        payload = b"x" * 10_000
        while len(payload) >= 10_000 or b"joined" in payload:
            _, payload = peer.frame()

    assert len(payload) < 1000


async def test_nothing_is_deflated_unless_it_is_set(server: Server) -> None:
    async with connect(f"{server.ws}/v1/connect") as someone:
        assert someone.protocol.extensions == []
