"""What every request passes first, before any route: a pure ASGI middleware."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.forwarded import client_of, read_network
from server.node import Node


class Edge:
    """Sees where a request comes from. It awaits nothing itself, so it costs no frame."""

    def __init__(self, app: ASGIApp, node: Node) -> None:
        """Stand before an app."""
        self._app = app
        self._trusted = [read_network(each) for each in node.settings.server.trusted_proxies]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on."""
        if self._trusted and scope["type"] != "lifespan":
            self._look_behind_proxies(scope)

        return self._app(scope, receive, send)

    def _look_behind_proxies(self, scope: Scope) -> None:
        peer = scope.get("client")
        if peer and (client := client_of(peer[0], scope["headers"], self._trusted)) is not None:
            scope["client"] = (client, 0)
