"""What a tenant has used, and what it may use."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from server.documents import Used
from server.node import Node
from server.openapi import described
from server.problems import reply


def add_usage(app: FastAPI, node: Node) -> None:
    """Add GET /v1/usage."""
    manager, since = node.manager, node.manager.clock.wall()

    @app.get("/v1/usage", operation_id="usage", **described(Used))
    async def usage(request: Request) -> Response:
        """Count what the token's tenant uses of this node, beside its quotas."""
        principal = node.authenticate(request.scope)
        principal.require_somewhere("admin")
        meter = manager.meters.of(principal.tenant)
        usage, quotas = meter.usage(manager.clock.monotonic()), meter.quotas
        return reply(Used(tenant=principal.tenant, since=since, usage=usage, quotas=quotas))
