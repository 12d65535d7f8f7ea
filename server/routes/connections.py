"""The connections of a tenant, and how one is ended.

A connection belongs to no room, so this takes the right to administer all of them.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from actors.errors import FORBIDDEN
from actors.principal import Principal
from server.callers import caller_of
from server.directory import Directory
from server.documents import ConnectionPage, PageQuery
from server.node import Node
from server.openapi import PAGE, described
from server.problems import reply
from server.requests import read_query

CONNECTION = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]


async def administrator(node: Node, request: Request) -> Principal:
    """Say who it is that administers the whole tenant. Raises Refused."""
    principal = await caller_of(node, request)
    principal.require_everywhere("admin")
    return principal


def add_connections(app: FastAPI, node: Node) -> None:
    """Add GET /v1/connections and DELETE /v1/connections/{id}."""
    directory = Directory(node.manager)

    @app.get(
        "/v1/connections",
        operation_id="connections",
        **described(ConnectionPage, parameters=PAGE),
    )
    async def connections(request: Request) -> Response:
        """List the live connections of the tenant, by id."""
        principal = await administrator(node, request)
        return reply(directory.connections(principal, read_query(request, PageQuery)))

    @app.delete(
        "/v1/connections/{id}",
        operation_id="disconnect",
        status_code=204,
        **described(None, parameters=CONNECTION),
    )
    async def disconnect(request: Request) -> Response:
        """End a connection with the close code 4502, after which clients do not come back."""
        principal = await administrator(node, request)
        actor = directory.connection(principal, request.path_params["id"])
        actor.close(FORBIDDEN.because("an administrator ended this connection"))
        return Response(status_code=204)
