"""What peers can make a server log: nothing that is theirs, and of one cause so many lines."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from server.logs import LINES
from tests.e2e.clients import WITHIN, client
from tests.e2e.test_abuse import CLOSE, NO_TEXT, PING, TEXT, masked
from tests.e2e.test_handshake import UPGRADE, head
from tests.servers import Server

TOKEN = "eyJcanary.canary.canary"
MESSAGES = head("GET", f"GET /v1/connect?token={TOKEN} HTTP/1.1", f"Authorization: Bearer {TOKEN}")
AUTH = head("GET", "GET /v1/connect?auth=message HTTP/1.1")
PEERS: dict[str, bytes] = {
    "nothing": b"",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "no HTTP": b"canary canary canary\r\n\r\n",
    "a long line": b"GET /" + b"canary" * 4000,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bad length": b"POST /v1/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: canary\r\n\r\n",
    "no body": b"POST /v1/rooms/a/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    "a bad path": b"GET /%ff%00/canary HTTP/1.1\r\nHost: x\r\n\r\n",
    "a token in an address": f"GET /v1/usage?token={TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "another upgrade": head("Upgrade", "Upgrade: canary"),
    "no key": b"\r\n".join(line.encode() for line in UPGRADE[:-1]) + b"\r\n\r\n",
    "an unknown address": head("GET", "GET /canary HTTP/1.1"),
    "no text": MESSAGES + masked(TEXT, NO_TEXT),
    "no mask": MESSAGES + b"\x81\x06canary",
    "no frame": MESSAGES + b"\xff" * 100,
    "pings": MESSAGES + masked(PING, b"canary") * 100,
    "a bad close": MESSAGES + masked(CLOSE, b"\x03"),
    "no command": MESSAGES + masked(TEXT, b'{"canary'),
    "much": MESSAGES + masked(TEXT, b"x" * 300_000),
    "no token": AUTH + masked(TEXT, b'{"type":"auth"}'),
    "a wrong token": AUTH + masked(TEXT, f'{{"type":"auth","token":"{TOKEN}"}}'.encode()),
    "no text for a token": AUTH + masked(TEXT, NO_TEXT),
}


def send_and_read(sock: socket.socket) -> None:
    """End one's side, and read to the end."""
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        continue


def reset(sock: socket.socket) -> None:
    """Break the connection off at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("end", [send_and_read, reset])
def test_whatever_a_peer_sends_nothing_of_it_is_logged(
    server: Server, end: Callable[[socket.socket], None]
) -> None:
    before = server.output
    for opening in PEERS.values():
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN) as sock:
                try:
                    sock.sendall(opening)
                    end(sock)
                except ConnectionError:
                    continue

    assert server.metric("roomcast_ready") == 1
    assert server.output == before


@pytest.mark.anyio
async def test_what_fails_again_and_again_is_logged_so_often_and_counted(tmp_path: Path) -> None:
    server = Server(
        tmp_path / "log",
        engines__enabled="generator",
        engines__generator__call="tests.e2e.generators:broken",
        limits__upstream__lost_within=0.1,
    )

    async def speak(number: int) -> None:
        async with client(f"{server.ws}/v1/rooms/r{number}/speak") as speaker:
            await speaker.audio(bytes(6400))
            await speaker.closed()

    server.start()
    try:
        async with anyio.create_task_group() as tasks:
            for number in range(LINES + 15):
                tasks.start_soon(speak, number)

        logged = [line for line in server.output.splitlines() if "engine failed" in line]
        assert len(logged) == LINES
        assert server.metric("roomcast_log_lines_dropped_total") >= 15
    finally:
        server.kill()
