"""The ASGI side of a lean WebSocket: the scope of its request, `receive` and `send`.

A route that hands the connection to an actor takes it away from here with `adopt`; the task that
ran the application ends then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected, is_ssl

from actors.wire import deflate_frame, pack_frame
from server.frames import BINARY, NO_CODE, TEXT, Payload, Violation
from server.ports import LOST, Shared, Sink, Socket, ends_of
from server.upgrade import BadUpgrade, Headers, HeadReader, Request, Upgrade, denial_head, refusal

log = logging.getLogger("roomcast.protocol")

LEAN = "roomcast.lean"
"""Extension in the ASGI scope through which a route takes the connection over: an AsgiSession."""
ACCEPT_WITHIN = 10.0
"""Seconds for the head to come and for the application to accept or refuse."""
FLUSH_WITHIN = 5.0
"""Seconds for a peer to take the answer that refuses it."""
AT_ONCE = 16
"""Events of `send` after which others have their turn."""
Message = Mapping[str, Any]


class AsgiSession:
    """One connection as the application sees it."""

    writable = True

    def __init__(self, socket: Socket, shared: Shared, app_state: dict[str, Any]) -> None:
        self._socket, self._shared, self._app_state = socket, shared, app_state
        self._upgrade: Upgrade | None = None
        self._head: HeadReader | None = None
        self._early = self._unwritten = b""
        self._sends = 0
        self._asked = self._connected = self._answered = self._adopted = False
        self.deflates = False
        """Whether messages may be deflated, both ways."""
        self._denial: tuple[int, Headers, list[bytes]] | None = None
        self._message: Payload | None = None
        self._gone: int | None = None
        self._news: asyncio.Future[None] | None = None

    def receive_head(self, data: bytes) -> None:
        """Take bytes before the accept; ask the application when the head is whole."""
        if self._asked:
            self._early += data
            self._socket.transport.pause_reading()
            return

        self._head = self._head or HeadReader()
        try:
            request = self._head.receive(data)
        except BadUpgrade as bad:
            self._hang_up(refusal(bad))
            return

        if request is not None:
            self.receive_request(request, self._head.trailing)

    def receive_request(self, request: Request, early: bytes) -> None:
        """Ask the application; `early` are bytes that came behind the head."""
        self._asked, self._early = True, early
        try:
            self._upgrade = Upgrade(request)
        except BadUpgrade as bad:
            self._hang_up(refusal(bad))
        else:
            self._spawn(self._run(self._upgrade))

    def adopt(self, sink: Sink) -> bytes:
        """Give the connection to another sink; return what it has to write first."""
        self._adopted = True
        answer, self._unwritten = self._unwritten, b""
        self._socket.adopt(sink)
        if self._gone is not None:
            sink.lost(self._gone)

        return answer

    @property
    def socket(self) -> Socket:
        """The connection."""
        return self._socket

    async def receive(self) -> Message:
        """Return the next ASGI event."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}

        if self._message is None and self._gone is None and self._answered:
            self._write_answer()  # before a pong or a close frame that what was read calls for
            self._socket.proceed()

        while self._message is None and self._gone is None:
            await self._wait()

        if self._message is None:
            return {"type": "websocket.disconnect", "code": self._gone, "reason": ""}

        message, self._message = self._message, None
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def send(self, event: Message) -> None:
        """Carry out an ASGI event. Raises ClientDisconnected, or RuntimeError if out of order."""
        self._sends += 1
        if self._sends % AT_ONCE == 0:
            await asyncio.sleep(0)  # a peer that takes all must not keep the loop

        while not self.writable and self._gone is None:
            await self._wait()

        if self._gone is not None or self._socket.transport.is_closing():
            raise ClientDisconnected

        if self._answered:
            self._send(event)
        else:
            self._answer(event)

    def message(self, message: Payload) -> None:
        """Keep one message for `receive`."""
        self._message = message
        self._socket.hold()
        self._wake()

    def resume(self) -> None:
        """Let `send` go on."""
        self._wake()

    def violated(self, violation: Violation) -> None:
        """Close, and let the application hear of it."""
        self._socket.close(violation.code, violation.reason)
        self.lost(violation.code)

    def lost(self, code: int) -> None:
        """Let the application hear of the end."""
        if self._gone is None:
            self._gone = code
            self._wake()

    def due(self) -> float | None:
        """End a handshake that has not come to its end in time."""
        if self._answered or self._socket.transport.is_closing():
            self._socket.abort()
            return None

        if self._asked:
            self._refuse(503, "the application did not answer in time")
        else:
            self._refuse(408, "the head of the request did not come in time")

        return FLUSH_WITHIN

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        state = self._shared.state
        task = self._shared.loop.create_task(work)
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    async def _run(self, upgrade: Upgrade) -> None:
        """Run the application, and end what it has left open."""
        try:
            app: Any = self._shared.config.loaded_app
            await app(self._scope(upgrade), self.receive, self.send)
        except ClientDisconnected:
            return
        except Exception:
            log.exception("a WebSocket route failed")
            code, reason = 1011, "internal"
        else:
            code, reason = 1000, ""
            if not self._answered and self._gone is None:
                log.error("a WebSocket route returned without an answer")

        if self._adopted and code != 1000:
            self._socket.abort()
        elif self._answered and not self._adopted:
            self._write_answer()
            self._socket.close(code, reason)
        elif not self._answered and self._gone is None:
            self._refuse(500, "the server has a bug; it is logged")

    def _scope(self, upgrade: Upgrade) -> dict[str, Any]:
        transport, config = self._socket.transport, self._shared.config
        server, client = upgrade.request.ends or ends_of(transport)
        return upgrade.scope(
            {
                "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
                "scheme": "wss" if is_ssl(transport) else "ws",
                "server": server,
                "client": client,
                "root_path": config.root_path,
                "state": self._app_state.copy(),
                "extensions": {"websocket.http.response": {}, LEAN: self},
            }
        )

    def _answer(self, event: Message) -> None:
        """Accept or deny."""
        match event["type"]:
            case "websocket.accept" if self._denial is None:
                self._accept(event)
            case "websocket.close" if self._denial is None:
                self._refuse(403, "the application refuses this connection")
            case "websocket.http.response.start" if self._denial is None:
                self._denial = (event["status"], list(event.get("headers", [])), [])
            case "websocket.http.response.body" if self._denial is not None:
                status, headers, body = self._denial
                body.append(event.get("body", b""))
                if not event.get("more_body"):
                    self._deny(status, headers, b"".join(body))
            case kind:
                raise RuntimeError(f"{kind} cannot answer an upgrade here")

    def _accept(self, event: Message) -> None:
        assert self._upgrade is not None
        extension = None
        if self._shared.config.ws_per_message_deflate:
            extension = self._upgrade.negotiate_deflate()

        headers = [*self._shared.state.default_headers, *event.get("headers", [])]
        head = self._upgrade.accept(event.get("subprotocol"), extension, headers)
        self._answered, self.deflates = True, extension is not None
        self._unwritten = head  # so that it may leave together with what follows at once
        self._shared.loop.call_soon(self._write_answer)
        self._socket.accept(self.deflates, self._early)
        self._early = b""

    def _write_answer(self) -> None:
        if self._unwritten:
            self._socket.transport.write(self._unwritten)
            self._unwritten = b""

    def _send(self, event: Message) -> None:
        self._write_answer()
        if event["type"] == "websocket.close":
            code = event.get("code", 1000)
            self._socket.close(NO_CODE if code is None else code, event.get("reason") or "")
            self.lost(code)
            return

        if event["type"] != "websocket.send":
            raise RuntimeError(f"{event['type']} cannot come after the answer")

        text = event.get("text")
        opcode, payload = (BINARY, event["bytes"]) if text is None else (TEXT, text.encode())
        pack = deflate_frame if self.deflates else pack_frame
        self._socket.transport.write(pack(opcode, payload))

    def _refuse(self, status: int, sentence: str) -> None:
        """Deny with a sentence."""
        self._hang_up(refusal(BadUpgrade(status, sentence)))

    def _deny(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with what the application says instead of a WebSocket."""
        try:
            head = denial_head(status, [*self._shared.state.default_headers, *headers])
        except ValueError:
            log.exception("a denial cannot be written")
            self._socket.abort()
        else:
            self._hang_up(head + body)

    def _hang_up(self, answer: bytes) -> None:
        self._asked = self._answered = True
        self._socket.transport.write(answer)
        self._socket.transport.close()
        self._socket.wait(FLUSH_WITHIN)
        self.lost(LOST)

    async def _wait(self) -> None:
        """Wait until something has changed."""
        if self._news is None:
            self._news = self._shared.loop.create_future()

        await asyncio.shield(self._news)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set_result(None)
            self._news = None
