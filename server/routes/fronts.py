"""The sockets of the fronts: Deepgram's, Rev.ai's, and vosk-server's on its own port."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import msgspec
from fastapi import FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from actors.catalog import spec_of
from actors.commands import Start
from actors.errors import Refused
from actors.principal import Principal
from server.asgi import LEAN, AsgiSession
from server.auth import site_of
from server.fronts.actor import CUT_AFTER, FrontActor
from server.fronts.credential import credential
from server.fronts.deepgram import DeepgramTranslator
from server.fronts.deepgram_query import read_listen
from server.fronts.revai import RevaiTranslator, ending_of, read_stream
from server.fronts.translator import Translator, fit
from server.fronts.vosk import VoskTranslator, read_vosk
from server.node import Node
from server.problems import GUARDS, deny, retry_after
from server.routes.sockets import transport_of
from server.transport import ABORT

Answer = tuple[str | None, Sequence[tuple[bytes, bytes]]]
"""Subprotocol and headers of the answer to an upgrade."""
PLAIN: Answer = (None, ())
STATUSES = {"overload": 429, "engine_busy": 429, "room_limit": 429}
"""HTTP status by which Deepgram refuses, where ours is another."""


def add_fronts(app: FastAPI, node: Node) -> None:
    """Add /v1/listen and /speechtotext/v1/stream, and everything on the port of vosk."""

    async def listen(websocket: WebSocket) -> None:
        """Speak as Deepgram does."""
        await serve_deepgram(node, websocket)

    async def stream(websocket: WebSocket) -> None:
        """Speak as Rev.ai does."""
        await serve_revai(node, websocket)

    async def vosk(websocket: WebSocket) -> None:
        """Speak as vosk-server does."""
        await serve_vosk(node, websocket)

    app.router.routes += [
        WebSocketRoute("/v1/listen", listen),
        WebSocketRoute("/speechtotext/v1/stream", stream),
    ]
    if node.settings.fronts.vosk.port:
        app.router.routes.insert(0, PortRoute(node.settings.fronts.vosk.port, vosk))


class PortRoute(BaseRoute):
    """Everything that comes to one port: WebSockets of any path; there is no HTTP."""

    def __init__(self, port: int, endpoint: Callable[[WebSocket], Awaitable[None]]) -> None:
        self._port, self._endpoint = port, endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look at the port alone."""
        here = scope.get("server")
        return (Match.FULL if here and here[1] == self._port else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket. Raises HTTPException(404) for a request."""
        if scope["type"] != "websocket":
            raise HTTPException(404)

        await self._endpoint(WebSocket(scope, receive, send))


async def serve_deepgram(node: Node, websocket: WebSocket) -> None:
    """Refuse by HTTP with an error in the headers, or carry a stream to its end."""
    request, connection = str(uuid4()), node.manager.new_id()
    try:
        found = credential(websocket, "header", "subprotocol")
        principal = _admit(node, websocket, found.token)
        listen = read_listen(websocket.query_params, request)
        _check(node, principal, listen.start)
    except Refused as refused:
        node.metrics.observer.refused(refused.code)
        await websocket.send_denial_response(_deepgram_refusal(refused, request))
        return

    translator = DeepgramTranslator(listen, request, node.manager.clock.wall())
    answer = (found.subprotocol, [(b"dg-request-id", request.encode())])
    if await _accept(websocket, answer):
        await _run(node, websocket, connection, principal, translator)


async def serve_revai(node: Node, websocket: WebSocket) -> None:
    """Accept, and close with a code if that has to be; or carry a stream to its end."""
    connection = node.manager.new_id()
    try:
        found = credential(websocket, "query")
        principal = _admit(node, websocket, found.token)
        stream = read_stream(websocket.query_params, connection)
        _check(node, principal, stream.start)
    except Refused as refused:
        node.metrics.observer.refused(refused.code)
        if refused.field == "origin":
            await deny(websocket, refused)  # a page that may not ask is not let in to be told so
            return

        try:
            node.enter(known=False)
        except Refused as over:
            await deny(websocket, over)
            return

        code, reason = ending_of(refused.code, refused.message)
        await _turn_away(websocket, code, fit(reason))
        return

    translator = RevaiTranslator(stream)
    if await _accept(websocket, PLAIN):
        await _run(node, websocket, connection, principal, translator)


async def serve_vosk(node: Node, websocket: WebSocket) -> None:
    """Carry a stream to its end; who cannot be taken gets the problem document."""
    connection = node.manager.new_id()
    try:
        principal = _admit(node, websocket)
        start = read_vosk(websocket.query_params, node.settings.fronts.vosk.room, connection)
        _check(node, principal, start)
    except Refused as refused:
        node.metrics.observer.refused(refused.code)
        await deny(websocket, refused)
        return

    if await _accept(websocket, PLAIN):
        await _run(node, websocket, connection, principal, VoskTranslator(start))


def _admit(node: Node, websocket: WebSocket, token: str | None = None) -> Principal:
    """Say who it is, and that one more connection fits. Raises Refused."""
    principal = node.authenticate(websocket.scope, token)
    node.manager.admit(principal, site_of(websocket.scope))
    node.enter()
    return principal


def _check(node: Node, principal: Principal, start: Start) -> None:
    """Refuse before the answer what would be refused after it. Raises Refused."""
    principal.require(start.room, "speak")
    known = start if start.encoding else msgspec.structs.replace(start, encoding="pcm_s16le")
    engines = node.manager.catalog.choose(start.engine, spec_of(known), principal.tenant)
    running = Counter(each.engine.name for each in node.manager.upkeep.speaking.values())
    if all(0 < each.max_streams <= running[each.name] for each in engines):
        names = ", ".join(each.name for each in engines)
        raise Refused("engine_busy", f"all streams of {names} are in use")

    node.manager.check_speaker(principal, start.room)


def _deepgram_refusal(refused: Refused, request: str) -> Response:
    code = refused.code.upper()
    body = {"err_code": code, "err_msg": refused.message, "request_id": request}
    headers = {"dg-error": refused.message, "dg-request-id": request}
    headers |= GUARDS | retry_after(refused)
    status = STATUSES.get(refused.code, refused.status)
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def _accept(websocket: WebSocket, answer: Answer) -> bool:
    """Answer the upgrade; tell whether anybody is there."""
    try:
        await websocket.accept(*answer)
    except WebSocketDisconnect:
        return False

    return True


async def _run(
    node: Node,
    websocket: WebSocket,
    connection: str,
    principal: Principal,
    translator: Translator,
) -> None:
    """Hand an accepted connection to an actor, and carry it to its end."""
    transport = transport_of(websocket, "json")
    actor = FrontActor(connection, principal, transport, node.manager, translator)
    address = site_of(websocket.scope)
    await transport.run(node.manager.welcome(actor, address), translator.first)


async def _turn_away(websocket: WebSocket, code: int, reason: str) -> None:
    """Accept only to close, and cut a client that goes on sending."""
    extensions = websocket.scope.get("extensions", {})
    session: AsgiSession | None = extensions.get(LEAN)
    cut: Callable[[], None] | None = session.socket.abort if session else extensions.get(ABORT)
    if not await _accept(websocket, PLAIN):
        return

    if cut is not None:
        asyncio.get_running_loop().call_later(CUT_AFTER, cut)

    try:
        await websocket.close(code, reason)
    except WebSocketDisconnect:
        return
