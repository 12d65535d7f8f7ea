"""The stock adapter: a WebSocket of any ASGI server as an actor's transport.

ASGI has to be awaited, so this transport is never writable; it brings a reader and a writer of
its own, and the writer takes everything from the mailbox.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from actors.commands import AnyCommand
from actors.connection import ConnectionActor
from actors.errors import Close
from actors.wire import Burst, Codec

ABORT = "roomcast.abort"
"""Extension in the ASGI scope through which a server lets the connection be cut."""
LOST = "roomcast.lost"
"""Extension through which a server tells that the connection is gone: a list of functions, which
it calls with the event loop's time."""
GONE_WITHIN = 5.0
"""Seconds to work through what a peer sent before it disappeared."""
REASON_BYTES = 123
"""Longest reason that fits a close frame (RFC 6455, section 5.5)."""


class AsgiTransport:
    """One accepted WebSocket, from hello to the close frame."""

    writable = False

    def __init__(self, websocket: WebSocket, codec: Codec) -> None:
        self.codec: Codec = codec
        self._websocket = websocket
        self._close: Close | None = None
        self._peer_code = 1006
        self._reading, self._running = anyio.CancelScope(), anyio.CancelScope()

    def write(self, burst: Burst) -> None:
        """Never called: see `writable`."""
        raise RuntimeError("an ASGI socket must be awaited")

    def close(self, close: Close) -> None:
        """Read no more; the writer sends what is left and then the close frame. Idempotent."""
        self._close = self._close or close
        self._reading.cancel()

    def abort(self) -> None:
        """Stop waiting for the peer, and cut the connection if the server lets us. Idempotent."""
        self._running.cancel()
        abort: Callable[[], None] | None = self._websocket.scope.get("extensions", {}).get(ABORT)
        if abort is not None:
            abort()

    async def run(self, actor: ConnectionActor, first: AnyCommand | None) -> None:
        """Carry out the first command, if any, then carry the connection to its end."""
        self._websocket.scope.get("extensions", {}).get(LOST, []).append(self._hurry)
        try:
            with self._running:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write, actor)
                    await self._read(actor, first)
        finally:
            actor.gone(self._peer_code)

    def _hurry(self, now: float) -> None:
        """Bound what is left to do for a peer that has gone: its last messages may be stuck."""
        self._running.deadline = now + GONE_WITHIN

    async def _read(self, actor: ConnectionActor, first: AnyCommand | None) -> None:
        with self._reading:
            if first is not None:
                await actor.begin(first)

            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    self._peer_code = message.get("code") or 1006
                    self._running.cancel()
                    return

                text = message.get("text")
                if text is not None or self.codec == "msgpack":
                    # A burst of commands must not keep the loop: what they publish leaves between.
                    await anyio.lowlevel.checkpoint()

                await actor.receive(message["bytes"] if text is None else text)

    async def _write(self, actor: ConnectionActor) -> None:
        try:
            while True:
                frame = await actor.egress.receive()
                if self.codec == "json":
                    await self._websocket.send({"type": "websocket.send", "text": frame.text})
                else:
                    await self._websocket.send({"type": "websocket.send", "bytes": frame.msgpack})
        except anyio.EndOfStream:
            await self._hang_up()
        except WebSocketDisconnect as gone:
            self._peer_code = gone.code
            self._running.cancel()

    async def _hang_up(self) -> None:
        assert self._close is not None
        reason = self._close.reason[:REASON_BYTES]
        try:
            await self._websocket.close(self._close.code, reason)
        except (WebSocketDisconnect, RuntimeError):
            return  # the peer was first: there is nobody left to tell
