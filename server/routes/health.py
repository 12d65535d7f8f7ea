"""What operators ask of a node: is it alive, is it ready, which version, and its metrics."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response

from server import __version__
from server.node import Node
from server.problems import answer, problem

METHODS = ["GET", "HEAD"]


def add_health(app: FastAPI, node: Node) -> None:
    """Add /livez, /readyz (and its alias /healthz), /version and /metrics."""
    manager = node.manager

    @app.api_route("/livez", methods=METHODS, operation_id="livez")
    async def livez() -> Response:
        """Answer while the event loop turns."""
        return answer({"status": "alive"})

    @app.api_route("/readyz", methods=METHODS, operation_id="readyz")
    @app.api_route("/healthz", methods=METHODS, operation_id="healthz")
    async def readyz() -> Response:
        """Answer 200 while a probe goes through the publish path and no drain has begun."""
        if manager.draining:
            return problem(503, "draining", "this node is about to stop")

        if not manager.ready:
            return problem(503, "not_ready", "no probe came back through the publish path lately")

        return answer({"status": "ready"})

    @app.api_route("/version", methods=METHODS, operation_id="version")
    async def version() -> Response:
        """Name the version."""
        return answer({"name": "roomcast", "version": __version__})

    @app.api_route("/metrics", methods=METHODS, operation_id="metrics")
    async def metrics() -> Response:
        """Expose the metrics in Prometheus' text format."""
        text, content_type = await node.metrics.render()
        return Response(text, headers={"Content-Type": content_type})
