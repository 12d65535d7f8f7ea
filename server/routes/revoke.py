"""How access is revoked."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.responses import Response
from msgspec import UNSET

from actors.errors import Refused
from server.callers import body_of
from server.directory import NO_CONNECTION
from server.documents import Revoke, Revoked
from server.node import Node
from server.openapi import described
from server.problems import reply
from server.routes.connections import administrator


def add_revoke(app: FastAPI, node: Node) -> None:
    """Add POST /v1/revoke."""
    manager = node.manager

    @app.post(
        "/v1/revoke",
        operation_id="revoke",
        **described(Revoked, 413, 422, body=Revoke),
    )
    async def revoke(request: Request) -> Response:
        """Revoke a subject, a token, a key or a connection; answers how many were closed."""
        principal = await administrator(node, request)
        body = await body_of(node, request, principal, Revoke)
        closed = manager.revoke(principal.tenant, **body.named)
        if body.connection and not closed:
            raise Refused("not_found", NO_CONNECTION, "connection")

        ((kind, name),) = body.named.items()
        until = manager.access.revocations.until(principal.tenant, (kind, name))
        expires = round(until, 3) if 0 < until < math.inf else UNSET
        return reply(Revoked(connections=closed, expires=expires))
