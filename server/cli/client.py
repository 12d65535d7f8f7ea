"""The commands' way to a server: addresses, connections, and what went wrong in plain words."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from actors.errors import GONE, Close
from actors.messages import AnyEvent, Closing
from server.cli.options import SCHEMES, Bad, Failed, Unreachable, place, read_url
from server.cli.terminal import printable
from server.settings import TOKEN_VARIABLE

decode_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
BRING_A_TOKEN = f"put one into the environment variable {TOKEN_VARIABLE}"
CUT = "it is no Roomcast server, or takes nothing from this address for a while (limits.arrivals)"
OPEN_WITHIN = 10.0
"""Seconds a server may take to answer."""
CLOSE_WITHIN = 1.0
"""Seconds a server may take to close; nobody who presses Ctrl-C waits for a frozen one."""


class Ended(Exception):
    """The server closed the connection, or it broke; the text says it in a sentence."""

    def __init__(self, close: Close, pause: float = 0.0) -> None:
        if close.code == GONE.code:
            super().__init__("the connection to the server broke")
        else:
            super().__init__(f"the server ended it: {printable(close.message or close.reason)}")

        self.close = close
        self.pause = pause
        """Seconds over which the server wants its clients to come back."""


def room_url(base: str, room: str, surface: str, query: dict[str, Any] | None = None) -> str:
    """Return the address of a room's WebSocket on a server. Raises Bad."""
    parts = read_url(base)

    # Not every argument of a command is UTF-8; the server says what is wrong with such a name.
    path = f"{parts.path.rstrip('/')}/v1/rooms/{quote(os.fsencode(room), safe='')}/{surface}"
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return urlunsplit(
        (SCHEMES[parts.scheme], parts.netloc, path, urlencode(given, errors="replace"), "")
    )


async def open_socket(url: str) -> ClientConnection:
    """Connect, with the token of the environment if there is one.

    Raises Unreachable, or Failed with the server's own reason.
    """
    where, token = place(urlsplit(url)), os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise Bad(f"{TOKEN_VARIABLE} holds no token")

    try:
        return await connect(
            url,
            compression=None,
            proxy=None,
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            open_timeout=OPEN_WITHIN,
            close_timeout=CLOSE_WITHIN,
        )
    except InvalidStatus as refused:
        status, reason = refused.response.status_code, read_problem(refused.response.body)
        if status in (429, 503):
            raise Unreachable(f"{where} takes no connections now: {reason}") from None

        hint = "" if token or status != HTTPStatus.UNAUTHORIZED else f"; {BRING_A_TOKEN}"
        raise Failed(f"{where} refused with status {status}: {reason}{hint}") from None
    except ssl.SSLError as error:
        raise Failed(f"{where} does not speak TLS as it should: {error.reason}") from None
    except (OSError, TimeoutError):
        raise Unreachable.at(where) from None
    except InvalidMessage as error:
        if isinstance(error.__cause__, EOFError):
            raise Unreachable(f"{where} hung up without an answer; {CUT}") from None

        raise Failed(f"{where} is not a Roomcast server: {printable(str(error))}") from None
    except (InvalidHandshake, InvalidURI, ValueError) as error:
        raise Failed(f"{where} is not a Roomcast server: {printable(str(error))}") from None


async def events(socket: ClientConnection) -> AsyncIterator[AnyEvent]:
    """Yield events until the server closes; those of a kind not known here are left out.

    Raises Ended, or Failed if it is no Roomcast server.
    """
    closing: Closing | None = None
    try:
        while True:
            event = _decode(await socket.recv())
            if isinstance(event, Closing):
                closing = event

            if event is not None:
                yield event
    except ConnectionClosed as closed:
        raise _ended(closed, closing) from None


def _decode(data: str | bytes) -> AnyEvent | None:
    try:
        return decode_event.decode(data)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Failed("this is not a Roomcast server: it sends no events") from None


def _ended(closed: ConnectionClosed, closing: Closing | None) -> Ended:
    frame = closed.rcvd
    if frame is None:
        return Ended(GONE)

    if closing is None:
        return Ended(Close(frame.code, frame.reason or f"code {frame.code}"))

    after = closing.retry_after if isinstance(closing.retry_after, float) else 0.0
    close = Close(frame.code, frame.reason, closing.message, retry_after=after)
    return Ended(close, closing.reconnect_ms / 1000)


def read_problem(body: bytes | bytearray | None) -> str:
    """Read the sentence in a problem document."""
    try:
        problem = msgspec.json.decode(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = None

    if not isinstance(problem, dict) or "detail" not in problem:
        return "it gives no reason; is it a Roomcast server?"

    detail, field = printable(str(problem["detail"])), printable(str(problem.get("field", "")))
    return detail if field in detail else f"{field}: {detail}"
