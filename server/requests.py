"""Reading requests: a room's name, a query, a body that may not be too big or too slow."""

from __future__ import annotations

import re
from typing import TypeVar

import anyio
import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect, HTTPConnection

from actors.errors import Refused
from actors.messages import ROOM_PATTERN, ROOM_RULE
from server.turns import give_way

Query = TypeVar("Query", bound=msgspec.Struct)
Body = TypeVar("Body", bound=msgspec.Struct)
BODY_WITHIN = 30.0
"""Seconds a body may take to arrive."""

_room = re.compile(ROOM_PATTERN)


def check_room(room: str) -> str:
    """Return a room's name if it is one. Raises Refused("bad_room")."""
    if _room.search(room) is None:
        raise Refused("bad_room", ROOM_RULE, "room")

    return room


def read_query(request: HTTPConnection, kind: type[Query]) -> Query:
    """Read the query string; unknown names are left to proxies and tools. Raises Refused."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise Refused("bad_message", message, path.rstrip("`")) from None


async def read_bytes(request: Request, limit: int) -> bytes:
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


async def read_body(request: Request, limit: int, kind: type[Body]) -> Body:
    """Read a JSON body of a kind. Raises Refused."""
    raw = await read_bytes(request, limit)
    try:
        body = msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        form = ", ".join(f"'{name}'" for name in kind.__struct_fields__)
        text = f"the body is not an object of {form}: {error}"
        raise Refused("bad_message", text[:200]) from None

    await give_way()
    return body
