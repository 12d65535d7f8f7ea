"""What one client does is nobody else's problem."""

from __future__ import annotations

import socket
import struct

import anyio
import pytest

from tests.e2e.clients import client
from tests.e2e.conftest import Serve
from tests.e2e.test_slow import upgrade
from tests.servers import Server

pytestmark = pytest.mark.anyio

BURST = 3000


def masked(text: bytes) -> bytes:
    """Build a client's text frame, masked with zeros."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


async def test_a_burst_in_one_write_reaches_every_listener_whole(server: Server) -> None:
    room = f"{server.ws}/v1/rooms/burst/listen"
    async with client(room) as one, client(room) as two:
        await one.until("joined")
        await two.until("joined")
        sender = upgrade(server, "/v1/connect", 65_536)
        while b"hello" not in sender.recv(65_536):
            continue

        frames = [b'{"type":"publish","room":"burst","data":%d}' % n for n in range(BURST)]
        await anyio.to_thread.run_sync(sender.sendall, b"".join(map(masked, frames)))
        for listener in (one, two):
            got = await listener.messages(BURST)
            assert [event["data"] for event in got] == list(range(BURST))

        sender.close()


async def test_a_flood_of_pings_answers_the_flooder_and_slows_nobody(server: Server) -> None:
    async with client(f"{server.ws}/v1/connect") as flooder:
        await flooder.until("hello")
        for n in range(BURST):
            await flooder.send(type="ping", id=n)

        acks = [await flooder.until("ack") for _ in range(BURST)]
        assert [ack["id"] for ack in acks] == list(range(BURST))


async def test_a_speaker_that_vanishes_behind_a_stuck_engine_is_forgotten(serve: Serve) -> None:
    server = serve(limits__upstream__end_within=1, server__ping_interval=1, speech__resume_grace=1)
    speaker = upgrade(server, "/v1/rooms/stuck/speak", 65_536)
    speaker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    while not server.workers():
        speaker.recv(65_536)

    (worker,) = server.workers()
    worker.suspend()
    frame = bytes((0x82, 0xFE)) + struct.pack(">H", 1280) + bytes(4) + bytes(1280)
    speaker.settimeout(2)
    with pytest.raises(TimeoutError):
        speaker.sendall(frame * 1000)

    assert server.metric('roomcast_channel_depth{channel="ingress"}') == 32
    speaker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    speaker.close()
    with anyio.fail_after(40):
        async with client(f"{server.ws}/v1/connect") as other:
            while (
                server.metric('roomcast_connections{kind="speak",state="connected"}')
                or server.metric('roomcast_connections{kind="speak",state="draining"}')
                or server.metric('roomcast_engine_streams{engine="embedded"}')
            ):
                await other.ask(type="ping", id=1)

    assert not server.workers()


async def test_a_body_that_never_ends_leaves_no_trace_in_the_log(server: Server) -> None:
    head = b"POST /v1/rooms/a/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(head + b'{"da')

    async with client(f"{server.ws}/v1/connect") as other:
        assert (await other.ask(type="ping", id=1))["type"] == "ack"

    assert "Traceback" not in server.output


async def test_the_room_limit_leaves_the_rooms_that_are_there_alone(serve: Serve) -> None:
    server = serve(limits__rooms=1)
    async with client(f"{server.ws}/v1/connect") as someone:
        await someone.ask(type="join", id=1, room="only")
        assert (await someone.ask(type="join", id=2, room="more"))["code"] == "room_limit"
        error = await someone.ask(type="start", id=3, room="more", engine="echo")
        assert (error["code"], error["setting"]) == ("room_limit", "limits.rooms")
        assert (await someone.ask(type="publish", id=4, room="only", data=1))["offset"] == 1
