"""The lean WebSocket protocol of uvicorn: `ws=` of the server.

An idle connection owns no task, no timer and no buffer. It reads frames, answers pings, ends what
breaks the rules, and gives messages to its sink: the ASGI application until the route has admitted
the connection, its actor from then on. Writes go to the transport as prepared bytes, which it
sends at once or else says `pause_writing`, for its high-water mark is zero.
picows has no deflate, and its read buffer doubles for a flooding peer and never shrinks.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from actors.wire import pack_frame
from server.asgi import ACCEPT_WITHIN, AsgiSession
from server.frames import CLOSE, PART, PING, PONG, FrameReader, Violation, close_frame, read_close
from server.lean import NOBODY
from server.ports import ABORT_AFTER, CLOSE_WITHIN, LOST, TURN, UNREAD, Controls, Shared, Sink
from server.upgrade import Request
from server.wheel import TICK


class LeanWebSocket(asyncio.Protocol):
    """One WebSocket connection, from the head of its request to its end."""

    __slots__ = (
        "__weakref__",
        "_asked",
        "_closing",
        "_controls",
        "_dropped",
        "_heard",
        "_held",
        "_lost",
        "_paused",
        "_peer_code",
        "_reader",
        "_shared",
        "_sink",
        "crowded",
        "slot",
        "transport",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Make the protocol of a request to upgrade, as uvicorn does."""
        self._shared = shared = Shared.by(config, server_state, _loop)
        self.slot = -1
        self._reader: FrameReader | None = None
        """Absent until the connection is accepted."""
        self._held = self._paused = self._closing = self._lost = self.crowded = False
        self._asked = 0
        """Tick in which a ping was sent that has to be answered, or 0."""
        self._heard = shared.wheel.now
        """Tick in which the newest bytes came."""
        self._peer_code = self._dropped = 0
        self._controls: Controls | None = None
        self._sink: Sink = AsgiSession(self, shared, app_state)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the head."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)
        self._shared.state.connections.add(self)  # type: ignore[arg-type]
        self._shared.wheel.watch(self, ACCEPT_WITHIN)

    def request_received(self, request: Request, early: bytes) -> None:
        """Take the head of the request from a parser that has read it, and what came behind it."""
        cast(AsgiSession, self._sink).receive_request(request, early)

    def data_received(self, data: bytes) -> None:
        """Take what came; one read too many is kept while the sink takes no more."""
        self._heard = self._shared.wheel.now
        if self._reader is None:
            cast(AsgiSession, self._sink).receive_head(data)
            return

        if self._peer_code:
            self._dropped += len(data)
            if self._dropped > UNREAD:  # within reason: what comes after the end of the peer
                self.transport.abort()

            return

        if self._held or self.crowded:
            self._reader.feed(data)
            self._pause()
        elif not self._closing and (message := self._reader.whole(data)) is not None:
            self._sink.message(message)
        else:
            self._reader.feed(data)
            self._pump()

    def eof_received(self) -> None:
        """Bound the flush that the transport begins: half a connection is none."""
        self._shared.wheel.watch(self, CLOSE_WITHIN + ABORT_AFTER)

    def pause_writing(self) -> None:
        """Say that the kernel takes no more."""
        self._sink.writable = False

    def resume_writing(self) -> None:
        """Write what has waited."""
        if not self._over:
            self._sink.writable = True
            self._sink.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the server's books, and tell the sink in its turn: many may be lost at once."""
        self._shared.wheel.forget(self)
        self._shared.state.connections.discard(self)
        self._sink.writable, self._lost = False, True
        if self._sink is not NOBODY:
            self._shared.turns.call(self._tell_loss)

    def shutdown(self) -> None:
        """Close because the server stops; uvicorn calls it for each connection that is left."""
        if self._reader is None:
            self.transport.close()
        else:
            self.close(1012, "restart", ABORT_AFTER)

    def accept(self, deflates: bool, early: bytes) -> None:
        """Begin with frames, `early` ones first, holding the first message until `proceed`."""
        shared = self._shared
        self._reader, self._held = FrameReader(shared.limit, deflates), True
        if early:
            self._pause()
            self._reader.feed(early)

        if shared.interval:
            shared.wheel.watch(self, shared.interval)
        else:
            shared.wheel.forget(self)

    def adopt(self, sink: Sink) -> None:
        """Give the connection to another sink, which gets messages once it says `proceed`."""
        sink.writable = self._sink.writable and not self._over
        self._sink, self._held = sink, True

    def hold(self) -> None:
        """Give no more messages until `proceed`."""
        self._held = True

    def proceed(self) -> None:
        """Give messages again, those first that came meanwhile."""
        self._held = False
        if not self.crowded:
            self._pump()

        if self._paused and not self._held and not self.crowded:
            self._paused, self._heard = False, self._shared.wheel.now
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def close(self, code: int, reason: str, within: float = CLOSE_WITHIN) -> None:
        """Send a close frame, and cut the connection if the peer does not answer. Idempotent."""
        if self._over:
            return

        self._closing, self._sink.writable = True, False
        self.transport.write(close_frame(code, reason))
        self._shared.wheel.watch(self, within)
        if self._peer_code and self.transport.can_write_eof():
            self.transport.write_eof()  # what it still sends is dropped, or it would lose our words

        self.proceed()

    def abort(self) -> None:
        """Cut the connection. Idempotent."""
        self.transport.abort()

    def wait(self, seconds: float) -> None:
        """Ask the sink when this time has passed, instead of keeping the connection alive."""
        self._shared.wheel.watch(self, seconds)

    def due(self) -> float | None:
        """Ping a silent peer, and cut one that answers nothing or does not come to its end."""
        if self._reader is None:
            return self._sink.due()

        if self._over or self._peer_code:
            self.transport.abort()
            return self._sink.due()

        shared, now = self._shared, self._shared.wheel.now
        asked = self._asked > self._heard and not self._paused
        since, most = (self._asked, shared.timeout) if asked else (self._heard, shared.interval)
        left = most - (now - since) * TICK
        if left > 0 and not self._paused:
            self._asked = self._asked if asked else 0
            return left

        if asked:
            self.close(1011, "keepalive ping timeout", ABORT_AFTER)
            return ABORT_AFTER

        # Its pong is not asked for while we do not read, but a broken connection shows.
        self._asked = 0 if self._paused else now
        if self.transport.get_write_buffer_size() == 0:
            self.transport.write(pack_frame(PING, b""))

        return shared.timeout if self._asked else shared.interval

    @property
    def _over(self) -> bool:
        """Whether a close frame has been sent, or the connection is going down without one."""
        return self._closing or self.transport.is_closing()

    def _pump(self) -> None:
        """Act on what is whole, until the sink holds, nothing is, or others have their turn."""
        reader, left = self._reader, TURN
        assert reader is not None
        try:
            while not self._held and not self._peer_code and (found := reader.step()) is not None:
                opcode, payload = found
                if opcode >= CLOSE:
                    self._control(opcode, cast(bytes, payload))
                elif found is not PART and not self._closing:
                    self._sink.message(payload)

                left -= 1
                if not left:
                    self._let_others()
                    return
        except Violation as violation:
            self._break(violation)

    def _pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _let_others(self) -> None:
        """Go on in the next turn of the loop."""
        self._pause()
        if not self.crowded:
            self.crowded = True
            self._shared.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Act on what is left, unless the sink holds."""
        self.crowded = False
        if not self._held:
            self.proceed()

        if self._lost:  # who was told in the crowd's midst could not end then
            self._shared.turns.call(self._tell_loss)

    def _tell_loss(self) -> None:
        """Tell the sink, once all that came before has been acted on."""
        if self.crowded:
            self._shared.turns.call(self._tell_loss)
        else:
            self._sink.lost(self._peer_code or LOST)
            if self._reader is None:
                self._sink = NOBODY  # no cycle is left for the garbage collector

    def _break(self, violation: Violation) -> None:
        """End with the code of the violation; a peer that broke its goodbye gets none."""
        self._peer_code = LOST
        if self._over:
            self.transport.close()
        else:
            self._shared.wheel.watch(self, CLOSE_WITHIN + ABORT_AFTER)
            self._sink.violated(violation)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._peer_code = read_close(payload)
            if not self._over:
                self._closing, self._sink.writable = True, False
                self.transport.write(pack_frame(CLOSE, payload[:2]))

            self._shared.turns.call(self._tell_loss)
            self._shared.wheel.watch(self, CLOSE_WITHIN)
            self.transport.close()
        elif opcode == PONG and self._asked:
            self._asked = 0
        elif not self._over:
            self._controls = self._controls or Controls()
            read = self.transport.get_write_buffer_size() == 0
            self._controls.count(self._shared.loop.time(), read)
            if opcode == PING:
                self.transport.write(pack_frame(PONG, payload))
