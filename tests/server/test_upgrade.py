"""The head of an upgrade without a socket; e2e/test_handshake.py has every variation of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.upgrade import (
    HEAD_BYTES,
    HEADERS,
    BadUpgrade,
    HeadReader,
    Upgrade,
    asks_for_websocket,
    denial_head,
    phrase,
    refusal,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
LINES = (
    "GET /a%20b?c=%64 HTTP/1.1",
    "Host: x",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


def head(*more: str) -> bytes:
    """Return an upgrade with these lines added."""
    return "\r\n".join([*LINES, *more, "", ""]).encode("latin-1")


def upgrade(*more: str) -> Upgrade:
    """Return an upgrade that has its head."""
    request = HeadReader().receive(head(*more))
    assert request is not None
    return Upgrade(request)


def status_of(data: bytes) -> int:
    """Return the status with which bytes are refused, 0 if they are not."""
    try:
        if (request := HeadReader().receive(data)) is not None:
            Upgrade(request)
    except BadUpgrade as bad:
        return bad.status

    return 0


def scope(**base: Any) -> dict[str, Any]:
    """Return what the example is to an application."""
    more = ("X-Twice: 1", "x-twice: 2", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol:c,")
    return upgrade(*more).scope({"root_path": ""} | base)


def test_a_head_becomes_a_scope() -> None:
    found = scope(client=("h", 1))
    assert found["type"] == "websocket"
    assert (found["path"], found["raw_path"]) == ("/a b", b"/a%20b")
    assert (found["query_string"], found["http_version"]) == (b"c=%64", "1.1")
    assert found["subprotocols"] == ["a", "b", "c"]
    assert found["client"] == ("h", 1)
    values = [value for name, value in found["headers"] if name == b"x-twice"]
    assert values == [b"1", b"2"]


def test_a_root_path_stands_before_the_path() -> None:
    found = scope(root_path="/root")
    assert (found["path"], found["raw_path"]) == ("/root/a b", b"/root/a%20b")


@given(st.sets(st.integers(1, len(head()) - 1)))
def test_a_head_may_come_in_any_pieces(places: set[int]) -> None:
    data, begun = head(), HeadReader()
    pieces = [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]
    *early, last = [begun.receive(piece) for piece in pieces]
    assert not any(early)
    assert last == HeadReader().receive(data)
    assert last is not None


@given(st.binary(max_size=400) | st.binary(max_size=50).map(lambda noise: head()[:-2] + noise))
@example(b"\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
@example(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n")
def test_any_bytes_are_a_head_a_part_of_one_or_refused(data: bytes) -> None:
    status = status_of(data)
    assert status == 0 or 400 <= status < 500


def test_what_comes_with_the_head_is_kept() -> None:
    begun = HeadReader()
    assert begun.receive(head() + b"frames")
    assert begun.trailing == b"frames"


def test_the_bounds_of_a_head_hold_to_the_byte() -> None:
    assert status_of(head(*(f"X-{n}: 1" for n in range(HEADERS - len(LINES) + 1)))) == 0
    assert status_of(head(*(f"X-{n}: 1" for n in range(HEADERS - len(LINES) + 2)))) == 431
    counted = len("/a%20b?c=%64") + sum(len(line) + 2 for line in (*LINES[1:], "X: "))
    assert status_of(head(f"X: {'x' * (HEAD_BYTES - counted)}")) == 0
    assert status_of(head(f"X: {'x' * (HEAD_BYTES - counted + 1)}")) == 431


def test_a_head_without_end_is_refused_at_its_bound() -> None:
    begun, start = HeadReader(), head()[:-2] + b"X: "
    assert not begun.receive(start)
    assert not begun.receive(b"x" * (HEAD_BYTES - len(start)))
    with pytest.raises(BadUpgrade) as bad:
        begun.receive(b"x")

    assert bad.value.status == 431


def test_the_answer_says_what_was_agreed() -> None:
    answer = upgrade().accept("chat", "x-extension", [(b"x-more", b"1")])
    lines = answer.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert b"Sec-WebSocket-Protocol: chat" in lines
    assert b"Sec-WebSocket-Extensions: x-extension" in lines
    assert b"x-more: 1" in lines


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: forged", b"a\nb", b"a\x00b"])
def test_no_value_of_an_application_can_forge_a_header(value: bytes) -> None:
    with pytest.raises(ValueError, match="control character"):
        upgrade().accept(None, None, [(b"x", value)])

    with pytest.raises(ValueError, match="control character"):
        denial_head(403, [(b"x", value)])

    with pytest.raises(ValueError, match="control character"):
        upgrade().accept(value.decode("latin-1"), None, [])


def test_a_refusal_is_a_whole_answer() -> None:
    answer = refusal(BadUpgrade(426, "why", [(b"upgrade", b"websocket")]))
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nupgrade: websocket" in top
    assert b"\r\ncontent-length: 3" in top
    assert b"\r\nconnection: close" in top
    assert body == b"why"


def test_a_status_without_words_has_none() -> None:
    assert (phrase(404), phrase(599)) == ("Not Found", "")
    assert denial_head(599, []).startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    ("version", "headers", "asks"),
    [
        (b"1.1", [(b"upgrade", b"websocket"), (b"connection", b"upgrade")], True),
        (b"1.1", [(b"upgrade", b"h2c, WebSocket"), (b"connection", b"a,Upgrade")], True),
        (b"1.0", [(b"upgrade", b"websocket"), (b"connection", b"upgrade")], False),
        (b"1.1", [(b"upgrade", b"websocket")], False),
        (b"1.1", [(b"connection", b"upgrade")], False),
        (b"1.1", [(b"upgrade", b"websocket/13"), (b"connection", b"upgrade")], False),
        (b"1.1", [], False),
    ],
)
def test_an_upgrade_is_asked_for_in_two_headers_of_http_1_1(
    version: bytes, headers: list[tuple[bytes, bytes]], asks: bool
) -> None:
    assert asks_for_websocket(version, headers) == asks
