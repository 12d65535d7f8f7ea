"""The first message of a client that can send no header: it brings the token.

Until then there is a socket and its task, and nothing in `actors/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import anyio
import msgspec
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from actors.commands import Command
from actors.errors import AUTH_TIMEOUT, Close, Refused, SessionEnd, ending
from actors.messages import AnyEvent
from actors.refusals import error_of, goodbye
from actors.wire import Codec, Frame
from server.auth import credentials_of
from server.tokens import LENGTH

FIRST = b"auth=message"
"""Stands in the query of who brings the token in the first message."""
WANTED = 'the first message must be {"type": "auth", "token": "..."}'
TOLD_WITHIN = 5.0
"""Seconds for a peer that is turned away to take the reason."""


class Auth(Command, frozen=True, kw_only=True):
    """Say who one is; the first message, and no other."""

    token: Annotated[str, msgspec.Meta(max_length=LENGTH)]

    def __repr__(self) -> str:
        """Keep the secret."""
        return f"Auth(id={self.id!r})"


_from_json, _from_msgpack = msgspec.json.Decoder(Auth), msgspec.msgpack.Decoder(Auth)


def brings_token_later(scope: Scope) -> bool:
    """Say whether a request has no credential, and asks to send one as its first message."""
    if FIRST not in scope["query_string"].split(b"&"):
        return False

    brought = credentials_of(scope)
    return brought.token is None and brought.ticket is None


class Newcomers:
    """Connections that were accepted and have yet to say who they are, up to a number."""

    def __init__(self, most: int, within: float) -> None:
        """Give each of `most` at a time `within` seconds."""
        self._most, self._within = most, within
        self.count = 0
        """Connections that wait to be known."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the length of a block. Raises Refused("overload")."""
        if self.count >= self._most:
            message = f"{self._most} connections wait to send their token"
            raise Refused("overload", message, setting="limits.unauthenticated", retry_after=1.0)

        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    async def hear(self, websocket: WebSocket, codec: Codec) -> Auth:
        """Return the first message of an accepted connection.

        Raises Refused("unauthorized"), SessionEnd(AUTH_TIMEOUT) or WebSocketDisconnect.
        """
        with anyio.move_on_after(self._within):
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1006)

            text = message.get("text")
            return read_auth(message["bytes"] if text is None else text, codec)

        raise SessionEnd(
            AUTH_TIMEOUT.because(f"no token came within {self._within:g} s (limits.auth_within)")
        )


def read_auth(data: str | bytes, codec: Codec) -> Auth:
    """Read the first message. Raises Refused("unauthorized"), and repeats nothing of it."""
    try:
        if isinstance(data, str):
            return _from_json.decode(data)

        if codec == "msgpack":
            return _from_msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        pass  # it is told what was wanted, whatever it sent

    raise Refused("unauthorized", WANTED)


async def turn_away(
    websocket: WebSocket, codec: Codec, why: Refused | SessionEnd, reconnect_ms: int
) -> None:
    """End an accepted connection that nobody knows, saying why."""
    if isinstance(why, Refused):
        close = ending(why)
        events: list[AnyEvent] = [error_of(why), goodbye(close, reconnect_ms)]
    else:
        close = why.close
        events = [goodbye(close, reconnect_ms)]

    with anyio.move_on_after(TOLD_WITHIN):
        await _say_and_close(websocket, codec, events, close)


async def _say_and_close(
    websocket: WebSocket, codec: Codec, events: list[AnyEvent], close: Close
) -> None:
    try:
        for frame in map(Frame, events):
            if codec == "json":
                await websocket.send_text(frame.text)
            else:
                await websocket.send_bytes(frame.msgpack)

        await websocket.close(close.code, close.reason)
    except WebSocketDisconnect:
        return  # it is gone: there is nobody left to tell
