"""What the fronts share: the query, the token, the first bytes, and what fits a close frame."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.websockets import WebSocket

from actors.commands import Start
from actors.errors import Close, Refused
from server.fronts.containers import container_of
from server.fronts.credential import Place, credential
from server.fronts.opening import SNIFF, Opening
from server.fronts.query import Query
from server.fronts.translator import fit, read_object

HEADS = {
    "webm": b"\x1a\x45\xdf\xa3" + bytes(8),
    "ogg": b"OggS" + bytes(8),
    "flac": b"fLaC" + bytes(8),
    "wav": b"RIFF\x00\x00\x00\x00WAVE",
}


def asking(
    query: str = "", offered: tuple[str, ...] = (), authorization: str | None = None
) -> WebSocket:
    """Make a request to upgrade."""
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/",
        "query_string": query.encode(),
        "headers": headers,
        "subprotocols": list(offered),
    }

    async def nothing(*_: object) -> Any:
        raise AssertionError("nobody waits for this socket")

    return WebSocket(scope, nothing, nothing)


@pytest.mark.parametrize(
    ("websocket", "places", "token", "subprotocol"),
    [
        (asking(authorization="Token X"), ("header",), "X", None),
        (asking(authorization="bearer  X "), ("header",), "X", None),
        (asking(offered=("token", "X")), ("header", "subprotocol"), "X", "token"),
        (asking(offered=("bearer", "X", "session", "1")), ("subprotocol",), "X", "bearer"),
        (asking(offered=("session", "1", "token", "X")), ("subprotocol",), "X", "token"),
        (asking("access_token=X%26"), ("query",), "X&", None),
    ],
)
def test_a_token_is_found_where_the_vendor_has_it(
    websocket: WebSocket, places: tuple[Place, ...], token: str, subprotocol: str | None
) -> None:
    found = credential(websocket, *places)
    assert (found.token, found.subprotocol) == (token, subprotocol)
    assert token not in repr(found).replace("Credential", "")


@pytest.mark.parametrize(
    "websocket",
    [
        asking(),
        asking(authorization=""),
        asking(authorization="Token"),
        asking(authorization="Token "),
        asking(authorization="Basic X"),
        asking(offered=("token",)),
        asking(offered=("X", "token")),
        asking("access_token="),
        asking("token=X"),
    ],
)
def test_without_a_token_it_is_refused(websocket: WebSocket) -> None:
    with pytest.raises(Refused) as refusal:
        credential(websocket, "header", "subprotocol", "query")

    assert (refusal.value.code, refusal.value.status) == ("unauthorized", 401)


def test_a_token_in_another_vendors_place_does_not_count() -> None:
    with pytest.raises(Refused):
        credential(asking("access_token=X", ("token", "X"), "Token X"))

    with pytest.raises(Refused):
        credential(asking(offered=("token", "X"), authorization="Token X"), "query")


def test_a_query_reads_what_is_there_and_has_defaults_for_the_rest() -> None:
    query = Query({"a": "x", "yes": "TRUE", "no": "false", "n": "7", "f": "1.5", "empty": ""})
    assert (query.text("a"), query.text("b", "y"), query.text("empty", "z")) == ("x", "y", "z")
    assert (query.flag("yes"), query.flag("no", True), query.flag("b")) == (True, False, False)
    assert (query.whole("n", 1, range(9)), query.whole("b", 1, range(9))) == (7, 1)
    assert (query.number("f"), query.number("b")) == (1.5, 0.0)
    assert ("a" in query, "b" in query, "empty" in query) == (True, False, False)
    assert (Query({"room": "r"}).room("x"), query.room("x:1")) == ("r", "x:1")


@pytest.mark.parametrize("value", ["x", "-1", "1e3", "0x1", "٣", " 1", "1_0", "9" * 5000, "10"])
def test_a_wrong_number_is_refused_by_the_name_of_its_parameter(value: str) -> None:
    with pytest.raises(Refused, match="the parameter n must be a whole number from 0 to 8"):
        Query({"n": value}).whole("n", 0, range(9))

    if value != "10":
        with pytest.raises(Refused, match="the parameter n must be a number"):
            Query({"n": value}).number("n")


def test_other_wrong_values_are_refused_and_not_repeated() -> None:
    for reader in (Query.flag, Query.text):
        with pytest.raises(Refused) as refusal:
            reader(Query({"n": "secret" * 20}), "n")

        assert refusal.value.field == "n"
        assert "secret" not in str(refusal.value)

    with pytest.raises(Refused) as refusal:
        Query({"room": "a b"}).room("x")

    assert refusal.value.code == "bad_room"


@pytest.mark.parametrize("container", HEADS)
def test_a_container_is_known_by_its_first_bytes_however_they_come(container: str) -> None:
    head = HEADS[container]
    assert container_of(head) == container
    held = Start(room="r", encoding=SNIFF, rate=48_000)
    for size in (1, 5, len(head), len(head) + 9):
        opening = Opening(held)
        audio = head + b"more"
        steps = [
            step
            for at in range(0, len(audio), size)
            for step in (*opening.hear(b""), *opening.hear(audio[at : at + size]))
        ]
        first, *rest = steps
        assert isinstance(first, Start)
        assert (first.encoding, first.rate, first.room) == (container, None, "r")
        assert b"".join(each for each in rest if isinstance(each, bytes)) == audio


def test_what_is_no_container_is_pcm_if_a_rate_is_known_and_nothing_otherwise() -> None:
    assert container_of(b"RIFF\x00\x00\x00\x00AVI ") is None
    known = Opening(Start(room="r", encoding=SNIFF, rate=8000))
    assert known.first is None
    assert list(known.hear(bytes(12))) == [
        Start(room="r", encoding="pcm_s16le", rate=8000),
        bytes(12),
    ]
    assert known.started
    assert list(known.hear(b"x")) == [b"x"]
    (close,) = Opening(Start(room="r", encoding=SNIFF, rate=None)).hear(bytes(12))
    assert isinstance(close, Close)
    assert close.code == 1007


def test_a_start_with_an_encoding_is_not_held() -> None:
    opening = Opening(start := Start(room="r"))
    assert opening.first == start
    assert list(opening.hear(b"x")) == [b"x"]


def test_a_reason_is_cut_between_characters() -> None:
    assert fit("short") == "short"
    assert fit("é" * 100) == "é" * 61
    assert fit("\ud800") == "?"


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '"x"', "[" * 5000, "\ud800", "1" * 5000])
def test_what_is_no_object_is_none(text: str) -> None:
    assert read_object(text) is None
