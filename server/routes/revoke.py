"""How access is revoked."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from actors.errors import Refused
from server.directory import NO_CONNECTION
from server.documents import Affected, Revoke
from server.node import Node
from server.openapi import described
from server.problems import reply
from server.requests import read_body
from server.routes.connections import administrator


def add_revoke(app: FastAPI, node: Node) -> None:
    """Add POST /v1/revoke."""
    manager, limit = node.manager, node.settings.limits.text_bytes

    @app.post(
        "/v1/revoke",
        operation_id="revoke",
        **described(Affected, 413, 422, body=Revoke),
    )
    async def revoke(request: Request) -> Response:
        """Revoke a subject, a token, or a connection; answers how many connections were closed."""
        principal = await administrator(node, request)
        body = await read_body(request, limit, Revoke)
        names = (body.subject or "", body.token or "", body.connection or "")
        closed = manager.revoke(principal.tenant, *names)
        if body.connection and not closed:
            raise Refused("not_found", NO_CONNECTION, "connection")

        return reply(Affected(connections=closed))
