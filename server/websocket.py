"""uvicorn's stock WebSocket class with its measured holes closed: `ws=` of the server.

The parent waits for ever for a peer that does not read, hangs on an upgrade that it cannot parse,
and logs every denial as an error. Names are the parent's own; the range of uvicorn is pinned.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from server.transport import ABORT

SEND_BUFFER = 128 * 1024
"""Bytes the kernel may hold for a peer; more would hide a slow one from its mailbox."""
RECEIVE_BUFFER = 128 * 1024
"""Bytes of a speaker that the kernel may hold: 4 s of 16 kHz audio while an engine is busy."""
HIGH_WATER = 32 * 1024
"""Bytes the loop may hold for a peer before its writer waits."""
ABORT_AFTER = 2.0
"""Seconds between giving a peer up and cutting its connection."""


class HardenedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket connection that always ends."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Bound what may wait for this peer."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def data_received(self, data: bytes) -> None:
        """Answer an upgrade that cannot be parsed, instead of leaving it open."""
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self.handshake_complete = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """End a connection that sends what is no text; the parent logs a traceback for each."""
        if self.curr_msg_data_type == "text" and not is_text(self.frames):
            self.conn.send_close(1007)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        """Cut a peer that answers no ping; it would not read a close frame either."""
        super().keepalive_timeout()
        self.loop.call_later(ABORT_AFTER, self.transport.abort)

    async def run_asgi(self) -> None:
        """Let the application cut the connection."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[ABORT] = self.transport.abort
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        """Count a denial as the end of the handshake that it is."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True


def is_text(pieces: list[bytes]) -> bool:
    """Say whether the fragments of a message are UTF-8 together."""
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False

    return True
