"""Clients of the native sockets, as thin as can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Event = dict[str, Any]
WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""


class Client:
    """One WebSocket with everything that came over it."""

    def __init__(self, socket: ClientConnection, codec: str) -> None:
        self.socket, self._codec = socket, codec
        self.events: list[Event] = []

    async def send(self, **command: Any) -> None:
        """Send a command."""
        if self._codec == "json":
            await self.socket.send(msgspec.json.encode(command).decode())
        else:
            await self.socket.send(msgspec.msgpack.encode(command))

    async def audio(self, data: bytes, size: int = 1280) -> None:
        """Send audio as fast as the server takes it."""
        for start in range(0, len(data), size):
            await self.socket.send(data[start : start + size])

    async def receive(self) -> Event:
        """Return the next event. Raises ConnectionClosed."""
        with anyio.fail_after(WITHIN):
            raw = await self.socket.recv()

        if isinstance(raw, str):
            event: Event = msgspec.json.decode(raw)
        else:
            event = msgspec.msgpack.decode(raw)

        self.events.append(event)
        return event

    async def until(self, kind: str, fits: Callable[[Event], bool] = lambda event: True) -> Event:
        """Return the next event of a type that fits; what comes before it is kept in `events`."""
        while True:
            event = await self.receive()
            if event["type"] == kind and fits(event):
                return event

    async def ask(self, **command: Any) -> Event:
        """Send a command and return its answer."""
        await self.send(**command)
        while True:
            event = await self.receive()
            if event.get("id") == command["id"]:
                return event

    async def finals(self, count: int) -> list[Event]:
        """Return the next finals."""
        return [await self.until("transcript", lambda event: event["final"]) for _ in range(count)]

    async def messages(self, count: int) -> list[Event]:
        """Return the next messages."""
        return [await self.until("message") for _ in range(count)]

    async def closed(self) -> tuple[int, str]:
        """Read to the end and return the close code and reason."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.until("nothing more")

        frame = closed.value.rcvd
        assert frame is not None, "the server cut the connection without a close frame"
        return frame.code, frame.reason


@asynccontextmanager
async def client(url: str, codec: str = "json", **options: Any) -> AsyncIterator[Client]:
    """Connect for the length of a block."""
    protocol = Subprotocol("roomcast.v1" if codec == "json" else "roomcast.v1.msgpack")
    async with connect(
        url, subprotocols=[protocol], compression=None, close_timeout=2, **options
    ) as socket:
        assert socket.subprotocol == protocol
        yield Client(socket, codec)
