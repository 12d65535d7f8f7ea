"""Answers over HTTP; refusals are problem documents (RFC 9457) with the codes used everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from actors.errors import Refused
from actors.ports import Observer
from server.documents import Document
from server.turns import give_way

GUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of whatever has no such header of its own: it is data, for whoever asked, and no page."""
HEADERS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.UPGRADE_REQUIRED: {"Upgrade": "websocket"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}
SOON: dict[int, float] = {HTTPStatus.SERVICE_UNAVAILABLE: 1.0}
"""Seconds after which to try again where a refusal does not say."""
_guards = [(name.lower().encode(), value.encode()) for name, value in GUARDS.items()]
NO_UPGRADE = "this is a WebSocket, and no upgrade was asked for; a proxy may have left that out"
CODES = {404: "not_found", 405: "method_not_allowed"}


def problem(status: int, code: str, detail: str, **more: str | float) -> Response:
    """Build a problem document; `more` holds what applies of field, setting and retry_after."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in more.items() if value},
    }
    return Response(
        msgspec.json.encode(document),
        status,
        GUARDS | HEADERS.get(status, {}),
        media_type="application/problem+json",
    )


def guarded(send: Send) -> Send:
    """Return what sends an answer with the headers that it lacks."""

    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            message["headers"] = headers + [each for each in _guards if each[0] not in names]
            await give_way()

        await send(message)

    return send_guarded


def answer(document: Mapping[str, Any]) -> Response:
    """Build the JSON answer to a request that was carried out."""
    return Response(msgspec.json.encode(document), media_type="application/json")


def reply(document: Document) -> Response:
    """Build the JSON answer to a request of one tenant, which nobody should keep."""
    return Response(msgspec.json.encode(document), headers=GUARDS, media_type="application/json")


def refusal(refused: Refused) -> Response:
    """Build the problem document of a refusal."""
    response = problem(
        refused.status,
        refused.code,
        refused.message,
        field=refused.field,
        setting=refused.setting,
        retry_after=refused.retry_after or SOON.get(refused.status, 0.0),
    )
    response.headers.update(retry_after(refused))
    if refused.code == "rate_limited":
        response.headers["Connection"] = "close"  # what comes next has to pass the door again

    return response


def retry_after(refused: Refused) -> dict[str, str]:
    """Return the header that says when to come back, where that is known."""
    seconds = math.ceil(refused.retry_after)
    return {"Retry-After": str(seconds)} if seconds else {}


async def deny(websocket: WebSocket, refused: Refused) -> None:
    """Answer an upgrade with the problem document instead of a WebSocket."""
    await websocket.send_denial_response(refusal(refused))


def add_problems(app: FastAPI, observer: Observer) -> None:
    """Turn every refusal and every error of the routing into a problem document."""

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        observer.refused(error.code)
        return refusal(error)

    async def fail(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "error")
        response = problem(error.status_code, code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    async def crash(request: Request, error: Exception) -> Response:
        return problem(500, "internal", "the server has a bug; it is logged")

    not_found = app.router.default

    async def miss(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            refused = Refused("not_found", f"there is no WebSocket at {scope['path']}")
            observer.refused(refused.code)
            await deny(WebSocket(scope, receive, send), refused)
        elif _is_socket(app, scope["path"]):
            await problem(426, "upgrade_required", NO_UPGRADE)(scope, receive, send)
        else:
            await not_found(scope, receive, send)

    app.router.default = miss
    app.router.redirect_slashes = False  # its address would be that behind the proxy
    app.add_exception_handler(Refused, refuse)
    app.add_exception_handler(HTTPException, fail)
    app.add_exception_handler(Exception, crash)


def _is_socket(app: FastAPI, path: str) -> bool:
    sockets = [each for each in app.router.routes if isinstance(each, WebSocketRoute)]
    return any(each.path_regex.match(path) for each in sockets)
