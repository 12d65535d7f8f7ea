"""Publishing over HTTP."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.responses import Response

from actors.errors import Refused
from actors.log import Repeated
from server.callers import body_of, caller_of
from server.documents import Broadcasted, Publish, Published
from server.node import Node
from server.openapi import KEY, ROOM, described
from server.problems import reply
from server.requests import check_room

_key = re.compile(r"[!-~]{1,128}")


def read_key(request: Request, purpose: str) -> str:
    """Return what makes a publish one of its kind in a room; "" without a key. Raises Refused."""
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return ""

    if len(keys) > 1 or not _key.fullmatch(keys[0]):
        message = "an Idempotency-Key is 1 to 128 visible ASCII characters, without a space"
        raise Refused("bad_message", message, "Idempotency-Key")

    return f"{purpose} {keys[0]}"


def add_messages(app: FastAPI, node: Node) -> None:
    """Add POST /v1/rooms/{room}/messages and POST /v1/broadcast."""
    manager = node.manager

    @app.post(
        "/v1/rooms/{room}/messages",
        operation_id="publish",
        **described(Published, 413, 429, 503, body=Publish, parameters=[*ROOM, *KEY]),
    )
    async def publish(request: Request) -> Response:
        """Publish a value to a room; answers its position."""
        principal = await caller_of(node, request)
        room = check_room(request.path_params["room"])
        principal.require(room, "publish")
        body = await body_of(node, request, principal, Publish)
        at = await manager.send_message(principal, room, body.data, read_key(request, "publish"))
        repeated = isinstance(at, Repeated)
        return reply(Published(room=room, epoch=at.epoch, offset=at.offset, duplicate=repeated))

    @app.post(
        "/v1/broadcast",
        operation_id="broadcast",
        **described(Broadcasted, 413, 429, 503, body=Publish, parameters=KEY),
    )
    async def broadcast(request: Request) -> Response:
        """Publish a value to every room of the tenant that the token covers; answers how many."""
        principal = await caller_of(node, request)
        principal.require_somewhere("publish")
        body = await body_of(node, request, principal, Publish)
        places = await manager.broadcast(principal, body.data, read_key(request, "broadcast"))
        repeated = any(isinstance(each, Repeated) for each in places)
        return reply(Broadcasted(rooms=len(places), duplicate=repeated))
