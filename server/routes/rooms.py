"""The rooms of a tenant, and who is taken out of one."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from server.callers import body_of, caller_of
from server.directory import Directory
from server.documents import Affected, PageQuery, RoomPage, RoomState, Unsubscribe
from server.node import Node
from server.openapi import PAGE, ROOM, described
from server.problems import reply
from server.requests import check_room, read_query


def add_rooms(app: FastAPI, node: Node) -> None:
    """Add GET /v1/rooms, GET /v1/rooms/{room} and POST /v1/rooms/{room}/unsubscribe."""
    directory = Directory(node.manager)

    @app.get("/v1/rooms", operation_id="rooms", **described(RoomPage, parameters=PAGE))
    async def rooms(request: Request) -> Response:
        """List the rooms that the token administers, by name."""
        principal = await caller_of(node, request)
        principal.require_somewhere("admin")
        return reply(await directory.rooms(principal, read_query(request, PageQuery)))

    @app.get(
        "/v1/rooms/{room}",
        operation_id="room",
        **described(RoomState, parameters=ROOM),
    )
    async def room(request: Request) -> Response:
        """Describe a room."""
        principal = await caller_of(node, request)
        name = check_room(request.path_params["room"])
        principal.require(name, "admin")
        return reply(await directory.room(principal, name))

    @app.post(
        "/v1/rooms/{room}/unsubscribe",
        operation_id="unsubscribe",
        **described(Affected, 413, body=Unsubscribe, parameters=ROOM),
    )
    async def unsubscribe(request: Request) -> Response:
        """Take a connection, or all of a subject, out of a room; answers how many."""
        principal = await caller_of(node, request)
        name = check_room(request.path_params["room"])
        principal.require(name, "admin")
        body = await body_of(node, request, principal, Unsubscribe)
        whom = (body.connection or "", body.subject or "")
        return reply(Affected(connections=directory.unsubscribe(principal, name, *whom)))
