"""uvicorn's HTTP class with its measured holes closed: `http=` of the server.

The parent waits for ever for the head of a request, loses frames that come with an upgrade, reads
only the newest of several Connection lines, and lets HTTP/1.0 upgrade. Names are the parent's own;
the range of uvicorn is pinned.
"""

from __future__ import annotations

import asyncio
from asyncio.transports import Transport
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.auth import site_of
from server.forwarded import trusts
from server.node import Node
from server.ports import UNREAD
from server.protocol import LeanWebSocket
from server.upgrade import HEAD_BYTES, Request, asks_for_websocket, denial_head
from server.wheel import wheel_of

HEAD_WITHIN = 10.0
"""Seconds for the head of a request, from the first byte that is expected of it."""
FLUSH_WITHIN = 5.0
"""Seconds for a peer to take the answer that refuses it."""
_OFFERS = (b"upgrade", b"connection")


class Door(asyncio.Protocol):
    """Cuts the connections of addresses that are deaf to refusals, and hands over all others.

    A refusal costs ten times as much as this.
    """

    def __init__(self, app_state: dict[str, Any], **given: Any) -> None:
        """Take what uvicorn gives to each connection."""
        self._node: Node = app_state["node"]
        self._given = {"app_state": app_state, **given}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who is there."""
        if self._is_deaf(transport.get_extra_info("peername")):
            self._node.metrics.observer.cut()
            cast(asyncio.Transport, transport).abort()
            return

        protocol = HardenedHttp(**self._given)
        transport.set_protocol(protocol)
        protocol.connection_made(cast(asyncio.Transport, transport))

    def _is_deaf(self, peer: Any) -> bool:
        """A socket of UNIX has no address, and a proxy speaks for many."""
        if not isinstance(peer, tuple) or trusts(str(peer[0]), self._node.trusted):
            return False

        now = self._node.manager.clock.monotonic()
        return self._node.turnstile.is_deaf(site_of({"client": peer}), now)


class HardenedHttp(H11Protocol):
    """An HTTP connection that does not wait for ever."""

    slot = -1
    _refused = False
    _dropped = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        wheel_of(self.loop).watch(self, HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        wheel_of(self.loop).forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound the head in time, and in size even if it comes at once."""
        if self._refused:
            self._dropped += len(data)
            if self._dropped > UNREAD:
                self.transport.abort()

            return

        if self.conn.their_state is h11.IDLE and self._is_too_long(data):
            self._refuse(431)
            return

        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return

        if self.conn.their_state is not h11.IDLE:
            wheel_of(self.loop).forget(self)
        elif self.slot < 0 and self.conn.trailing_data[0]:
            wheel_of(self.loop).watch(self, HEAD_WITHIN)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand over the head, and the frames that came with it."""
        wheel_of(self.loop).forget(self)
        trailing = self.conn.trailing_data[0]
        if self.ws_protocol_class is LeanWebSocket:
            self._hand_over(event, trailing)
            return

        others = [(key, value) for key, value in self.headers if key not in _OFFERS]
        self.headers = [*others, (b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
        super().handle_websocket_upgrade(event)
        if trailing:
            cast(Any, self.transport.get_protocol()).data_received(trailing)

    def due(self) -> float | None:
        """Refuse a request whose head has not come in time."""
        if self._refused or self.transport.is_closing():
            self.transport.abort()
            return None

        self._refuse(408)
        return FLUSH_WITHIN

    def _should_upgrade(self) -> bool:
        version = self.scope["http_version"].encode()
        return self._should_upgrade_to_ws() and asks_for_websocket(version, self.headers)

    def _hand_over(self, event: h11.Request, trailing: bytes) -> None:
        """Hand the parsed head to our own class, which need not parse it again."""
        self.connections.discard(self)
        protocol = LeanWebSocket(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        line = event.method, event.target, event.http_version
        protocol.request_received(Request(*line, self.headers, self.server, self.client), trailing)
        self.transport.set_protocol(protocol)

    def _is_too_long(self, data: bytes) -> bool:
        """Say whether a head goes on after the bytes that it may have."""
        held = self.conn.trailing_data[0]
        if len(held) + len(data) <= HEAD_BYTES:
            return False

        return b"\r\n\r\n" not in held[-3:] + data[: HEAD_BYTES - len(held)]

    def _refuse(self, status: int) -> None:
        """Answer, and read on for a while: to close with something unread would lose the answer."""
        self._refused = True
        self.transport.write(denial_head(status, [(b"content-length", b"0")]))
        self.transport.write_eof()
        wheel_of(self.loop).watch(self, FLUSH_WITHIN)
