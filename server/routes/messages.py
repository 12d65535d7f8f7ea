"""Publishing over HTTP."""

from __future__ import annotations

import re
from typing import Any

import anyio
import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from actors.errors import Refused
from actors.messages import ROOM_PATTERN, ROOM_RULE
from server.node import Node
from server.problems import answer


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a publish."""

    data: Any
    """Any JSON value; listeners get it unchanged."""


BODY_WITHIN = 30.0
"""Seconds a body may take to arrive."""

_body = msgspec.json.Decoder(Body)
_room = re.compile(ROOM_PATTERN)


def check_room(room: str) -> str:
    """Return a room's name if it is one. Raises Refused("bad_room")."""
    if _room.search(room) is None:
        raise Refused("bad_room", ROOM_RULE, "room")

    return room


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body up to a number of bytes. Raises Refused("too_big") without reading on."""
    body = bytearray()
    try:
        with anyio.fail_after(BODY_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise Refused(
                        "too_big", f"the body is over {limit} bytes", setting="limits.text_bytes"
                    )
    except (TimeoutError, ClientDisconnect):
        raise Refused("bad_message", "the body did not come to its end") from None

    return bytes(body)


def add_messages(app: FastAPI, node: Node) -> None:
    """Add POST /v1/rooms/{room}/messages and POST /v1/broadcast."""
    manager, limit = node.manager, node.settings.limits.text_bytes

    async def read_data(request: Request) -> Any:
        raw = await read_body(request, limit)
        try:
            return _body.decode(raw)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise Refused(
                "bad_message", f"the body is not {{'data': ...}}: {error}"[:200]
            ) from None

    @app.post("/v1/rooms/{room}/messages", operation_id="publish")
    async def publish(room: str, request: Request) -> Response:
        """Publish a value to a room; answers its position."""
        principal = node.authenticate(request.scope)
        principal.require(check_room(room), "publish")
        body = await read_data(request)
        position = await manager.send_message(principal, room, body.data)
        return answer({"room": room, "epoch": position.epoch, "offset": position.offset})

    @app.post("/v1/broadcast", operation_id="broadcast")
    async def broadcast(request: Request) -> Response:
        """Publish a value to every room of the tenant that the token covers; answers how many."""
        principal = node.authenticate(request.scope)
        principal.require_somewhere("publish")
        body = await read_data(request)
        return answer({"rooms": await manager.broadcast(principal, body.data)})
