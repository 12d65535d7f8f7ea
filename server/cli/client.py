"""The commands' way to a server: addresses, connections, and what went wrong in plain words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from actors.errors import Close
from actors.messages import AnyEvent
from server.cli.options import Failed

decode_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
OPEN_WITHIN = 10.0
"""Seconds a server may take to answer."""


class Unreachable(Failed):
    """No server answers; trying again may help."""


class Ended(Exception):
    """The server closed the connection."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


def socket_url(base: str, path: str, query: dict[str, Any] | None = None) -> str:
    """Turn the address of a server into that of one of its WebSockets. Raises Failed."""
    parts = urlsplit(base)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise Failed(f"{base} is not the address of a server, like http://127.0.0.1:8000")

    given = {name: value for name, value in (query or {}).items() if value is not None}
    return urlunsplit(
        (schemes[parts.scheme], parts.netloc, parts.path.rstrip("/") + path, urlencode(given), "")
    )


async def open_socket(url: str) -> ClientConnection:
    """Connect, or raise Unreachable, or Failed with the server's own reason."""
    where = urlsplit(url).netloc
    try:
        return await connect(
            url, subprotocols=None, compression=None, open_timeout=OPEN_WITHIN, proxy=None
        )
    except InvalidStatus as refused:
        if refused.response.status_code == 503:
            raise Unreachable(f"{where} is not taking connections now") from None

        raise Failed(f"{where} refused: {read_problem(refused.response.body)}") from None
    except (OSError, TimeoutError):
        raise Unreachable(
            f"no server answers at {where}; `roomcast serve --dev` starts one"
        ) from None
    except (InvalidHandshake, InvalidURI) as error:
        raise Failed(f"{where} is not a Roomcast server: {error}") from None


async def events(socket: ClientConnection) -> AsyncIterator[AnyEvent]:
    """Yield events until the server closes. Raises Ended."""
    try:
        while True:
            yield decode_event.decode(await socket.recv())
    except ConnectionClosed as closed:
        frame = closed.rcvd
        code, reason = (frame.code, frame.reason) if frame else (1006, "gone")
        raise Ended(Close(code, reason)) from None


def read_problem(body: bytes | bytearray | None) -> str:
    """Read the sentence in a problem document."""
    try:
        problem = msgspec.json.decode(body or b"{}")
    except msgspec.DecodeError:
        problem = {}

    detail = problem.get("detail", "no reason given") if isinstance(problem, dict) else ""
    return f"{problem['field']}: {detail}" if problem.get("field") else str(detail)
