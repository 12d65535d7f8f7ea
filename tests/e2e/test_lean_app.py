"""Any ASGI application under `uvicorn --ws server.protocol:LeanWebSocket`."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.processes import answers, fetch, free_port, running
from tests.rawframes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, masked

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class App:
    """The application as a process."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log
        self._read = 0

    @property
    def url(self) -> str:
        """Address for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> dict[str, Any]:
        """Return what the application counted."""
        return dict(msgspec.json.decode(fetch(f"{self.url}/counts")))

    def news(self) -> str:
        """Return what was logged since the last time."""
        text = self.log.read_text()
        self._read, new = len(text), text[self._read :]
        return new


class Peer:
    """A client that writes bytes, and reads an answer and then frames."""

    def __init__(self, app: App, path: str, *lines: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", app.port), timeout=WITHIN)
        head = (
            f"GET {path} HTTP/1.1",
            "Host: x",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            *lines,
            "",
            "",
        )
        self.sock.sendall("\r\n".join(head).encode())
        self.answer = HTTPResponse(self.sock)
        self.answer.begin()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.answer.close()
        self.sock.close()

    def send(self, opcode: int, data: bytes = b"", fin: bool = True) -> None:
        """Send a frame."""
        self.sock.sendall(masked(opcode, data, fin))

    def frame(self) -> tuple[int, bytes]:
        """Read a frame and return its opcode and payload."""
        first, size = self.answer.fp.read(2)
        if size == 126:
            size = int.from_bytes(self.answer.fp.read(2), "big")

        return first & 15, self.answer.fp.read(size)

    def closed(self) -> int:
        """Read to the end and return the code of the close frame, which has to be the last."""
        opcode, payload = self.frame()
        while opcode != CLOSE:
            opcode, payload = self.frame()

        code = int.from_bytes(payload[:2], "big")
        self.send(CLOSE, payload[:2])
        assert self.answer.fp.read() == b""
        return code


@pytest.fixture(
    scope="module", params=["uvloop-h11", "asyncio-h11", "uvloop-httptools", "asyncio-httptools"]
)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The application on each loop, behind each of uvicorn's HTTP parsers."""
    loop, http = request.param.split("-")
    port, log = free_port(), tmp_path_factory.mktemp("app") / "log"
    command = (
        sys.executable,
        "-m",
        "uvicorn",
        "tests.apps:app",
        "--port",
        str(port),
        "--loop",
        loop,
        "--http",
        http,
        "--ws",
        "server.protocol:LeanWebSocket",
        "--ws-max-size",
        "100000",
        "--log-level",
        "warning",
    )
    with running(log, *command) as wait_until:
        app = App(port, log)
        wait_until(lambda: answers(f"{app.url}/counts"))
        yield app

    assert app.news() == ""


@pytest.fixture(autouse=True)
def silence(app: App) -> Iterator[None]:
    """See that a test has logged what it says and nothing else."""
    yield
    assert app.news() == ""


def until(check: Callable[[], bool]) -> None:
    """Ask the application again and again until it is so."""
    for _ in range(2000):
        if check():
            return

    raise AssertionError("it never was so")


def test_messages_come_and_go_in_order(app: App) -> None:
    with Peer(app, "/echo", "Sec-WebSocket-Protocol: a, b") as peer:
        assert peer.answer.status == 101
        assert peer.answer.getheader("sec-websocket-protocol") == "b"
        assert peer.answer.headers.get_all("x-more") == ["1", "2"]
        assert peer.answer.getheader("server") == "uvicorn"
        sent = [(TEXT, b"a"), (BINARY, b"\xff"), (TEXT, b""), (BINARY, b""), (TEXT, b"x" * 60_000)]
        peer.sock.sendall(b"".join(masked(*each) for each in sent * 20))
        assert [peer.frame() for _ in range(100)] == sent * 20
        peer.send(CLOSE, b"\x0f\xa1bye")
        assert peer.frame() == (CLOSE, b"\x0f\xa1")
        assert peer.answer.fp.read() == b""

    until(lambda: app.counts()["ended"][-1] == "echo 4001")


def test_messages_before_a_close_are_answered_before_it(app: App) -> None:
    many = masked(TEXT, b"x") * 300
    with Peer(app, "/echo") as peer:
        peer.sock.sendall(many + masked(CLOSE, b"\x03\xe8"))
        got = [peer.frame() for _ in range(301)]

    assert got == [(TEXT, b"x")] * 300 + [(CLOSE, b"\x03\xe8")]


def test_control_frames_come_between_fragments(app: App) -> None:
    with Peer(app, "/echo") as peer:
        peer.send(TEXT, b"he", fin=False)
        peer.send(PING, b"1")
        assert peer.frame() == (PONG, b"1")
        peer.send(PONG)
        peer.send(CONTINUATION, b"llo")
        assert peer.frame() == (TEXT, b"hello")


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_a_legal_code_is_echoed(app: App, code: int) -> None:
    with Peer(app, "/echo") as peer:
        peer.send(CLOSE, code.to_bytes(2, "big") + b"why")
        assert peer.frame() == (CLOSE, code.to_bytes(2, "big"))

    until(lambda: app.counts()["ended"][-1] == f"echo {code}")


def test_a_violation_ends_the_route_too(app: App) -> None:
    with Peer(app, "/echo") as peer:
        peer.send(3)
        assert peer.closed() == 1002

    until(lambda: app.counts()["ended"][-1] == "echo 1002")
    with Peer(app, "/echo") as peer:
        peer.send(BINARY, bytes(100_001))
        assert peer.closed() == 1009


@pytest.mark.parametrize("reset", [True, False])
def test_a_route_hears_of_a_lost_peer(app: App, reset: bool) -> None:
    before = app.counts()["ended"]
    with Peer(app, "/echo") as peer:
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    until(lambda: app.counts()["ended"] == [*before, "echo 1006"])


def test_dependencies_are_resolved(app: App) -> None:
    with Peer(app, "/token?token=good") as peer:
        assert peer.frame() == (TEXT, b'{"token":"good"}')
        assert peer.frame() == (CLOSE, b"\x0f\xa0done")


def test_an_http_exception_is_a_denial(app: App) -> None:
    with Peer(app, "/token") as peer:
        assert peer.answer.status == 401
        assert peer.answer.getheader("www-authenticate") == "Bearer"
        assert peer.answer.read() == b'{"detail":"no token"}'
        assert peer.sock.recv(1) == b""


@pytest.mark.parametrize("path", ["/refuse", "/token?token=bad", "/unknown"])
def test_a_close_before_the_accept_is_403(app: App, path: str) -> None:
    with Peer(app, path) as peer:
        assert peer.answer.status == 403
        peer.answer.read()
        assert peer.sock.recv(1) == b""


def test_a_route_that_returns_closes_normally(app: App) -> None:
    with Peer(app, "/return") as peer:
        assert peer.frame() == (BINARY, b"\x00\xff")
        assert peer.closed() == 1000


def test_a_route_that_returns_without_an_answer_is_a_bug(app: App) -> None:
    with Peer(app, "/nothing") as peer:
        assert peer.answer.status == 500

    assert app.news().splitlines() == ["a WebSocket route returned without an answer"]


def test_a_bug_before_the_accept_is_500_and_one_traceback(app: App) -> None:
    with Peer(app, "/bug") as peer:
        assert peer.answer.status == 500
        assert b"planted" not in peer.answer.read()

    log = app.news()
    assert log.startswith("a WebSocket route failed\n")
    assert (log.count("Traceback"), log.count("planted, late=False")) == (1, 1)


def test_a_bug_after_the_accept_is_1011_and_one_traceback(app: App) -> None:
    with Peer(app, "/bug?late=true") as peer:
        assert peer.answer.status == 101
        assert peer.closed() == 1011

    log = app.news()
    assert (log.count("Traceback"), log.count("planted, late=True")) == (1, 1)


def test_a_header_that_is_none_is_a_bug(app: App) -> None:
    with Peer(app, "/header") as peer:
        assert peer.answer.status == 500
        assert peer.answer.getheader("set-cookie") is None

    assert app.news().count("Traceback") == 1


def test_a_peer_that_does_not_read_stops_the_sender(app: App) -> None:
    (process,) = [each for each in psutil.Process().children() if str(app.port) in each.cmdline()]
    before = process.memory_info().rss
    with Peer(app, "/flood") as peer:
        assert peer.answer.status == 101
        last = -1
        while last != (last := app.counts()["flood"]):
            continue

        assert 0 < last < 2000
        assert process.memory_info().rss < before + 20_000_000
        for _ in range(last + 100):
            assert peer.frame() == (BINARY, bytes(10_000))

        peer.send(CLOSE, b"\x03\xe8")

    until(lambda: app.counts()["ended"][-1] == "flood")


def test_a_head_with_too_many_headers_is_refused(app: App) -> None:
    with Peer(app, "/echo", *(f"X-{n}: 1" for n in range(130))) as peer:
        assert peer.answer.status == 431
