"""The bridge that everybody writes: two sockets, two tasks, `gather`.

FastAPI on `uvicorn[standard]`, `websockets` to the provider, all of their defaults.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect

app = FastAPI()


@app.websocket("/speechtotext/v1/stream")
async def stream(client: WebSocket) -> None:
    """Carry one stream."""
    await client.accept()
    async with connect(f"{app.state.provider}?{client.url.query}") as provider:
        await asyncio.gather(send_audio(client, provider), send_results(provider, client))


async def send_audio(client: WebSocket, provider: ClientConnection) -> None:
    """Pass on what the client says."""
    while True:
        message = await client.receive()
        if message["type"] == "websocket.disconnect":
            break

        await provider.send(message.get("bytes") or message["text"])


async def send_results(provider: ClientConnection, client: WebSocket) -> None:
    """Pass on what the provider says."""
    async for message in provider:
        await client.send_text(str(message))

    await client.close()


if __name__ == "__main__":
    app.state.provider = sys.argv[2]
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
