"""Peers that break the rules on purpose: each costs its own connection, and no log line."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.test_bad_input import converse
from tests.e2e.test_slow import close_code, upgrade
from tests.servers import Server

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
TEXT, PING, PONG, CLOSE = 1, 9, 10, 8
NO_TEXT = b"\xff\xfe"
PUBLISHED = "x" * 12_000
LISTENERS = 1


def masked(opcode: int, data: bytes, fin: bool = True) -> bytes:
    """Return a frame of a client; a mask of zeros changes nothing."""
    head = bytes([opcode | 0x80 * fin])
    if len(data) < 126:
        return head + bytes([0x80 | len(data)]) + bytes(4) + data

    return head + b"\xff" + struct.pack(">Q", len(data)) + bytes(4) + data


PINGED = masked(TEXT, b'{"type":"ping","id":1}')


def wait_until(check: Callable[[], bool]) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + WITHIN
    while not check():
        assert time.monotonic() < deadline, f"not within {WITHIN} s"


def disconnects(server: Server, code: int) -> float:
    return server.metric(f'roomcast_disconnects_total{{code="{code}"}}')


def publish(server: Server, room: str, text: str) -> None:
    url = f"{server.http}/v1/rooms/{room}/messages"
    urlopen(Request(url, f'{{"data":"{text}"}}'.encode()), timeout=WITHIN).close()


def waiting(server: Server) -> float:
    return server.metric('roomcast_channel_depth{channel="egress"}')


def read_until(sock: socket.socket, end: bytes) -> None:
    """Read what the server sends until this is in it."""
    sock.settimeout(WITHIN)
    data = bytearray()
    while end not in data:
        piece = sock.recv(4096)
        assert piece, bytes(data)
        data += piece


def sockets(server: Server) -> int:
    """Return how many connections the server has."""
    return len(psutil.Process(server.process.pid).net_connections("tcp")) - LISTENERS


def fill(server: Server, room: str, peers: int) -> int:
    """Publish until what these deaf peers do not read waits in their mailboxes; return how many."""
    wait_until(lambda: server.metric("roomcast_subscriptions") == peers)
    count = 0
    while waiting(server) < peers:
        assert count < 1000, "these peers are not deaf, or gone"
        publish(server, room, PUBLISHED)
        count += 1

    return count


@pytest.mark.parametrize("broken", [masked(TEXT, NO_TEXT), masked(TEXT, NO_TEXT) * 3])
def test_answers_that_come_too_late_for_a_broken_peer_log_nothing(
    serve: Serve, broken: bytes
) -> None:
    server = serve()
    for _ in range(20):
        assert close_code(converse(server, PINGED * 3 + broken)) == 1007


def test_broken_text_after_a_close_frame_logs_nothing(serve: Serve) -> None:
    server = serve()
    too_big = masked(TEXT, b"x" * 70_000)
    with upgrade(server, "/v1/connect", 65536) as sock:
        read_until(sock, b'"hello"')
        sock.sendall(too_big)
        read_until(sock, b"\x88\x09\x03\xf1too_big")
        sock.sendall(masked(TEXT, NO_TEXT) + masked(CLOSE, b"\x03\xf1"))
        assert sock.recv(1) == b""


def test_broken_text_and_a_close_frame_at_once_log_nothing(serve: Serve) -> None:
    server = serve()
    answer = converse(server, masked(TEXT, NO_TEXT) + masked(CLOSE, b"\x03\xe8"))
    assert close_code(answer) in (1000, 1007)  # stock sees the close frame first


def test_no_end_waits_for_a_peer_that_does_not_read(serve: Serve) -> None:
    server = serve(limits__egress__flush_within=30)
    with ExitStack() as stack:
        deaf = [stack.enter_context(upgrade(server, "/v1/rooms/a/listen", 4096)) for _ in "abc"]
        fill(server, "a", len(deaf))
        deaf[0].sendall(masked(CLOSE, b"\x03\xe8"))
        deaf[1].sendall(b"\xb1\x80\0\0\0\0")
        deaf[2].shutdown(socket.SHUT_WR)
        wait_until(lambda: sockets(server) == 0)


def test_a_close_of_the_server_does_not_wait_for_a_peer_that_does_not_read(serve: Serve) -> None:
    server = serve()
    with upgrade(server, "/v1/rooms/a/listen", 4096):
        room_left = fill(server, "a", 1) - 3

    wait_until(lambda: sockets(server) == 0)
    with upgrade(server, "/v1/rooms/b/listen", 4096) as deaf:
        wait_until(lambda: server.metric("roomcast_subscriptions") == 1)
        for _ in range(room_left):
            publish(server, "b", PUBLISHED)

        assert waiting(server) == 0
        deaf.sendall(masked(TEXT, b"x" * 70_000))
        wait_until(lambda: sockets(server) == 0)

    assert disconnects(server, 1009) == 1


def test_a_room_goes_on_after_a_peer_that_answers_no_ping(serve: Serve) -> None:
    patience = {"limits__egress__messages": 100_000, "limits__egress__age": 60}
    server = serve(server__ping_interval=2, server__ping_timeout=0.5, **patience)
    with upgrade(server, "/v1/rooms/a/listen", 4096):
        room_left = fill(server, "a", 1) - 3
        wait_until(lambda: server.metric("roomcast_subscriptions") == 0)

    before = disconnects(server, 1006)
    with upgrade(server, "/v1/rooms/b/listen", 4096):
        wait_until(lambda: server.metric("roomcast_subscriptions") == 1)
        for _ in range(room_left):
            publish(server, "b", PUBLISHED)

        while server.metric("roomcast_subscriptions"):
            publish(server, "b", "")

    assert disconnects(server, 1006) == before + 1


def test_fifty_pings_a_second_are_answered_and_one_more_is_the_end(serve: Serve) -> None:
    server = serve()
    pings = masked(PING, b"?") * 50
    answer = converse(server, pings + masked(CLOSE, b"\x03\xe8"))
    assert (answer.count(b"\x8a\x01?"), close_code(answer)) == (50, 1000)
    assert close_code(converse(server, pings + masked(PING, b"?"))) == 1008


def test_pongs_that_nobody_asked_for_count_as_much(serve: Serve) -> None:
    server = serve()
    pongs = masked(PONG, b"?") * 25 + masked(PING, b"?") * 25
    assert close_code(converse(server, pongs + masked(CLOSE, b"\x03\xe8"))) == 1000
    assert close_code(converse(server, pongs + masked(PONG, b"?"))) == 1008
    assert close_code(converse(server, masked(PONG, b"") * 20_000)) == 1008


def test_a_ping_flood_of_a_peer_that_does_not_read_is_cut(serve: Serve) -> None:
    server = serve()
    memory = psutil.Process(server.process.pid).memory_info
    before = memory().rss
    with upgrade(server, "/v1/connect", 4096) as deaf:
        deaf.settimeout(WITHIN)
        flood = masked(PING, b"x" * 125) * 2000
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            deaf.sendall(flood * 400)

    assert memory().rss < before + 20_000_000


@pytest.mark.parametrize("size", [140_000, 600_000])
def test_a_message_over_the_bound_is_told_so_though_most_of_it_is_unread(
    serve: Serve, size: int
) -> None:
    server = serve()
    for _ in range(5):
        assert close_code(converse(server, masked(TEXT, b"x" * size))) == 1009


@pytest.mark.parametrize("crumb", [b"", b" "])
def test_a_message_may_have_128_fragments_and_no_more(serve: Serve, crumb: bytes) -> None:
    server = serve()
    start, more = masked(TEXT, crumb, fin=False), masked(0, crumb, fin=False)
    end, close = masked(0, b"{}"), masked(CLOSE, b"\x03\xe8")
    assert close_code(converse(server, start + more * 126 + end + close)) == 1000
    assert close_code(converse(server, start + more * 128)) == 1009
    wait_until(lambda: server.metric('roomcast_refusals_total{code="bad_message"}') == 1)


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_is_lost_without_a_close_frame_counts_as_lost(
    serve: Serve, reset: bool
) -> None:
    server = serve()
    with upgrade(server, "/v1/connect", 4096) as lost:
        read_until(lost, b'"hello"')
        if reset:
            lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    wait_until(lambda: disconnects(server, 1006) + disconnects(server, 1000) == 1)
    assert disconnects(server, 1006) == 1


def test_a_connection_that_ends_with_a_close_frame_counts_as_normal(serve: Serve) -> None:
    server = serve()
    converse(server, masked(CLOSE, b"\x03\xe8"))
    converse(server, masked(CLOSE, b""))
    wait_until(lambda: disconnects(server, 1000) == 2)


def test_a_peer_that_is_lost_while_its_reader_waits_is_forgotten(serve: Serve) -> None:
    server = serve(server__ping_interval=60)
    with upgrade(server, "/v1/rooms/a/listen", 4096) as deaf:
        fill(server, "a", 1)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    wait_until(lambda: server.metric("roomcast_subscriptions") == 0)
    assert disconnects(server, 1006) == 1
