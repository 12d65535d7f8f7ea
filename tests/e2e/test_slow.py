"""Peers that do not read, do not write, or are not there any more."""

from __future__ import annotations

import socket
import struct

import anyio
import pytest

from tests.e2e.clients import client
from tests.e2e.conftest import Serve
from tests.servers import Server

pytestmark = pytest.mark.anyio

MESSAGES = 400
SIZE = 20_000


def upgrade(server: Server, path: str, receive_buffer: int) -> socket.socket:
    """Open a WebSocket by hand, with a small buffer that nobody reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    sock.settimeout(20)
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return bytes(data)

    return bytes(data)


def close_code(data: bytes) -> int:
    """Walk over the frames of a server and return the code of its close frame, or 0."""
    at = data.index(b"\r\n\r\n") + 4
    while at + 2 <= len(data):
        opcode, size = data[at] & 15, data[at + 1]
        at += 2
        if size == 126:
            (size,), at = struct.unpack_from(">H", data, at), at + 2
        elif size == 127:
            (size,), at = struct.unpack_from(">Q", data, at), at + 8

        if opcode == 8:
            return int.from_bytes(data[at : at + 2], "big")

        at += size

    return 0


async def test_a_listener_that_stops_reading_is_closed_and_the_others_miss_nothing(
    serve: Serve,
) -> None:
    server = serve(limits__egress__flush_within=30)
    stuck = upgrade(server, "/v1/rooms/busy/listen", 4096)
    async with (
        client(f"{server.ws}/v1/rooms/busy/listen") as steady,
        client(f"{server.ws}/v1/connect") as sender,
        anyio.create_task_group() as tasks,
    ):
        await steady.until("joined")

        async def send() -> None:
            for n in range(MESSAGES):
                await sender.ask(type="publish", id=n, room="busy", data=[n, "x" * SIZE])

        tasks.start_soon(send)
        got = await steady.messages(MESSAGES)
        assert [event["data"][0] for event in got] == list(range(MESSAGES))
        assert [event["offset"] for event in got] == list(range(1, MESSAGES + 1))

    assert server.metric("roomcast_slow_consumers_total") == 1
    read = await anyio.to_thread.run_sync(read_all, stuck)
    stuck.close()
    assert close_code(read) == 4001
    assert len(read) < MESSAGES * SIZE / 2


async def test_a_peer_that_never_reads_is_cut_in_the_end(serve: Serve) -> None:
    server = serve(limits__egress__flush_within=1)
    stuck = upgrade(server, "/v1/rooms/deaf/listen", 4096)
    async with client(f"{server.ws}/v1/connect") as sender:
        while server.metric('roomcast_connections{kind="listen",state="connected"}') == 0:
            await sender.ask(type="ping", id=1)

        for n in range(MESSAGES):
            await sender.ask(type="publish", id=n, room="deaf", data="x" * SIZE)

        assert server.metric("roomcast_slow_consumers_total") == 1
        with anyio.fail_after(20):
            while server.metric('roomcast_connections{kind="listen",state="draining"}'):
                await sender.ask(type="ping", id=1)

    stuck.close()


async def test_a_peer_that_disappears_without_a_close_is_forgotten(serve: Serve) -> None:
    server = serve(server__ping_interval=0.5, server__ping_timeout=0.5)
    gone = upgrade(server, "/v1/rooms/gone/listen", 4096)
    frozen = upgrade(server, "/v1/rooms/gone/speak?engine=echo", 4096)
    async with client(f"{server.ws}/v1/connect") as other:
        while server.metric("roomcast_subscriptions") == 0:
            await other.ask(type="ping", id=1)

        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        with anyio.fail_after(20):
            while (
                server.metric("roomcast_subscriptions")
                or server.metric('roomcast_connections{kind="speak",state="connected"}')
                or server.metric('roomcast_connections{kind="speak",state="draining"}')
            ):
                await other.ask(type="ping", id=1)

    frozen.close()


async def test_a_client_that_never_writes_just_listens(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/connect") as mute,
        client(f"{server.ws}/v1/connect") as other,
    ):
        await mute.until("hello")
        await other.ask(type="ping", id=1)
        assert len(mute.events) == 1
