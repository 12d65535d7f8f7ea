"""The HTTP class byte by byte: what comes before, behind and between requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import http
from server.http import HardenedHttp
from server.inlet import PIECE, PIECES
from server.protocol import LeanWebSocket
from server.upgrade import HEAD_BYTES, HEADERS
from tests.hosted import hosted

pytestmark = pytest.mark.anyio

WITHIN = 20.0
SHORT = 0.5
GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"x" * 4096


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


class Desk:
    """An app that answers with the path, the body and the headers; some paths do more."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        """Lets the requests for /held be answered."""
        self.most = 0
        """Requests that waited behind one another, at most."""
        self.answers = 0
        self.kept = 0
        """Bytes that a connection kept, at most."""
        self.cut = 0
        """Requests whose client had gone."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return

        self.most = max(self.most, *(len(each.pipeline) for each in connections))
        self.kept = max(self.kept, *(len(each._held) for each in connections))
        if scope["path"] == "/held":
            await self.held.wait()

        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 200})

        body, more = b"", scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cut += 1
                return

            body, more = body + message["body"], message["more_body"] or scope["path"] == "/stay"

        self.answers += 1
        names = b",".join(name for name, _ in scope["headers"])
        said = b"%b %b %d %b;" % (scope["method"].encode(), scope["raw_path"], len(body), names)
        length = [(b"content-length", b"%d" % len(said))]
        if scope["path"] != "/early":
            await send({"type": "http.response.start", "status": 200, "headers": length})

        await send({"type": "http.response.body", "body": said})


connections: list[HardenedHttp] = []
pieces: list[int] = []
"""How many were parsed in each turn."""


class Watched(HardenedHttp):
    """The class, whose connections the tests look at."""

    def go_on(self) -> None:
        """Begin to count the pieces of a turn."""
        pieces.append(0)
        super().go_on()

    def _parse(self, piece: memoryview) -> None:
        pieces[-1] += 1
        super()._parse(piece)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection."""
        connections.append(self)
        super().connection_made(transport)


async def done() -> None:
    """Do nothing more."""


async def until(check: Callable[[], bool]) -> None:
    """Let the server go on until it is so."""
    while not check():
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The app."""
    connections.clear()
    pieces.clear()
    monkeypatch.setattr(http, "HEAD_WITHIN", SHORT)
    monkeypatch.setattr(http, "FLUSH_WITHIN", SHORT)
    return Desk()


@pytest.fixture
async def ask(desk: Desk) -> AsyncIterator[Callable[..., Any]]:
    """Send bytes over a connection, in these parts; return all that comes until its end."""
    config = {"http": Watched, "ws": LeanWebSocket, "timeout_graceful_shutdown": 1}
    config["timeout_keep_alive"] = 1
    async with hosted(desk, lifespan="off", **config) as port:

        async def asked(*parts: bytes, then: Callable[[], Awaitable[object]] = done) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with anyio.fail_after(WITHIN):
                for part in parts:
                    writer.write(part)
                    await asyncio.sleep(0)

                await then()
                try:
                    return await reader.read()
                finally:
                    writer.close()

        yield asked


def statuses(answer: bytes) -> list[bytes]:
    """Return the statuses of the answers, in order."""
    return [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


Ask = Callable[..., Any]


async def test_requests_that_come_at_once_are_answered_in_order(ask: Ask) -> None:
    answer = await ask(b"".join(GET % number for number in range(5)) + LAST)
    assert statuses(answer) == [b"200"] * 6
    places = [answer.index(b"GET /%b " % name) for name in (b"0", b"1", b"2", b"3", b"4", b"last")]
    assert all(one < other for one, other in pairwise(places))


async def test_few_of_many_requests_that_come_at_once_begin_before_they_are_due(
    ask: Ask, desk: Desk
) -> None:
    answer = await ask(b"".join(GET % number for number in range(1000)) + LAST)
    assert statuses(answer) == [b"200"] * 1001
    assert 0 < desk.most <= PIECE // len(GET)


async def test_what_waits_behind_a_request_is_not_read(ask: Ask, desk: Desk) -> None:
    held = GET.replace(b"/%d", b"/held")

    async def release() -> None:
        await until(lambda: bool(connections) and not connections[0].transport.is_reading())
        desk.held.set()

    big = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    answer = await ask(held, big + LAST, then=release)
    assert statuses(answer) == [b"200"] * 3
    assert b"POST /body 300000 " in answer


@pytest.mark.parametrize("size", [0, 1, PIECE, 65_536, 65_537, 500_000])
async def test_a_body_of_any_size_comes_whole(ask: Ask, size: int) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    answer = await ask(head + b"x" * size + LAST)
    assert statuses(answer) == [b"200", b"200"]
    assert b"POST /body %d " % size in answer


async def test_a_large_body_lets_others_have_their_turn(ask: Ask) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"
    assert statuses(await ask(head + b"x" * 500_000 + LAST)) == [b"200", b"200"]
    assert max(pieces) == PIECES


async def test_the_rest_of_a_body_that_nobody_wants_lets_others_have_their_turn(ask: Ask) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"
    assert statuses(await ask(head + b"x" * 500_000 + LAST)) == [b"200", b"200"]
    assert max(pieces) == PIECES


@pytest.mark.parametrize("offered", [b"h2c", b"websockets", b"TLS/1.0, h2c"])
async def test_an_offer_of_another_protocol_changes_nothing(ask: Ask, offered: bytes) -> None:
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMA\r\n" % offered
    )
    post = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n%b\r\nhello" % offer
    answer = await ask(post + post[:-2], post[-2:] + LAST)
    assert statuses(answer) == [b"200"] * 3
    assert answer.count(b"POST /body 5 ") == 2


async def test_an_upgrade_behind_a_request_that_is_not_answered_is_not_taken(
    ask: Ask, desk: Desk
) -> None:
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    async def release() -> None:
        await until(lambda: bool(connections) and connections[0].cycle is not None)
        desk.held.set()

    answer = await ask(GET.replace(b"/%d", b"/held") + upgrade, then=release)
    assert statuses(answer) == [b"200"]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x00", b"what?\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_garbage_behind_a_request_does_not_take_its_answer(ask: Ask, garbage: bytes) -> None:
    assert statuses(await ask(GET % 1 + garbage))[0] == b"200"


BAD = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "another version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "a version of its own": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no path": b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absurd target": b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": CHUNKED.replace(
        b"Transfer-Encoding: chunked", b"Content-Length: 1\r\nContent-Length: 2"
    ),
    "two codings": CHUNKED.replace(b"\r\nTransfer", b"\r\nTransfer-Encoding: identity\r\nTransfer"),
    "an offer with an unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a length and chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
    + b"0\r\n\r\n",
    "an unknown coding": CHUNKED.replace(b"chunked", b"chunked, gzip") + b"0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a chunk without length": CHUNKED + b"x\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\nxx\r\n",
    "a forged trailer": CHUNKED + b"1\r\nx\r\n0\r\nnot a header\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_what_is_no_request_is_refused_once(ask: Ask, bad: bytes) -> None:
    assert statuses(await ask(bad)) == [b"400"]


TOO_MUCH = {
    "target": b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES + b"\r\n\r\n",
    "header without end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES * 2,
    "name without end": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x" * HEAD_BYTES * 2,
    "headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * HEADERS + b"\r\n",
    "empty lines": b"\r\n" * HEAD_BYTES,
}


@pytest.mark.parametrize(
    "first", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["alone", "second"]
)
@pytest.mark.parametrize("head", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_head_is_bounded(ask: Ask, first: bytes, head: bytes) -> None:
    answer = statuses(await ask(first + head))
    assert answer[: len(answer) - 1 or 1] == ([b"200"] if first else [b"431"])
    assert answer[-1] in (b"200", b"431")


async def test_a_head_within_its_bounds_is_taken(ask: Ask) -> None:
    lines = [b"X: %b\r\n" % (b"x" * 100)] * (HEADERS - 2)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"".join(lines) + b"\r\n"
    assert statuses(await ask(head)) == [b"200"]


async def test_a_trailer_is_no_header(ask: Ask) -> None:
    answer = await ask(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: me\r\n\r\n" + LAST)
    assert statuses(answer) == [b"200", b"200"]
    assert b"POST /body 1 host,transfer-encoding;" in answer


@pytest.mark.parametrize(
    "behind",
    [b"1\r\nx\r\n0\r\nX: " + b"x" * HEAD_BYTES * 2, b"1;" + b"x" * HEAD_BYTES * 2],
    ids=["trailer", "extension"],
)
async def test_what_is_kept_of_a_body_without_end_is_bounded(
    ask: Ask, desk: Desk, behind: bytes
) -> None:
    assert statuses(await ask(CHUNKED + behind)) == [b"431"]
    assert desk.cut == 1


async def test_a_body_that_nobody_reads_may_go_on_for_a_while_only(ask: Ask, desk: Desk) -> None:
    unread = CHUNKED.replace(b"/body", b"/unread") + b"%x\r\n" % 2**40 + ENDLESS
    began = anyio.current_time()
    assert statuses(await ask(unread)) == [b"200"]
    assert SHORT <= anyio.current_time() - began < 4 * SHORT


async def test_who_reads_the_answer_to_an_unread_body_may_ask_again(ask: Ask) -> None:
    unread = CHUNKED.replace(b"/body", b"/unread")
    assert statuses(await ask(unread, b"1\r\nx\r\n0\r\n\r\n" + LAST)) == [b"200", b"200"]


READ = 256 * 1024
"""Bytes that a transport reads at once."""


@pytest.mark.parametrize(
    "request_", [GET % 1, CHUNKED + b"1\r\nx\r\n0\r\n\r\n"], ids=["get", "post"]
)
async def test_of_a_flood_of_requests_one_read_is_kept(
    ask: Ask, desk: Desk, request_: bytes
) -> None:
    count = 2_000_000 // len(request_)

    async def enough() -> None:
        await until(lambda: desk.answers > 200)
        connections[0].transport.abort()

    with pytest.raises(ConnectionResetError):
        await ask(request_ * count, then=enough)

    assert 0 < desk.kept <= READ


async def test_a_head_is_not_refused_before_the_answer_that_is_due(ask: Ask, desk: Desk) -> None:
    async def release() -> None:
        asyncio.get_running_loop().call_later(2 * SHORT, desk.held.set)

    answer = await ask(GET.replace(b"/%d", b"/held"), b"GET / HT", then=release)
    assert statuses(answer) == [b"200", b"408"]


@pytest.mark.parametrize("rest", [b"\r\n", b"\r\n" * 99])
async def test_empty_lines_keep_no_connection_alive(ask: Ask, rest: bytes) -> None:
    assert statuses(await ask(GET % 1, rest)) == [b"200"]


async def test_a_head_behind_the_end_of_a_body_has_no_more_time_than_others(ask: Ask) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    assert statuses(await ask(head, b"helloGET / HT")) == [b"200", b"408"]


async def test_an_app_learns_that_its_client_has_gone_whatever_came_behind(
    ask: Ask, desk: Desk
) -> None:
    async def leave() -> None:
        await until(lambda: bool(connections) and bool(connections[0].pipeline))
        connections[0].transport.abort()

    assert await ask(GET.replace(b"/%d", b"/stay") + GET % 1, then=leave) == b""
    await until(lambda: desk.cut == 1)


async def test_a_bad_body_that_was_to_be_asked_for_is_refused_once(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert statuses(await ask(head + b"x\r\n")) == [b"400"]
    assert not caplog.records


async def test_an_answer_that_has_begun_is_cut_not_refused(ask: Ask) -> None:
    answer = await ask(CHUNKED.replace(b"/body", b"/early"), then=begun)
    assert statuses(answer) == [b"200"]


async def begun() -> None:
    """Let an answer begin, and then break the body."""
    await until(lambda: bool(connections) and connections[0].cycle is not None)
    await until(lambda: connections[0].cycle.response_started)
    connections[0].data_received(b"x\r\n")


async def test_a_body_is_not_waited_for_when_the_server_stops(
    ask: Ask, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async def stop() -> None:
        await until(lambda: bool(connections) and connections[0].cycle is not None)
        connections[0].shutdown()

    assert statuses(await ask(CHUNKED + b"1\r\nx\r\n", then=stop)) == [b"503"]
    assert desk.cut == 1
    assert not caplog.records


async def test_a_bug_in_the_class_is_no_bad_request(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: HardenedHttp) -> None:
        raise RuntimeError("canary")

    loop, told = asyncio.get_running_loop(), list[str]()
    before = loop.get_exception_handler()
    monkeypatch.setattr(HardenedHttp, "_check_head", broken)
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    try:
        assert await ask(GET % 1) == b""
    finally:
        loop.set_exception_handler(before)

    assert told == ["canary"]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places=st.sets(st.integers(1, 400), max_size=12))
def test_it_is_the_same_however_it_comes_in_pieces(places: set[int]) -> None:
    async def run() -> None:
        connections.clear()
        post = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        whole = GET % 1 + post + CHUNKED + b"3\r\nabc\r\n0\r\nT: 1\r\n\r\n" + GET % 2 + LAST
        cuts = [0, *sorted(place for place in places if place < len(whole)), len(whole)]
        async with hosted(Desk(), lifespan="off", http=Watched, ws=LeanWebSocket) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for begin, end in pairwise(cuts):
                writer.write(whole[begin:end])
                await asyncio.sleep(0)

            answer = await reader.read()
            writer.close()

        assert statuses(answer) == [b"200"] * 5
        assert [*map(answer.count, (b"POST /body 5 ", b"POST /body 3 "))] == [1, 1]

    asyncio.run(run())
