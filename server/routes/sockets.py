"""The native WebSockets: speak, listen, connect, and the echo of `dev`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from actors.catalog import spec_of
from actors.commands import AnyCommand, Join, Start
from actors.errors import Refused, SessionEnd
from actors.messages import Ack, CommandId, Label
from actors.microphone import Kind
from actors.principal import Principal
from actors.wire import SUBPROTOCOLS, Codec
from server.asgi import LEAN, AsgiSession
from server.auth import site_of
from server.lean import LeanTransport
from server.newcomers import Auth, brings_token_later, turn_away
from server.node import Node
from server.problems import deny
from server.requests import check_room, read_query
from server.transport import AsgiTransport
from server.turns import give_way

Route = Callable[[WebSocket], Awaitable[None]]
First = Callable[[Node, WebSocket, Principal], AnyCommand | None]
"""Reads the command that the address implies, for who asks. Raises Refused."""


class Admitted(msgspec.Struct, frozen=True):
    """Who was let in, from where, and what is done for them."""

    principal: Principal
    command: AnyCommand | None
    address: str
    answers: CommandId | None
    """The id of the message that brought the token, if it wants an answer."""


class SpeakQuery(msgspec.Struct, frozen=True):
    """The query of `speak`: how the audio is encoded, and who speaks."""

    encoding: Label = "pcm_s16le"
    rate: int | None = None
    channels: int = 1
    language: Label = "en"
    engine: Annotated[str, msgspec.Meta(max_length=512)] = ""
    name: Label = ""
    transcripts: bool = False
    resume: Label = ""


class ListenQuery(msgspec.Struct, frozen=True):
    """The query of `listen`: from where, and what is wanted besides finals."""

    since: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    history: Annotated[int, msgspec.Meta(ge=0)] = 0
    partials: bool = True
    presence: bool = False


def add_sockets(app: FastAPI, node: Node) -> None:
    """Add the WebSocket routes."""

    async def speak(websocket: WebSocket) -> None:
        """Binary frames are audio; the session starts at once."""
        await _serve(node, websocket, "speak", _read_speak)

    async def listen(websocket: WebSocket) -> None:
        """Events of one room, joined at once."""
        await _serve(node, websocket, "listen", _read_listen)

    async def connect(websocket: WebSocket) -> None:
        """Everything by commands."""
        await _serve(node, websocket, "connect", lambda *request: None)

    # Starlette's routes: what FastAPI adds for dependencies is a tenth of an accept.
    routes: dict[str, Route] = {
        "/v1/rooms/{room}/listen": listen,
        "/v1/rooms/{room}/speak": speak,
        "/v1/connect": connect,
    }
    if node.settings.dev:
        routes["/v1/echo"] = echo

    app.router.routes[:0] = [WebSocketRoute(path, route) for path, route in routes.items()]


def room_of(websocket: WebSocket) -> str:
    """Return the room of the address. Raises Refused("bad_room")."""
    return check_room(websocket.path_params["room"])


def _read_speak(node: Node, websocket: WebSocket, principal: Principal) -> Start:
    query = read_query(websocket, SpeakQuery)
    start = Start(room=room_of(websocket), **msgspec.structs.asdict(query))
    principal.require(start.room, "speak")
    node.manager.catalog.choose(start.engine, spec_of(start), principal.tenant)
    if not start.resume:
        node.manager.check_speaker(principal, start.room)

    return start


def _read_listen(node: Node, websocket: WebSocket, principal: Principal) -> Join:
    query = read_query(websocket, ListenQuery)
    join = Join(room=room_of(websocket), **msgspec.structs.asdict(query))
    principal.require(join.room, "listen")
    if join.presence:
        node.manager.fanout.presence.check(principal, join.room)

    node.manager.membership.check(join)
    return join


async def _serve(node: Node, websocket: WebSocket, kind: Kind, first: First) -> None:
    """Admit a connection, hand it to an actor, and carry it to its end."""
    await give_way()
    if brings_token_later(websocket.scope):
        await _serve_newcomer(node, websocket, kind, first)
        return

    try:
        admitted = _admit(node, websocket, first)
    except Refused as refused:
        await _deny(node, websocket, refused)
        return

    try:
        codec = await _accept(websocket)
    except WebSocketDisconnect:
        return

    await _carry(node, websocket, kind, codec, admitted)


async def _serve_newcomer(node: Node, websocket: WebSocket, kind: Kind, first: First) -> None:
    """Accept a connection that nobody knows, and go on once its first message says who it is."""
    manager, codec, auth = node.manager, None, None
    try:
        manager.refuse_while_draining()
        with node.newcomers.place():
            node.enter(known=False)
            codec = await _accept(websocket)
            auth = await node.newcomers.hear(websocket, codec)

        admitted = _admit(node, websocket, first, auth)
    except Refused as refused:
        if codec is None:
            await _deny(node, websocket, refused)
            return

        refused.id = auth.id if auth else None
        node.metrics.observer.refused(refused.code)
        await turn_away(websocket, codec, refused, manager.reconnect_ms())
    except SessionEnd as late:
        assert codec is not None
        node.metrics.observer.refused(late.close.reason)
        await turn_away(websocket, codec, late, manager.reconnect_ms())
    except WebSocketDisconnect:
        return
    else:
        await _carry(node, websocket, kind, codec, admitted)


def _admit(node: Node, websocket: WebSocket, first: First, auth: Auth | None = None) -> Admitted:
    """Say who it is and what the address implies, and that one more fits. Raises Refused."""
    principal = node.authenticate(websocket.scope, auth.token if auth else None)
    command = first(node, websocket, principal)
    address = site_of(websocket.scope)
    node.manager.admit(principal, address)
    node.enter()
    return Admitted(principal, command, address, auth.id if auth else None)


async def _accept(websocket: WebSocket) -> Codec:
    """Answer the upgrade; return what the messages are written in. Raises WebSocketDisconnect."""
    offered = websocket.scope["subprotocols"]
    chosen = next((name for name in offered if name in SUBPROTOCOLS), None)
    await websocket.accept(chosen)
    return SUBPROTOCOLS[chosen or "roomcast.v1"]


async def _carry(
    node: Node,
    websocket: WebSocket,
    kind: Kind,
    codec: Codec,
    admitted: Admitted,
) -> None:
    """Hand an accepted connection to an actor, and carry it to its end."""
    transport = transport_of(websocket, codec)
    actor = node.manager.connect(kind, admitted.principal, transport, admitted.address)
    if admitted.answers is not None:
        actor.tell(Ack(id=admitted.answers, at=node.manager.clock.wall()))

    await transport.run(actor, admitted.command)


def transport_of(websocket: WebSocket, codec: Codec) -> LeanTransport | AsgiTransport:
    """Make the transport of an accepted connection: the lean one, where the server speaks so."""
    session: AsgiSession | None = websocket.scope.get("extensions", {}).get(LEAN)
    return LeanTransport(session, codec) if session else AsgiTransport(websocket, codec)


async def _deny(node: Node, websocket: WebSocket, refused: Refused) -> None:
    node.metrics.observer.refused(refused.code)
    await give_way()
    await deny(websocket, refused)


async def echo(websocket: WebSocket) -> None:
    """Return every message as it came."""
    await websocket.accept()
    while True:
        message: Any = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return

        try:
            await websocket.send({**message, "type": "websocket.send"})
        except WebSocketDisconnect:
            return
