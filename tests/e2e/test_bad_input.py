"""Whatever a client sends is answered and counted, and never stops the server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.clients import Client, client
from tests.e2e.conftest import Serve
from tests.servers import Server

pytestmark = pytest.mark.anyio

LIMIT = 65_536
NESTED = "[" * 30_000 + "]" * 30_000


@pytest.fixture
async def someone(server: Server) -> AsyncIterator[Client]:
    """A client of /v1/connect, past its hello; it must be alive in the end."""
    async with client(f"{server.ws}/v1/connect") as connection:
        await connection.until("hello")
        yield connection
        assert (await connection.ask(type="ping", id="alive"))["type"] == "ack"


async def refusals(server: Server, code: str) -> float:
    return server.metric(f'roomcast_refusals_total{{code="{code}"}}')


BAD_TEXTS = [
    ("", "bad_message", None),
    ("{", "bad_message", None),
    ("null", "bad_message", None),
    ("[1]", "bad_message", None),
    ('"join"', "bad_message", None),
    ("{}", "bad_message", "type"),
    ('{"type":"shout"}', "bad_message", "type"),
    ('{"type":7}', "bad_message", "type"),
    ('{"type":"ping","id":[1]}', "bad_message", "id"),
    ('{"type":"ping","id":1.5}', "bad_message", "id"),
    ('{"type":"ping","loud":true}', "bad_message", "loud"),
    ('{"type":"join"}', "bad_message", "room"),
    ('{"type":"join","room":7}', "bad_message", "room"),
    ('{"type":"join","room":""}', "bad_room", "room"),
    ('{"type":"join","room":"a b"}', "bad_room", "room"),
    ('{"type":"join","room":"a/b"}', "bad_room", "room"),
    ('{"type":"join","room":"a\\n"}', "bad_room", "room"),
    ('{"type":"join","room":"\u0430"}', "bad_room", "room"),
    ('{"type":"join","room":"' + "a" * 129 + '"}', "bad_room", "room"),
    ('{"type":"join","room":"a","history":-1}', "bad_message", "history"),
    ('{"type":"join","room":"a","history":301}', "limit_exceeded", "history"),
    ('{"type":"join","room":"a","partials":"no"}', "bad_message", "partials"),
    ('{"type":"join","room":"a","since":"1"}', "bad_since", "since"),
    ('{"type":"join","room":"a","since":"e:-1"}', "bad_since", "since"),
    ('{"type":"join","room":"a","since":"e:1\\n"}', "bad_since", "since"),
    ('{"type":"join","room":"a","since":"e:99999999999999999999"}', "bad_since", "since"),
    ('{"type":"leave","room":"a"}', "not_joined", "room"),
    ('{"type":"publish","room":"a"}', "bad_message", "data"),
    ('{"type":"publish","room":"a","data":1e999}', "bad_message", "data"),
    (
        '{"type":"publish","room":"a","data":' + "[" * 30_000 + "]" * 30_000 + "}",
        "bad_message",
        None,
    ),
    ('{"type":"start","room":"a","engine":"nobody"}', "unknown_engine", "engine"),
    ('{"type":"start","room":"a","encoding":"mp3"}', "unsupported_audio", "encoding"),
    ('{"type":"start","room":"a","rate":12345}', "unsupported_audio", "rate"),
    ('{"type":"start","room":"a","rate":"16000"}', "bad_message", "rate"),
    ('{"type":"start","room":"a","channels":9}', "unsupported_audio", "channels"),
    ('{"type":"start","room":"a","name":"' + "n" * 65 + '"}', "bad_message", "name"),
    ('{"type":"stop"}', "not_started", None),
    ('{"type":"refresh","token":"x"}', "no_token", "token"),
]


@pytest.mark.parametrize(("text", "code", "field"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
async def test_a_bad_command_is_answered_with_its_field(
    server: Server, someone: Client, text: str, code: str, field: str | None
) -> None:
    before = await refusals(server, code)
    await someone.socket.send(text)
    error = await someone.until("error")
    assert (error["code"], error.get("field")) == (code, field)
    assert error["message"]
    assert await refusals(server, code) == before + 1


async def test_an_error_carries_the_id_of_its_command(someone: Client) -> None:
    error = await someone.ask(type="join", id="mine", room=7)
    assert (error["type"], error["field"]) == ("error", "room")
    error = await someone.ask(type="stop", id=99)
    assert error["code"] == "not_started"


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x93\x01", b"\x81\xa4type\xa4nope", b"\x05"])
async def test_malformed_messagepack_is_answered(server: Server, data: bytes) -> None:
    async with client(f"{server.ws}/v1/connect", "msgpack") as packed:
        await packed.until("hello")
        await packed.socket.send(data)
        assert (await packed.until("error"))["code"] == "bad_message"
        assert (await packed.ask(type="ping", id=1))["type"] == "ack"


async def test_messagepack_that_has_no_json_form_is_answered(server: Server) -> None:
    async with client(f"{server.ws}/v1/connect", "msgpack") as packed:
        error = await packed.ask(type="publish", id=1, room="a", data=msgspec.msgpack.Ext(5, b"x"))
        assert (error["code"], error["field"]) == ("bad_message", "data")


async def test_an_empty_audio_frame_is_an_error_and_not_the_end(someone: Client) -> None:
    await someone.ask(type="start", id=1, room="empty", engine="echo")
    await someone.socket.send(b"")
    assert (await someone.until("error"))["code"] == "bad_message"
    await someone.audio(bytes(32_000))
    assert (await someone.ask(type="stop", id=2))["type"] == "ack"


async def test_text_where_audio_is_due_is_an_error_and_the_audio_goes_on(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/mixed/listen?partials=false") as listener,
        client(f"{server.ws}/v1/rooms/mixed/speak?engine=echo") as speaker,
    ):
        await listener.until("joined")
        await speaker.audio(bytes(16_000))
        await speaker.socket.send("these are not samples")
        assert (await speaker.until("error"))["code"] == "bad_message"
        await speaker.audio(bytes(16_000))
        await speaker.send(type="stop")
        assert [final["text"] for final in await listener.finals(1)] == ["echo 1"]


async def test_audio_before_start_is_held_within_a_bound(server: Server, someone: Client) -> None:
    before = server.metric('roomcast_channel_dropped_total{channel="ingress"}')
    frame = bytes(1000)
    for _ in range(40):
        await someone.socket.send(frame)

    assert (await someone.until("speech"))["state"] == "waiting"
    error = await someone.until("error")
    assert (error["code"], error["setting"]) == ("audio_before_start", "limits.ingress")
    ack = await someone.ask(type="start", id=1, room="early", engine="echo", rate=8000)
    await someone.ask(type="stop", id=2)
    ended = next(e for e in someone.events if e["type"] == "speech" and e["state"] == "ended")
    assert (ended["session"], ended["received"]) == (ack["session"], 32_000)
    assert server.metric('roomcast_channel_dropped_total{channel="ingress"}') == before + 8


async def test_a_second_start_is_refused_and_the_first_goes_on(someone: Client) -> None:
    await someone.ask(type="start", id=1, room="twice", engine="echo")
    assert (await someone.ask(type="start", id=2, room="twice"))["code"] == "already_started"
    await someone.audio(bytes(32_000))
    assert (await someone.ask(type="stop", id=3))["type"] == "ack"
    assert (await someone.ask(type="start", id=4, room="twice", engine="echo"))["type"] == "ack"
    assert (await someone.ask(type="stop", id=5))["type"] == "ack"


async def test_joining_twice_and_too_many_rooms_are_refused(someone: Client) -> None:
    for n in range(64):
        assert (await someone.ask(type="join", id=n, room=f"many{n}"))["type"] == "joined"

    assert (await someone.ask(type="join", id="x", room="many0"))["code"] == "already_joined"
    error = await someone.ask(type="join", id="y", room="many64")
    assert (error["code"], error["setting"]) == ("limit_exceeded", "limits.rooms_per_connection")


@pytest.mark.parametrize("message", ["x" * (LIMIT + 1), b"x" * (LIMIT + 1)])
async def test_a_frame_over_the_limit_ends_the_connection(
    server: Server, message: str | bytes
) -> None:
    before = server.metric('roomcast_disconnects_total{code="1009"}')
    async with client(f"{server.ws}/v1/connect") as someone:
        await someone.socket.send(message)
        closing = await someone.until("closing")
        assert f"{LIMIT}" in closing["message"]
        assert "limits." in closing["message"]
        assert await someone.closed() == (1009, "too_big")

    assert server.metric('roomcast_disconnects_total{code="1009"}') == before + 1


async def test_one_error_too_many_ends_the_connection(serve: Serve) -> None:
    server = serve(limits__errors_burst=3, limits__errors_per_second=0.001)
    async with client(f"{server.ws}/v1/connect") as someone:
        for _ in range(4):
            await someone.socket.send("?")

        assert await someone.closed() == (4503, "bad_message")
        assert sum(event["type"] == "error" for event in someone.events) == 4


BAD_URLS = [
    ("/v1/rooms/a%20b/listen", "bad_room", "room"),
    (f"/v1/rooms/{'a' * 129}/speak", "bad_room", "room"),
    ("/v1/rooms/a%0A/listen", "bad_room", "room"),
    ("/v1/rooms/a/listen?since=nonsense", "bad_since", "since"),
    ("/v1/rooms/a/listen?history=x", "bad_message", "history"),
    ("/v1/rooms/a/listen?history=9999", "limit_exceeded", "history"),
    ("/v1/rooms/a/listen?partials=maybe", "bad_message", "partials"),
    ("/v1/rooms/a/speak?engine=nobody", "unknown_engine", "engine"),
    ("/v1/rooms/a/speak?encoding=mp3", "unsupported_audio", "encoding"),
    ("/v1/rooms/a/speak?rate=fast", "bad_message", "rate"),
    ("/v1/rooms/a/speak?rate=12345", "unsupported_audio", "rate"),
    ("/v1/rooms/a/speak?channels=3", "unsupported_audio", "channels"),
]


@pytest.mark.parametrize(("path", "code", "field"), BAD_URLS)
async def test_a_bad_address_is_refused_before_the_upgrade(
    server: Server, path: str, code: str, field: str
) -> None:
    before = await refusals(server, code)
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.ws}{path}")

    problem = msgspec.json.decode(refused.value.response.body or b"")
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["field"]) == (code, field)
    assert problem["status"] == refused.value.response.status_code
    assert await refusals(server, code) == before + 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_message"),
        (b"{", 400, "bad_message"),
        (b"{}", 400, "bad_message"),
        (b'{"data":1,"more":2}', 400, "bad_message"),
        (b'{"data":"\xff"}', 400, "bad_message"),
        (b'{"data":"' + b"x" * LIMIT + b'"}', 413, "too_big"),
    ],
)
async def test_a_bad_body_is_refused(server: Server, body: bytes, status: int, code: str) -> None:
    async with httpx2.AsyncClient() as http:
        answer = await http.post(f"{server.http}/v1/rooms/a/messages", content=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_errors_of_http_are_problem_documents(server: Server) -> None:
    async with httpx2.AsyncClient() as http:
        for method, path, status, code in (
            ("GET", "/nothing", 404, "not_found"),
            ("GET", "/v1/rooms/a/messages", 405, "method_not_allowed"),
            ("POST", "/v1/rooms/a%20b/messages", 400, "bad_room"),
            ("GET", "/v1/rooms/", 404, "not_found"),
            ("GET", "/v1/connect", 426, "upgrade_required"),
            ("GET", "/v1/rooms/a/listen", 426, "upgrade_required"),
            ("POST", "/v1/listen", 426, "upgrade_required"),
        ):
            answer = await http.request(method, f"{server.http}{path}", json={"data": 1})
            assert (answer.status_code, answer.json()["code"]) == (status, code)


def exchange(server: Server, request: bytes) -> bytes:
    """Send raw bytes and read the answer to its end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
        answer = bytearray()
        try:
            sock.sendall(request)
            while data := sock.recv(65536):
                answer += data
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server may hang up before it has read all of it

        return bytes(answer)


UPGRADE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def test_a_megabyte_of_headers_is_refused(server: Server) -> None:
    many = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(1000))
    exchange(server, UPGRADE + many + b"\r\n")
    exchange(server, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n")
    async with client(f"{server.ws}/v1/connect") as someone:
        assert (await someone.ask(type="ping", id=1))["type"] == "ack"


async def test_an_upgrade_with_hundreds_of_headers_is_answered(server: Server) -> None:
    answer = exchange(server, UPGRADE + b"".join(b"X-%d: 1\r\n" % n for n in range(300)) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 4")


def converse(server: Server, *frames: bytes) -> bytes:
    """Upgrade, wait for the answer, send raw frames, and read to the end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
        sock.sendall(UPGRADE + b"\r\n")
        answer = bytearray()
        while b"hello" not in answer:
            answer += sock.recv(65536)

        sock.sendall(b"".join(frames))
        while data := sock.recv(65536):
            answer += data

        return bytes(answer)


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x81\x82\0\0\0\0\xff\xff", 1007), (b"\x81\x02hi", 1002), (b"\xb1\x80\0\0\0\0", 1002)],
)
async def test_a_broken_frame_ends_only_its_own_connection(
    server: Server, frame: bytes, code: int
) -> None:
    answer = converse(server, frame)
    assert answer[answer.rindex(b"\x88") + 2 :][:2] == code.to_bytes(2, "big")
    async with client(f"{server.ws}/v1/connect") as someone:
        assert (await someone.ask(type="ping", id=1))["type"] == "ack"


async def test_a_message_after_the_close_is_ignored(server: Server) -> None:
    close, ping = b"\x88\x82\0\0\0\0\x03\xe8", b'{"type":"ping","id":1}'
    masked = bytes((0x81, 0x80 | len(ping), 0, 0, 0, 0)) + ping
    assert b'"ack"' not in converse(server, close, masked)


async def test_no_room_and_no_name_becomes_a_label(server: Server) -> None:
    async with client(f"{server.ws}/v1/rooms/secret-room/speak?engine=echo&name=Nosy") as speaker:
        await speaker.audio(bytes(32_000))
        await speaker.send(type="stop")
        await speaker.closed()

    async with httpx2.AsyncClient() as http:
        metrics = (await http.get(f"{server.http}/metrics")).text

    assert "roomcast_deliveries_total" in metrics
    assert "secret-room" not in metrics
    assert "Nosy" not in metrics
