"""Clients of the fronts' protocols, as thin as can be, and servers that have all three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.clients import WITHIN
from tests.processes import free_port
from tests.servers import Server, serving

Document = dict[str, Any]
SECRET = "s3cret-t0ken"
TOKEN = {"Authorization": f"Token {SECRET}"}
TYPE = "audio/x-raw;layout=interleaved;rate=16000;format=S16LE;channels=1"
RAW = {"encoding": "linear16", "sample_rate": 16000}
SECOND = bytes(32_000)
FINALIZE, KEEP_ALIVE = '{"type":"Finalize"}', '{"type":"KeepAlive"}'
CLOSE_STREAM = '{"type":"CloseStream"}'
EOF, RESET = '{"eof" : 1}', '{"reset" : 1}'


class Vendor:
    """One WebSocket that is sent text and audio, with everything that came over it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.got: list[Document] = []

    async def say(self, *messages: str | bytes) -> None:
        """Send messages; audio goes in frames of 20 ms."""
        for message in messages:
            size = 640 if isinstance(message, bytes) else len(message)
            for at in range(0, max(1, len(message)), max(1, size)):
                await self.socket.send(message[at : at + size])

    async def receive(self) -> Document:
        """Return the next message. Raises ConnectionClosed."""
        with anyio.fail_after(WITHIN):
            document: Document = msgspec.json.decode(await self.socket.recv())

        self.got.append(document)
        return document

    async def until(self, **fields: Any) -> Document:
        """Return the next message that has these fields."""
        while True:
            document = await self.receive()
            if fields.items() <= document.items():
                return document

    async def ask(self, message: str | bytes) -> Document:
        """Send one message and return what comes next: the lock-step of vosk's clients."""
        await self.socket.send(message)
        return await self.receive()

    async def ends(self) -> tuple[int, str]:
        """Read to the end and return the close code and reason."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.until(nothing=True)

        frame = closed.value.rcvd
        assert frame is not None, "the server cut the connection without a close frame"
        return frame.code, frame.reason


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Vendor]:
    """Connect for the length of a block."""
    async with connect(url, compression=None, close_timeout=2, max_size=None, **options) as socket:
        yield Vendor(socket)


def deepgram(server: Server, **query: object) -> Any:
    """Connect to the front of Deepgram, with raw audio of the echo engine by default."""
    asked = {**RAW, "engine": "echo", "model": "nova-3", **query}
    pairs = urlencode({name: value for name, value in asked.items() if value is not None})
    return opened(f"{server.ws}/v1/listen?{pairs}", additional_headers=TOKEN)


def revai(server: Server, **query: object) -> Any:
    """Connect to the front of Rev.ai, with raw audio of the echo engine by default."""
    asked = {"access_token": SECRET, "content_type": TYPE, "engine": "echo", **query}
    return opened(f"{server.ws}/speechtotext/v1/stream?{urlencode(asked)}")


def vosk(server: VendorServer, path: str = "/?engine=echo") -> Any:
    """Connect to the front of vosk-server."""
    return opened(f"ws://127.0.0.1:{server.vosk_port}{path}")


class VendorServer(Server):
    """A server that speaks as vosk-server does on another port."""

    vosk_port = 0


@contextmanager
def vendor_serving(log: Path, **settings: object) -> Iterator[VendorServer]:
    """Run a server with all fronts for the length of a block."""
    port = free_port()
    with serving(log, fronts__vosk__port=port, **settings) as server:
        server.__class__ = VendorServer
        assert isinstance(server, VendorServer)
        server.vosk_port = port
        yield server
