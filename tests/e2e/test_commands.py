"""Whatever two connections of a tenant send, in any order: documented answers, no bug, no trace.

Commands are drawn whole and broken, in both encodings, between audio, garbage and sudden ends.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import CLOSES, INTERNAL, REPLIES
from actors.messages import AnyEvent
from server.load.gauges import read_gauges, read_usage
from tests.e2e.test_tenants import TenantServer
from tests.protocols import PROTOCOLS
from tests.rawframes import BINARY, CLOSE, CONTINUATION, PING, TEXT, masked
from tests.tokens import OTHER_SECRET, mint, tenant

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
EXAMPLES = max(60, settings().max_examples // 20)
"""Pairs of connections for each protocol; `make fuzz` tries more."""
SHOWN = {close.code for close in CLOSES} - {INTERNAL.code}
LAST = "the last one"
PATHS = ("/v1/connect", "/v1/rooms/a/speak?engine=echo", "/v1/rooms/a/listen?history=5")
UNBOUNDED = {
    "limits__arrivals__per_address": 0,
    "limits__arrivals__per_node": 0,
    "quotas__connections_per_address": 0,
    "quotas__commands_per_second": 0,
}
TOKEN = mint(exp=4_000_000_000, jti="the-token")

Codec = Literal["json", "msgpack"]
Step = tuple[int, bytes]
"""Which of the connections, and what it sends."""
Ending = Literal["close", "reset", "half", "cut"]

rooms = st.sampled_from(["a", "b", "c"])
ids = st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"])
numbers = st.integers() | st.floats() | st.sampled_from([2**53, -(2**63), 2**64, 10**40])
texts = st.text(max_size=20) | st.sampled_from(
    ["\ud800", "\udfff\ud800", "\0", "x" * 200, "x" * 9000, "e:1", "e:-1", "../a", "*"]
)
leaves = st.none() | st.booleans() | numbers | texts
junk = leaves | st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
"""Any value."""


def commands() -> st.SearchStrategy[dict[str, Any]]:
    """Draw commands as they should be."""
    kinds: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "ping": {},
        "stop": {},
        "flush": {},
        "leave": {"room": rooms},
        "publish": {"room": rooms, "data": junk},
        "refresh": {"token": st.sampled_from([TOKEN, TOKEN + "x", mint(OTHER_SECRET), "no"])},
        "join": {
            "room": rooms,
            "history": st.integers(0, 301),
            "since": st.sampled_from([None, "e:0", "e:99"]),
            "partials": st.booleans(),
            "presence": st.booleans(),
        },
        "start": {
            "room": rooms,
            "engine": st.sampled_from(["", "echo", "nobody"]),
            "encoding": st.sampled_from(["pcm_s16le", "mulaw", "opus", "webm", "flac", "no"]),
            "rate": st.sampled_from([None, 16000, 8000, 1]),
            "transcripts": st.booleans(),
            "resume": st.sampled_from(["", "", "", "nothing"]),
        },
    }
    return st.one_of(
        [
            st.fixed_dictionaries({"type": st.just(kind), "id": ids, **fields})
            for kind, fields in kinds.items()
        ]
    )


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a command in which something is wrong."""
    command = dict(draw(commands()))
    name = draw(st.sampled_from(sorted(command)))
    match draw(st.sampled_from(["missing", "unknown", "wrong", "deep"])):
        case "missing":
            del command[name]
        case "unknown":
            command[draw(st.text(max_size=5))] = draw(junk)
        case "wrong":
            command[name] = draw(junk)
        case _:
            value: Any = 1
            for _ in range(draw(st.sampled_from([10, 300]))):
                value = [value] if draw(st.booleans()) else {"x": value}

            command[name] = value

    return command


def written(command: dict[str, Any], codec: Codec) -> bytes:
    """Return the frame of a command; what MessagePack cannot say is said in JSON."""
    if codec == "msgpack":
        with suppress(TypeError, ValueError, OverflowError, UnicodeError, RecursionError):
            return masked(BINARY, msgspec.msgpack.encode(command))

    return masked(TEXT, json.dumps(command).encode())


def frames(codec: Codec) -> st.SearchStrategy[bytes]:
    """Draw what a connection sends at once."""
    audio = st.integers(0, 40).map(lambda number: bytes(160 * number))
    if codec == "msgpack":
        audio = audio.map(msgspec.msgpack.encode)

    return st.one_of(
        commands().map(lambda command: written(command, codec)),
        commands().map(lambda command: written(command, codec)),
        broken().map(lambda command: written(command, codec)),
        audio.map(lambda data: masked(BINARY, data)),
        st.binary(max_size=200).map(lambda data: masked(BINARY, data)),
        st.binary(max_size=20).map(lambda data: masked(TEXT, data)),
        st.text(max_size=20).map(lambda text: masked(TEXT, text.encode(errors="replace"))),
        st.sampled_from(
            [
                masked(TEXT, b"[" * 30_000),
                masked(TEXT, b'{"type":"publish","room":"a","data":' + b"[" * 9000),
                masked(TEXT, b'{"type":"ping","id":1,"id":2}'),
                masked(TEXT, b"x" * 65_537),
                masked(BINARY, b"\x81" * 9000),
                masked(PING, b"?"),
                masked(TEXT, b'{"type":', fin=False) + masked(CONTINUATION, b'"ping","id":3}'),
                masked(CONTINUATION, b"?"),
            ]
        ),
    )


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[tuple[str, Codec, Ending]], list[Step]]:
    """Draw two connections, what they send in turns, and how each ends."""
    codecs: st.SearchStrategy[Codec] = st.sampled_from(["json", "msgpack"])
    endings: st.SearchStrategy[Ending] = st.sampled_from(["close", "close", "reset", "half", "cut"])
    ends = [(draw(st.sampled_from(PATHS)), draw(codecs), draw(endings)) for _ in range(2)]
    steps = draw(
        st.lists(
            st.integers(0, 1).flatmap(lambda each: st.tuples(st.just(each), frames(ends[each][1]))),
            max_size=25,
        )
    )
    return ends, steps


class Peer:
    """One connection, and what came over it."""

    def __init__(self, server: TenantServer, path: str, codec: Codec) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), WITHIN)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._codec, self._data = codec, bytearray()
        self.over = False
        self.code = 0
        """The close code of the server."""
        protocol = "roomcast.v1" + ".msgpack" * (codec == "msgpack")
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._data:
            self._read()

        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._data = bytearray(rest)

    def send(self, data: bytes) -> None:
        """Send bytes, if the server still takes any."""
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.over = True

    def until_answered(self) -> None:
        """Read until everything that was sent is answered, or the server ends it."""
        self.send(masked(TEXT, json.dumps({"type": "ping", "id": LAST}).encode()))
        while not self.code and LAST not in [event.get("id") for event in self._events()]:
            if not self._read():
                return

    def end(self, how: Ending) -> None:
        """End the connection, and read to its end where there is something to be read."""
        if how == "reset" or how == "cut":
            if how == "cut":
                self.send(masked(TEXT, b"x" * 300)[:100])

            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.until_answered()
            if how == "close":
                self.send(masked(CLOSE, b"\x03\xe8"))
            else:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)

            while self._read():
                list(self._events())

            list(self._events())

        self._socket.close()

    def _read(self) -> bool:
        try:
            piece = self._socket.recv(65_536)
        except ConnectionError:
            piece = b""

        self._data += piece
        return bool(piece)

    def _events(self) -> Iterator[dict[str, Any]]:
        """Take the whole frames; each must be an event of the protocol, or a documented end."""
        while len(self._data) > 1:
            size, at = self._data[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(self._data[2:at], "big")

            if len(self._data) < at + size:
                return

            opcode, payload = self._data[0] & 15, bytes(self._data[at : at + size])
            del self._data[: at + size]
            if opcode == CLOSE:
                self.code = int.from_bytes(payload[:2], "big")
                assert self.code in SHOWN, payload
            elif opcode in (TEXT, BINARY):
                yield self._read_event(payload)

    def _read_event(self, payload: bytes) -> dict[str, Any]:
        assert not self.code, "an event comes behind the close frame"
        module: Any = msgspec.json if self._codec == "json" else msgspec.msgpack
        event: dict[str, Any] = module.decode(payload)
        msgspec.convert(event, AnyEvent, strict=False)
        assert event["type"] != "error" or event["code"] in REPLIES, event
        return event


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TenantServer]:
    """A server of tenants that lets as many connect as may come; it must end without a bug."""
    server = TenantServer(
        tmp_path_factory.mktemp("server") / "log",
        tenants=msgspec.json.encode(tenant()).decode(),
        engines__enabled="echo",
        speech__resume_grace=0.2,
        drain__window=0,
        **UNBOUNDED,
        **PROTOCOLS[request.param],
    )
    server.start()
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def held(server: TenantServer) -> dict[str, int]:
    """Return whatever the server counts as living."""
    return dict(read_gauges(server.http) + read_usage(server.http, TOKEN))


def test_whatever_comes_is_answered_in_the_words_of_the_protocol_and_leaves_no_trace(
    server: TenantServer,
) -> None:
    before = held(server)

    @settings(max_examples=EXAMPLES)
    @given(lives())
    def live(drawn: tuple[list[tuple[str, Codec, Ending]], list[Step]]) -> None:
        ends, steps = drawn
        peers = [Peer(server, path, codec) for path, codec, _ in ends]
        for number, data in steps:
            if not peers[number].over:
                peers[number].send(data)

        for peer, (_, _, how) in zip(peers, ends, strict=True):
            peer.end(how)

        assert "Traceback" not in server.output, server.output

    live()
    deadline = time.monotonic() + WITHIN
    while held(server) != before:
        assert time.monotonic() < deadline, (before, held(server))
