"""An application that knows nothing of Roomcast, for any server that speaks ASGI."""

from __future__ import annotations

from typing import Annotated

from fastapi import (
    Depends,
    FastAPI,
    HTTPException,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)

app = FastAPI()
sent = {"flood": 0}
ended: list[str] = []


def check_token(token: str = "") -> str:
    """Deny who has no token, and who has a bad one."""
    if not token:
        raise HTTPException(401, "no token", {"www-authenticate": "Bearer"})

    if token != "good":
        raise WebSocketException(4001, "a bad token")

    return token


@app.websocket("/token")
async def tell_token(websocket: WebSocket, token: Annotated[str, Depends(check_token)]) -> None:
    """Return what the dependency found."""
    await websocket.accept()
    await websocket.send_json({"token": token})
    await websocket.close(4000, "done")


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Return every message, with a subprotocol and headers of its own."""
    await websocket.accept("b", [(b"x-more", b"1"), (b"x-more", b"2")])
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                ended.append(f"echo {message['code']}")
                return

            await websocket.send({**message, "type": "websocket.send"})
    except WebSocketDisconnect:
        return


@app.websocket("/refuse")
async def refuse(websocket: WebSocket) -> None:
    """Close before the accept."""
    await websocket.close(4003)


@app.websocket("/nothing")
async def nothing(websocket: WebSocket) -> None:
    """Return without an answer."""


@app.websocket("/return")
async def go(websocket: WebSocket) -> None:
    """Accept, say one thing, and return."""
    await websocket.accept()
    await websocket.send_bytes(b"\x00\xff")


@app.websocket("/bug")
async def bug(websocket: WebSocket, late: bool = False) -> None:
    """Fail before or after the accept."""
    if late:
        await websocket.accept()

    raise RuntimeError(f"planted, {late=}")


@app.websocket("/header")
async def header(websocket: WebSocket) -> None:
    """Try to forge a header."""
    await websocket.accept(headers=[(b"x", b"1\r\nset-cookie: forged")])


@app.websocket("/flood")
async def flood(websocket: WebSocket) -> None:
    """Send for ever, counting what was taken."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(bytes(10_000))
            sent["flood"] += 1
    except WebSocketDisconnect:
        ended.append("flood")


@app.get("/counts")
async def counts() -> dict[str, object]:
    """Say what has happened."""
    return {**sent, "ended": ended}
