"""The application factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import signature

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import request_response

from server import __version__
from server.edge import Edge
from server.node import Node
from server.openapi import add_openapi
from server.problems import add_problems
from server.routes.connections import add_connections
from server.routes.fronts import add_fronts
from server.routes.health import add_health
from server.routes.messages import add_messages
from server.routes.pages import add_pages
from server.routes.presence import add_presence
from server.routes.revoke import add_revoke
from server.routes.rooms import add_rooms
from server.routes.sockets import add_sockets
from server.routes.tickets import add_tickets
from server.routes.usage import add_usage
from server.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Build the app of one node; the node is its `state.node`. Raises BadSettings."""
    node = Node(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Node]]:
        async with node.running():
            yield {"node": node}

    app = FastAPI(
        title="Roomcast", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.node = node
    app.add_middleware(Edge, node=node)
    add_problems(app, node.metrics.observer)
    add_health(app, node)
    add_messages(app, node)
    add_rooms(app, node)
    add_presence(app, node)
    add_connections(app, node)
    add_revoke(app, node)
    add_tickets(app, node)
    add_usage(app, node)
    add_sockets(app, node)
    add_fronts(app, node)
    add_pages(app)
    add_openapi(app)
    _call_directly(app)
    return app


def _call_directly(app: FastAPI) -> None:
    """Let what takes nothing but the request be called with it: FastAPI has nothing to resolve."""
    for route in app.routes:
        if isinstance(route, APIRoute) and [*signature(route.endpoint).parameters] == ["request"]:
            route.app = request_response(route.endpoint)
