"""uvicorn's HTTP class of httptools with its holes closed.

The parent bounds neither a head nor the requests that wait behind one another, waits for a head for
ever, loses what comes with an upgrade and the body of a request that offers one to something else,
and takes a trailer for a header. Names are the parent's own; the range of uvicorn is pinned.
"""

from __future__ import annotations

from asyncio.transports import Transport
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from server.inlet import PIECE, PIECES, Inlet
from server.ports import UNREAD, ends_of
from server.protocol import LeanWebSocket
from server.upgrade import HEAD_BYTES, HEADERS, Request, asks_for_websocket, denial_head
from server.wheel import wheel_of

HEAD_WITHIN = 10.0
"""Seconds for the head of a request, from the first byte that is expected of it."""
FLUSH_WITHIN = 5.0
"""Seconds for a peer to take the answer that refuses it."""
STOP_WITHIN = 4.0
"""Seconds for a peer to take the last answer when the server stops, which gives them five."""


class Unacceptable(Exception):
    """What ends the parsing of a request; the parser makes an error of its own of it."""


class HardenedHttp(HttpToolsProtocol):
    """An HTTP connection that neither waits for ever nor keeps what it cannot use yet."""

    flow: Inlet
    slot = -1
    _refused = False
    _dropped = 0
    _head = 0
    """Bytes of the lines of the head so far."""
    heading = False
    """Whether a head has begun, and not ended."""
    _steps = _fruitless = 0
    """Ends of heads and parts of bodies that have come, and the bytes parsed since the last one."""
    _status = 400
    """What a request that is not acceptable is answered with."""
    _overlong = False
    """Whether a body goes on behind its answer."""
    _held = memoryview(b"")
    """What is read and not yet parsed."""
    _answered: RequestResponseCycle | None = None
    """The request that the app is at, or was last; `cycle` is the newest."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        self.connections.add(self)
        self.transport = transport
        self.flow = Inlet(transport, lambda: self.loop.call_soon(self.go_on))
        self._ends = self.server, self.client = cast(Any, ends_of(transport))
        self.scheme = "https" if is_ssl(transport) else "http"
        wheel_of(self.loop).watch(self, HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        wheel_of(self.loop).forget(self)
        self._held = memoryview(b"")
        if self._answered is not None and not self._answered.response_complete:
            self._disconnect(self._answered)

        super().connection_lost(exc)
        self.flow.end()

    def shutdown(self) -> None:
        """End with the answers that are due, but wait for no body that they would need."""
        if self._is_busy:
            self._fail(503)
            wheel_of(self.loop).watch(self, STOP_WITHIN)
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._refused:
            self._drop(len(data))
            return

        self._held = memoryview(bytes(self._held) + data if self._held else data)
        self.go_on()

    def go_on(self) -> None:
        """Parse what was read as far as there is use for it, and read no more before it is."""
        for _ in range(PIECES):
            if self._held and self._has_use:
                piece, self._held = self._held[:PIECE], self._held[PIECE:]
                self._parse(piece)

        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return

        if self._held:
            self.flow.rest(self._has_use)
        elif not self.flow.read_paused and not self.transport.is_reading():
            self.transport.resume_reading()

        if self.heading and self.slot < 0:
            wheel_of(self.loop).watch(self, HEAD_WITHIN)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._head, self.heading = 0, True

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is none."""
        if self.heading:
            self._count(len(name) + len(value) + 4)
            if len(self.headers) >= HEADERS:
                self._status = 431
                raise Unacceptable

            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to answer a request, unless it asks to upgrade: the parser stops there."""
        self._steps += 1
        self.heading = False
        wheel_of(self.loop).forget(self)
        self._check_head()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._steps += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; one that asks to upgrade has not begun."""
        self._steps += 1
        if self._overlong:
            self._overlong = False
            wheel_of(self.loop).forget(self)

        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let the rest of a body that nobody wants come to its end, for a while."""
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete:
            self._overlong = True
            wheel_of(self.loop).watch(self, FLUSH_WITHIN)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def due(self) -> float | None:
        """Refuse a request whose head has not come in time."""
        if self._refused or self._overlong or self.transport.is_closing():
            self.transport.abort()
            return None

        if self._is_busy:
            return HEAD_WITHIN  # the answer before this head is still due

        self._refuse(408)
        return FLUSH_WITHIN

    def _parse(self, piece: memoryview) -> None:
        before, upgrades = self._steps, False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._held = memoryview(bytes(piece[upgrade.args[0] :]) + bytes(self._held))
            upgrades = True
        except httptools.HttpParserError as error:
            if not isinstance(error.__context__, Unacceptable | None):
                raise error.__context__ from None  # a bug, which the parser takes for bad input

            self._fail(self._status)
            return

        if upgrades:
            self._upgrade()
            return

        self._fruitless = 0 if self._steps > before else self._fruitless + len(piece)
        if self._fruitless > HEAD_BYTES:
            self._fail(431)

    def _check_head(self) -> None:
        """See that there is what the parent relies on, and the parser lets pass."""
        names, version = [name for name, _ in self.headers], self.parser.get_http_version()
        doubled = any(names.count(each) > 1 for each in (b"host", b"transfer-encoding"))
        if doubled or version not in ("1.0", "1.1") or (version == "1.1" and b"host" not in names):
            raise Unacceptable

        try:
            path = httptools.parse_url(self.url).path
        except httptools.HttpParserInvalidURLError:
            raise Unacceptable from None

        if not path or not path.isascii():
            raise Unacceptable

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            self._status = 431
            raise Unacceptable

    def _upgrade(self) -> None:
        """Become a WebSocket, or answer as if nothing but that had been asked for.

        Whoever offers HTTP/2 in this way sends the body all the same (RFC 9110, 7.8).
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        wanted = asks_for_websocket(version, self.headers)
        if method == b"CONNECT" or (wanted and self._is_busy):
            self._fail(400)
        elif wanted:
            trailing, self._held = bytes(self._held), memoryview(b"")
            self._open(Request(method, self.url, version, self.headers, self._ends), trailing)
            self.parser = self.flow = self.cycle = self._answered = cast(Any, None)
        else:
            line = b"%b %b HTTP/%b" % (method, self.url, version)
            kept = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self._parse(memoryview(b"\r\n".join([line, *kept, b"", b""])))

    def _open(self, request: Request, trailing: bytes) -> None:
        """Hand over the head, parsed to our own class, and the frames that came with it."""
        if self.ws_protocol_class is LeanWebSocket:
            self.connections.discard(self)
            protocol = LeanWebSocket(self.config, self.server_state, self.app_state)
            protocol.connection_made(self.transport)
            protocol.request_received(request, trailing)
            self.transport.set_protocol(protocol)
            return

        offer = {b"upgrade": b"websocket", b"connection": b"Upgrade"}
        others = [(key, value) for key, value in self.headers if key not in offer]
        self.scope["method"] = request.method.decode()
        self.scope["headers"] = [*others, *offer.items()]
        super().handle_websocket_upgrade()
        if trailing:
            cast(Any, self.transport.get_protocol()).data_received(trailing)

    @property
    def _has_use(self) -> bool:
        """Whether more can be used now."""
        return not (self.pipeline or self.flow.read_paused or self.transport.is_closing())

    @property
    def _is_busy(self) -> bool:
        """Whether a request is still to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _fail(self, status: int) -> None:
        """Refuse what came, behind the answers to the requests before it."""
        self._held = memoryview(b"")
        if not self._is_busy:
            self._refuse(status)
        elif not self.cycle.more_body:
            self.cycle.keep_alive, self._refused = False, True
        else:
            self._disconnect(self.cycle)
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()
            else:
                self._refuse(status)

    def _disconnect(self, cycle: RequestResponseCycle) -> None:
        """Let the app know that nobody waits for its answer."""
        cycle.disconnected, cycle.waiting_for_100_continue = True, False
        cycle.message_event.set()

    def _refuse(self, status: int) -> None:
        """Answer, and read on for a while: to close with something unread would lose the answer."""
        self._refused = True
        self.transport.write(denial_head(status, [(b"content-length", b"0")]))
        self.transport.write_eof()
        wheel_of(self.loop).watch(self, FLUSH_WITHIN)

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > UNREAD:
            self.transport.abort()
