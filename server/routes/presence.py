"""Who is in a room, asked from outside of it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from server.callers import caller_of
from server.directory import Directory
from server.documents import PageQuery, PresencePage
from server.node import Node
from server.openapi import PAGE, ROOM, described
from server.problems import reply
from server.requests import check_room, read_query


def add_presence(app: FastAPI, node: Node) -> None:
    """Add GET /v1/rooms/{room}/presence."""
    directory = Directory(node.manager)

    @app.get(
        "/v1/rooms/{room}/presence",
        operation_id="presence",
        **described(PresencePage, parameters=[*ROOM, *PAGE]),
    )
    async def presence(request: Request) -> Response:
        """List who is in a room, by id; a room that is not there has nobody in it."""
        principal = await caller_of(node, request)
        room = check_room(request.path_params["room"])
        page = read_query(request, PageQuery)
        return reply(directory.presence(principal, room, page))
