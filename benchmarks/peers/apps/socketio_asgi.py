"""python-socketio on uvicorn: a room, and an event that everybody in it gets; WebSocket only."""

from __future__ import annotations

import sys
from typing import Any

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


async def connect(sid: str, environ: dict[str, Any]) -> None:
    """Take a listener into the room."""
    if "role=listen" in environ["QUERY_STRING"]:
        await server.enter_room(sid, "room")


async def publish(sid: str, data: str) -> None:
    """Send what comes to the room."""
    await server.emit("message", data, room="room")


server.on("connect", connect)
server.on("publish", publish)

if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ws_per_message_deflate=False,
        log_level="warning",
    )
