"""What operators ask of a node: is it alive, is it ready, which version, and its metrics."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from server import __version__
from server.node import Node
from server.openapi import refusals
from server.problems import answer, problem


def add_health(app: FastAPI, node: Node) -> None:
    """Add /livez, /readyz (and its alias /healthz), /version and /metrics."""
    manager = node.manager

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", operation_id="livez")
    async def livez() -> Response:
        """Answer while the event loop turns."""
        return answer({"status": "alive"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", operation_id="readyz", responses=refusals(503))
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", operation_id="healthz", responses=refusals(503))
    async def readyz() -> Response:
        """Answer 200 while a probe goes through the publish path and no drain has begun."""
        if manager.draining:
            return problem(503, "draining", "this node is about to stop")

        if not manager.ready:
            return problem(503, "not_ready", "no probe came back through the publish path lately")

        return answer({"status": "ready"})

    @app.head("/version", include_in_schema=False)
    @app.get("/version", operation_id="version")
    async def version() -> Response:
        """Name the version."""
        return answer({"name": "roomcast", "version": __version__})

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Expose the metrics in Prometheus' text format."""
        text, content_type = await node.metrics.render()
        return Response(text, headers={"Content-Type": content_type})
