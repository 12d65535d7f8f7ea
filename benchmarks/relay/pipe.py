"""The least that a relay in Python can do: bytes from one socket to the other, unread.

Raw protocols on uvloop; no WebSocket, no bound, no answer to any trouble. What it uses is the
kernel's and the event loop's part in what the others use.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

HOST = "127.0.0.1"


class End(asyncio.Protocol):
    """One end of a pipe."""

    other: End | None = None

    def __init__(self) -> None:
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what comes; keep what comes before the other end is there."""
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end too."""
        if self.other is not None:
            self.other.transport.close()

    def join(self, other: End) -> None:
        """Pass on to the other end from here on."""
        self.other = other
        if self._early:
            other.transport.write(self._early)


class Front(End):
    """The end of a client, which makes the other."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the provider."""
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, back = await loop.create_connection(End, HOST, self._port)
        back.join(self)
        self.join(back)


async def main(port: int, provider: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(provider), HOST, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
