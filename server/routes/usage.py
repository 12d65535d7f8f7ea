"""What a tenant has used, and what it may use."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from server.node import Node
from server.problems import answer


def add_usage(app: FastAPI, node: Node) -> None:
    """Add GET /v1/usage."""
    manager, since = node.manager, node.manager.clock.wall()

    @app.get("/v1/usage", operation_id="usage")
    async def usage(request: Request) -> Response:
        """Count what the token's tenant uses of this node, beside its quotas."""
        principal = node.authenticate(request.scope)
        principal.require_somewhere("admin")
        meter = manager.meters.of(principal.tenant)
        return answer(
            {
                "tenant": principal.tenant,
                "since": since,
                "usage": msgspec.to_builtins(meter.usage(manager.clock.monotonic())),
                "quotas": msgspec.to_builtins(meter.quotas),
            }
        )
