"""The opening handshake, byte by byte: what a server must take, and what it must refuse and how."""

from __future__ import annotations

import secrets
import socket
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from http.client import HTTPResponse

import msgspec
import pytest

from tests.e2e.test_abuse import CLOSE, TEXT, WITHIN, masked
from tests.servers import Server

BINARY = 2
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455, section 1.3."""
UPGRADE = (
    "GET /v1/echo HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
Variation = tuple[str, ...]


def head(replaced: str = "", *lines: str) -> bytes:
    """Return an upgrade with these lines instead of the one that begins so, or just added."""
    starts = [at for at, line in enumerate(UPGRADE) if replaced and line.startswith(replaced)]
    at = starts[0] if starts else len(UPGRADE)
    return "\r\n".join([*UPGRADE[:at], *lines, *UPGRADE[at + 1 :], "", ""]).encode("latin-1")


class Peer:
    """A client that writes bytes, and reads one answer and then frames."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = HTTPResponse(self.sock)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.answer.close()
        self.sock.close()

    def ask(self, data: bytes) -> int:
        """Send the head of a request, and what may follow, and return the status of the answer."""
        self.sock.sendall(data)
        self.answer.begin()
        return self.answer.status

    def frame(self) -> tuple[int, bytes]:
        """Read a frame and return its opcode and payload."""
        opcode, size = self.answer.fp.read(2)
        if size == 126:
            size = int.from_bytes(self.answer.fp.read(2), "big")

        return opcode & 15, self.answer.fp.read(size)

    def echoes(self, data: bytes = b"hello") -> bool:
        """Tell whether this is a WebSocket that returns what it gets."""
        self.sock.sendall(masked(TEXT, data))
        return self.frame() == (TEXT, data)

    def cut(self) -> bool:
        """Tell whether the server ends the connection; one that does not is a timeout."""
        self.answer.read()
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def peer(server: Server) -> Iterator[Peer]:
    with Peer(server) as connected:
        yield connected


@pytest.mark.parametrize(
    "key", [KEY, b64encode(secrets.token_bytes(16)).decode()], ids=["of-the-rfc", "of-today"]
)
def test_the_answer_proves_that_the_key_was_read(peer: Peer, key: str) -> None:
    assert peer.ask(head("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {key}")) == 101
    headers = {name.lower(): value for name, value in peer.answer.getheaders()}
    proof = sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    assert headers["sec-websocket-accept"] == b64encode(proof).decode()
    assert key != KEY or headers["sec-websocket-accept"] == ACCEPT
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    unasked = {"sec-websocket-protocol", "sec-websocket-extensions"}
    assert not headers.keys() & {"content-length", "transfer-encoding", *unasked}
    assert peer.answer.version == 11
    assert peer.echoes()


GOOD: list[Variation] = [
    ("Upgrade", "Upgrade: WebSocket"),
    ("Upgrade", "UPGRADE: WEBSOCKET"),
    ("Upgrade", "Upgrade: h2c, websocket"),
    ("Upgrade", "Upgrade: websocket,h2c"),
    ("Upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    ("Connection", "connection: upgrade"),
    ("Connection", "Connection: keep-alive, Upgrade"),
    ("Connection", "Connection:UPGRADE,keep-alive"),
    ("Connection", "Connection: keep-alive", "Connection: Upgrade"),
    ("Connection", "Connection: Upgrade", "Connection: keep-alive"),
    ("Host", "host: localhost:8000"),
    ("Sec-WebSocket-Key", f"sec-websocket-key:\t {KEY} "),
    ("Sec-WebSocket-Version", "SEC-WEBSOCKET-VERSION:13"),
    ("GET", "GET /v1/echo?a=b&c=%20 HTTP/1.1"),
    ("GET", "GET  /v1/echo HTTP/1.1"),  # may be read by words (RFC 9112, section 3)
    ("", "Content-Length: 0"),
    ("", "Sec-WebSocket-Extensions: x-unknown; a=1"),
    ("", "X-Twice: 1", "X-Twice: 2"),
    ("", "X-Empty:"),
    ("", "X-Latin: caf\xe9"),
    ("", "!#$%&'*+-.^_`|~09: odd, but a token"),
    ("", "X: " + "x" * 7000),
    ("", *(f"X-{n}: 1" for n in range(100))),
    ("", *(f"X-{n}: {'x' * 1000}" for n in range(15))),
]


@pytest.mark.parametrize("variation", GOOD, ids=lambda lines: repr(lines)[:60])
def test_a_good_upgrade_is_taken_however_it_is_written(peer: Peer, variation: Variation) -> None:
    assert peer.ask(head(*variation)) == 101
    assert "sec-websocket-extensions" not in peer.answer.headers
    assert peer.echoes()


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Sec-WebSocket-Version: 8",),
        ("Sec-WebSocket-Version: 14",),
        ("Sec-WebSocket-Version: 013",),
        ("Sec-WebSocket-Version: thirteen",),
        ("Sec-WebSocket-Version:",),
    ],
    ids=repr,
)
def test_another_version_is_told_which_one_there_is(peer: Peer, lines: Variation) -> None:
    assert peer.ask(head("Sec-WebSocket-Version", *lines)) == 426
    assert peer.answer.getheader("sec-websocket-version") == "13"


MALFORMED: list[Variation] = [
    ("Sec-WebSocket-Key",),
    ("Sec-WebSocket-Key", "Sec-WebSocket-Key:"),
    ("Sec-WebSocket-Key", "Sec-WebSocket-Key: not base64!"),
    ("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {KEY[:-1]}"),
    ("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {KEY[:8]} {KEY[8:]}"),
    ("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {b64encode(bytes(15)).decode()}"),
    ("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {b64encode(bytes(17)).decode()}"),
    ("", f"Sec-WebSocket-Key: {KEY}"),
    ("", "Sec-WebSocket-Version: 13"),
    ("", "Content-Length: 5"),
    ("", "Transfer-Encoding: chunked"),
    ("Host",),
    ("", "Host: elsewhere"),
    ("", "X Space: 1"),
    ("", "X-Space : 1"),
    ("", "X(comment): 1"),
    ("", "caf\xe9: 1"),
    ("", "X\x01: 1"),
    ("", ": no name"),
    ("", "no colon"),
    ("", "X: a\x00b"),
    ("", "X: a\rb"),
    ("GET", "GET /v1/echo HTTP/1.1", " X: folded"),
    ("GET", "GET /v1/echo"),
    ("GET", "GET /v1/\xe9cho HTTP/1.1"),
]


@pytest.mark.parametrize("variation", MALFORMED, ids=repr)
def test_a_malformed_upgrade_is_a_bad_request(peer: Peer, variation: Variation) -> None:
    assert peer.ask(head(*variation)) == 400


NO_UPGRADE: list[Variation] = [
    ("Upgrade",),
    ("Upgrade", "Upgrade: h2c"),
    ("Upgrade", "Upgrade: websockets"),
    ("Connection",),
    ("Connection", "Connection: keep-alive"),
    ("Connection", "Connection: close"),
    ("GET", "GET /v1/echo HTTP/1.0"),
    ("GET", "POST /v1/echo HTTP/1.1"),
    ("GET", "PUT /v1/echo HTTP/1.1"),
    ("GET", "OPTIONS /v1/echo HTTP/1.1"),
    ("GET", "get /v1/echo HTTP/1.1"),
]


@pytest.mark.parametrize("variation", NO_UPGRADE, ids=repr)
def test_what_is_no_upgrade_is_the_clients_mistake(peer: Peer, variation: Variation) -> None:
    assert 400 <= peer.ask(head(*variation)) < 500


TOO_MUCH: list[Variation] = [
    ("", *(f"X-{n}: 1" for n in range(129 - len(UPGRADE) + 1))),
    ("", *(f"X-{n}: 1" for n in range(300))),
    ("", "X: " + "x" * 16_384),
    ("", "x" * 16_384 + ": 1"),
    ("", *(f"X-{n}: {'x' * 1000}" for n in range(17))),
    ("GET", f"GET /v1/echo?{'x' * 16_384} HTTP/1.1"),
]


@pytest.mark.parametrize("variation", TOO_MUCH, ids=lambda lines: repr(lines)[:30])
def test_a_head_that_is_too_much_is_refused_and_the_connection_ends(
    peer: Peer, variation: Variation
) -> None:
    assert 400 <= peer.ask(head(*variation)) < 500
    assert peer.cut()


def test_a_head_without_end_is_refused_and_the_connection_ends(peer: Peer) -> None:
    assert 400 <= peer.ask(head("", "X: " + "x" * 16_384).removesuffix(b"\r\n\r\n")) < 500
    assert peer.cut()


def test_an_unknown_address_is_denied_with_a_problem_document(peer: Peer) -> None:
    assert peer.ask(head("GET", "GET /v1/nothing HTTP/1.1")) == 404
    assert peer.answer.getheader("content-type") == "application/problem+json"
    problem = msgspec.json.decode(peer.answer.read())
    assert (problem["status"], problem["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([], None),
        (["roomcast.v1"], "roomcast.v1"),
        (["roomcast.v1.msgpack"], "roomcast.v1.msgpack"),
        (["roomcast.v1,roomcast.v1.msgpack"], "roomcast.v1"),
        (["unknown, roomcast.v1.msgpack, roomcast.v1"], "roomcast.v1.msgpack"),
        (["unknown", "roomcast.v1"], "roomcast.v1"),
        (["unknown"], None),
        (["ROOMCAST.V1"], None),
        (["roomcast.v1.msgpackk"], None),
    ],
)
def test_the_first_known_subprotocol_is_chosen(
    peer: Peer, offers: list[str], chosen: str | None
) -> None:
    lines = [f"Sec-WebSocket-Protocol: {offer}" for offer in offers]
    assert peer.ask(head("GET", "GET /v1/connect HTTP/1.1", *lines)) == 101
    assert peer.answer.headers.get_all("sec-websocket-protocol") == (chosen and [chosen])
    opcode, hello = peer.frame()
    packed = chosen == "roomcast.v1.msgpack"
    assert opcode == (BINARY if packed else TEXT)
    event = (msgspec.msgpack if packed else msgspec.json).decode(hello)
    assert event["type"] == "hello"


def test_frames_that_come_with_the_head_are_read(peer: Peer) -> None:
    assert peer.ask(head() + masked(TEXT, b"1") + masked(TEXT, b"2")) == 101
    assert [peer.frame() for _ in "12"] == [(TEXT, b"1"), (TEXT, b"2")]
    peer.sock.sendall(masked(CLOSE, b"\x03\xe8"))
    assert peer.frame() == (CLOSE, b"\x03\xe8")
    assert peer.cut()


def test_a_frame_that_comes_half_with_the_head_is_read(peer: Peer) -> None:
    frame = masked(TEXT, b"halves")
    assert peer.ask(head() + frame[:7]) == 101
    peer.sock.sendall(frame[7:])
    assert peer.frame() == (TEXT, b"halves")


def test_a_head_that_comes_byte_by_byte_is_read(peer: Peer) -> None:
    *most, last = (bytes([byte]) for byte in head())
    for byte in most:
        peer.sock.sendall(byte)

    assert peer.ask(last) == 101
    assert peer.echoes()


def test_a_connection_may_ask_something_else_first(server: Server) -> None:
    with Peer(server) as peer:
        assert peer.ask(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
        peer.answer.read()
        peer.answer = HTTPResponse(peer.sock)
        assert peer.ask(head()) == 101
        assert peer.echoes()
