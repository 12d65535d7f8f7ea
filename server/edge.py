"""What every request passes first, before any route: a pure ASGI middleware."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from actors.errors import Refused
from server.auth import site_of
from server.forwarded import client_of
from server.node import Node
from server.problems import deny, guarded
from server.turns import give_way


class Edge:
    """Sees where a request comes from, that connections are not opened too fast, and that no answer
    lacks the headers that keep browsers from making more of it than it is.

    For a WebSocket it awaits nothing itself, so that it costs no frame.
    """

    def __init__(self, app: ASGIApp, node: Node) -> None:
        """Stand before an app."""
        self._app, self._node = app, node
        self._monotonic = node.manager.clock.monotonic

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or refuse it."""
        if self._node.trusted and scope["type"] != "lifespan":
            self._look_behind_proxies(scope)

        if scope["type"] == "websocket":
            try:
                self._node.turnstile.arrive(site_of(scope), self._monotonic())
            except Refused as refused:
                self._node.metrics.observer.refused(refused.code)
                return deny(WebSocket(scope, receive, send), refused)

        elif scope["type"] == "http":
            return self._pass_on(scope, receive, guarded(send))

        return self._app(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await give_way()
        await self._app(scope, receive, send)

    def _look_behind_proxies(self, scope: Scope) -> None:
        peer, trusted = scope.get("client"), self._node.trusted
        if peer and (client := client_of(peer[0], scope["headers"], trusted)) is not None:
            scope["client"] = (client, 0)
