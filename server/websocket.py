"""uvicorn's stock WebSocket class with its measured holes closed: `ws=` of the server.

The parent waits for ever for a peer that does not read, hangs on an upgrade that it cannot parse,
puts no bound on pings and fragments, and logs tracebacks that any peer can cause. Names are the
parent's own; the range of uvicorn is pinned.
"""

from __future__ import annotations

import logging
from asyncio import TimerHandle
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import MAX_LINE_LENGTH

from server.frames import Violation
from server.ports import ABORT_AFTER, CLOSE_WITHIN, TURN, UNREAD, Controls
from server.transport import ABORT, LOST
from server.upgrade import BadUpgrade, HeadReader, check, refusal

log = logging.getLogger("roomcast.websocket")
# Less would show tokens. Below one of uvicorn's loggers it would lose this level with their setup.
log.setLevel(logging.ERROR)
HIGH_WATER = 32 * 1024
"""Bytes the loop may hold for a peer before its writer waits."""
FRAGMENTS = 128
"""Fragments of one message; the size in bytes does not bound empty ones."""
PIECE = 1024
"""Bytes that the parser is given at a time: it makes frames of all of them at once."""


class HardenedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket connection that always ends."""

    _cutter: TimerHandle | None = None
    _early = b""
    """What came before the connection was accepted, which the parent would misread."""
    _rest = memoryview(b"")
    """What has come and waits for a later turn of the loop."""
    _left = _dropped = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """Bound what may wait for this peer."""
        super().connection_made(transport)
        self.close_timeout = CLOSE_WITHIN
        self.logger = self.conn.logger = log
        self.conn.debug = False
        self._lost: list[Callable[[float], None]] = []
        self._controls = Controls()
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Answer an upgrade that is none, which the parent leaves open or answers with little."""
        if not self.handshake_initiated and (bad := find_fault(data)) is not None:
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(refusal(bad))
            self.transport.close()
        elif self.handshake_initiated and not self.handshake_complete:
            self._early += data
            self.transport.pause_reading()
        elif not self.handshake_initiated:
            super().data_received(data)
        elif self.conn.eof_sent:
            self._drop(len(data))
        elif self._rest:
            self._rest = memoryview(bytes(self._rest) + data)
            self.transport.pause_reading()
        else:
            self._rest = memoryview(data)
            self._go_on()

        self._bound_end()

    def handle_events(self) -> None:
        """Count the frames of a turn."""
        self._left -= len(self.conn.events)
        super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        """End a connection that cuts a message into crumbs."""
        if self.close_sent:
            return

        if len(self.frames) >= FRAGMENTS:
            self._fail(1009, "too many fragments")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer, but not a flood."""
        if self._count_control():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # pongs: nobody is owed one after a close frame

    def handle_pong(self, event: Frame) -> None:
        """Count a pong that nobody asked for."""
        asked = self.pending_ping_payload
        if (asked is not None and bytes(event.data) == asked) or self._count_control():
            super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        """End a connection that sends what is no text; the parent logs a traceback for each."""
        text = self.curr_msg_data_type == "text" and not self.close_sent
        if text and not is_text(self.frames):
            self._fail(1007, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Send the close frame, then drop what still comes: to close with that unread would make
        the kernel of the peer throw our words away."""
        close = self.conn.close_sent
        assert close is not None
        self.close_sent, self._rest = True, memoryview(b"")
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
        )
        if self.transport.is_closing():
            return

        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.close_timer is None and self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
            self.close_timer = self.loop.call_later(CLOSE_WITHIN, self.transport.close)
        else:
            self.transport.close()

    def keepalive_timeout(self) -> None:
        """Cut a peer that answers no ping; it would not read a close frame either."""
        self.stop_keepalive()
        if self.read_paused:
            self.schedule_ping()  # its pong may be here: it is we who do not read
            return

        if not self.close_sent and not self.transport.is_closing():
            self._fail(1011, "keepalive ping timeout")

        self._cut_within(ABORT_AFTER)

    def eof_received(self) -> None:
        """Bound the flush that the transport begins: half a connection is none."""
        self._cut_within(CLOSE_WITHIN + ABORT_AFTER)

    def shutdown(self) -> None:
        """Close; the parent fails for a connection that its peer is closing already."""
        if not self.transport.is_closing():
            super().shutdown()

        self._cut_within(ABORT_AFTER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, even if it does not read; only a close frame makes it normal."""
        if self._rest:
            self.loop.call_soon(self.connection_lost, exc)  # when all is done that came before
            return

        if self._cutter is not None:
            self._cutter.cancel()

        if self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})

        super().connection_lost(exc)
        for tell in self._lost:
            tell(self.loop.time())

        self._lost.clear()

    async def run_asgi(self) -> None:
        """Let the application cut the connection and hear of its loss."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[ABORT], extensions[LOST] = self.transport.abort, self._lost
        await super().run_asgi()
        self._bound_end()

    async def receive(self) -> Any:
        """Return the next event, and read nothing before what has come is worked through."""
        message = await super().receive()
        self._stay_paused()
        return message

    async def send(self, message: Any) -> None:
        """Refuse what comes after the end, of which the application may not know yet."""
        await self.writable.wait()
        if self.close_sent or self.transport.is_closing():
            raise ClientDisconnected

        await super().send(message)
        self._stay_paused()
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # the parent logs each denial as an error otherwise

        if message["type"] == "websocket.accept" and self._early:
            early, self._early = self._early, b""
            self.transport.resume_reading()
            self.data_received(early)

        self._bound_end()

    def _fail(self, code: int, reason: str) -> None:
        """Send a close frame, unless the peer was first, and read no more."""
        self.conn.fail(code, reason)
        self.frames = []
        self.handle_parser_exception()
        self._cut_within(ABORT_AFTER)

    def _go_on(self) -> None:
        """Act on what has come, until others have their turn."""
        self._left = TURN
        while self._rest and self._left > 0:
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            super().data_received(bytes(piece))
            if self.conn.eof_sent:
                self._rest = memoryview(b"")

        if self._rest:
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

        self._bound_end()

    def _stay_paused(self) -> None:
        """Take it back that the parent reads on."""
        if self._rest:
            self.transport.pause_reading()

    def _drop(self, size: int) -> None:
        """Drop what comes after the end, within reason."""
        self._dropped += size
        if self._dropped > UNREAD:
            self.transport.abort()

    def _count_control(self) -> bool:
        """Count a ping or a pong, and say whether the connection goes on."""
        if self.close_sent or self.transport.is_closing():
            return False

        try:
            self._controls.count(self.loop.time(), self.writable.is_set())
        except Violation as violation:
            self._fail(violation.code, violation.reason)
            return False

        return True

    def _bound_end(self) -> None:
        """See that an end that has begun comes: a flush waits for ever for who does not read."""
        if self.close_sent or self.transport.is_closing():
            self._cut_within(CLOSE_WITHIN + ABORT_AFTER)

    def _cut_within(self, seconds: float) -> None:
        """Cut the connection if it is not lost by then; an earlier cut stays."""
        if self.disconnected:
            return

        deadline = self.loop.time() + seconds
        if self._cutter is not None:
            if self._cutter.when() <= deadline:
                return

            self._cutter.cancel()

        self._cutter = self.loop.call_at(deadline, self.transport.abort)


def find_fault(head: bytes) -> BadUpgrade | None:
    """Return what is wrong with a request head, as uvicorn hands it over: whole."""
    try:
        request = HeadReader().receive(head)
        if request is not None:
            check(request)
    except BadUpgrade as bad:
        return bad

    # The parent's parser gives up on a longer line, and leaves the connection open.
    if max(map(len, head.split(b"\r\n"))) + 2 > MAX_LINE_LENGTH:
        return BadUpgrade(431, f"a line of the head is over {MAX_LINE_LENGTH} bytes")

    return None


def is_text(pieces: list[bytes]) -> bool:
    """Say whether the fragments of a message are UTF-8 together."""
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False

    return True
