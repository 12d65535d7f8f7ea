"""Publishing over HTTP."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from server.documents import Broadcasted, Publish, Published
from server.node import Node
from server.openapi import ROOM, described
from server.problems import reply
from server.requests import check_room, read_body


def add_messages(app: FastAPI, node: Node) -> None:
    """Add POST /v1/rooms/{room}/messages and POST /v1/broadcast."""
    manager, limit = node.manager, node.settings.limits.text_bytes

    @app.post(
        "/v1/rooms/{room}/messages",
        operation_id="publish",
        **described(Published, 400, 413, 429, body=Publish, parameters=ROOM),
    )
    async def publish(request: Request) -> Response:
        """Publish a value to a room; answers its position."""
        principal = node.authenticate(request.scope)
        room = check_room(request.path_params["room"])
        principal.require(room, "publish")
        body = await read_body(request, limit, Publish)
        at = await manager.send_message(principal, room, body.data)
        return reply(Published(room=room, epoch=at.epoch, offset=at.offset))

    @app.post(
        "/v1/broadcast",
        operation_id="broadcast",
        **described(Broadcasted, 400, 413, 429, body=Publish),
    )
    async def broadcast(request: Request) -> Response:
        """Publish a value to every room of the tenant that the token covers; answers how many."""
        principal = node.authenticate(request.scope)
        principal.require_somewhere("publish")
        body = await read_body(request, limit, Publish)
        return reply(Broadcasted(rooms=await manager.broadcast(principal, body.data)))
