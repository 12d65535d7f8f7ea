"""The usual FastAPI fan-out: a list of WebSockets, and a loop that awaits `send_text` on each.

Also the usual audio handler: what comes goes into a memory object stream, whose reader drops it.
"""

from __future__ import annotations

import sys

import anyio
import uvicorn
from anyio.streams.memory import MemoryObjectReceiveStream
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

FRAMES = 32
"""Frames that may wait for the reader; as many as Roomcast's ingress holds."""


class ConnectionManager:
    """The connections that are open."""

    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Accept one."""
        await websocket.accept()
        self.active.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Forget one."""
        self.active.remove(websocket)

    async def broadcast(self, message: str) -> None:
        """Send to all."""
        for websocket in self.active:
            await websocket.send_text(message)


app = FastAPI()
manager = ConnectionManager()


@app.websocket("/listen")
async def listen(websocket: WebSocket) -> None:
    """Get what is published."""
    await manager.connect(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket)


@app.websocket("/publish")
async def publish(websocket: WebSocket) -> None:
    """Send what comes to all."""
    await websocket.accept()
    try:
        while True:
            await manager.broadcast(await websocket.receive_text())
    except WebSocketDisconnect:
        return


@app.websocket("/speak")
async def speak(websocket: WebSocket) -> None:
    """Pass audio on; a text message ends it and is answered with how many bytes came."""
    await websocket.accept()
    send, receive = anyio.create_memory_object_stream[bytes](FRAMES)
    received = 0
    async with anyio.create_task_group() as tasks, send:
        tasks.start_soon(_drop, receive)
        while True:
            message = await websocket.receive()
            audio = message.get("bytes")
            if audio is None:
                break

            received += len(audio)
            await send.send(audio)

    if message["type"] == "websocket.receive":
        await websocket.send_json({"state": "ended", "received": received})


async def _drop(receive: MemoryObjectReceiveStream[bytes]) -> None:
    async with receive:
        async for _ in receive:
            pass


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ws_per_message_deflate=False,
        log_level="warning",
    )
