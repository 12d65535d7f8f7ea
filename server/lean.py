"""The lean transport: an actor's writes go to its socket, and its socket's messages to the actor.

What need not wait is done in the callback of the event loop; a task exists only while a message
waits for something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from anyio import EndOfStream, WouldBlock
from anyio.lowlevel import checkpoint

from actors.commands import AnyCommand
from actors.connection import ConnectionActor
from actors.errors import ABUSE, BAD_DATA, BAD_PROTOCOL, TOO_BIG, Close
from actors.wire import Burst, Codec, Form, Frame
from server.asgi import AsgiSession
from server.frames import Payload, Violation
from server.ports import LOST, Socket

GONE_WITHIN = 5.0
"""Seconds to work through what a peer sent before it disappeared."""
AT_ONCE = 16
"""Messages of a burst after which others have their turn."""
JOINED = 64
"""Frames that leave the mailbox in one write."""
VIOLATIONS = {close.code: close for close in (BAD_PROTOCOL, BAD_DATA, ABUSE, TOO_BIG)}
FORMS: dict[tuple[Codec, bool], Form] = {
    ("json", False): "json_frames",
    ("json", True): "deflated_json_frames",
    ("msgpack", False): "msgpack_frames",
    ("msgpack", True): "deflated_msgpack_frames",
}


class Nobody:
    """The sink of a connection that is over."""

    writable = False

    def message(self, message: Payload) -> None:
        """Drop a message."""

    def resume(self) -> None:
        """Have nothing to write."""

    def violated(self, violation: Violation) -> None:
        """Be indifferent."""

    def lost(self, code: int) -> None:
        """Know already."""

    def due(self) -> float | None:
        """Wait for nothing."""
        return None


NOBODY = Nobody()


class LeanTransport:
    """One accepted WebSocket, from hello to the close frame."""

    __slots__ = (
        "_actor",
        "_close",
        "_corked",
        "_form",
        "_gone",
        "_socket",
        "_waiting",
        "_work",
        "_write",
        "codec",
        "writable",
    )

    def __init__(self, session: AsgiSession, codec: Codec) -> None:
        """Take the connection away from the application that has accepted it."""
        self.codec: Codec = codec
        self.writable = False
        self._socket: Socket = session.socket
        self._actor: ConnectionActor | None = None
        self._close: Close | None = None
        self._gone = 0
        self._waiting: Payload | None = None
        """The message that `_work` takes next."""
        self._work: asyncio.Task[None] | None = None
        self._form: Form = FORMS[codec, session.deflates]
        self._corked: list[bytes] | None = [session.adopt(self)]
        """What leaves together with the answer to the upgrade."""
        self._write: Callable[[bytes], None] = self._corked.append

    def write(self, burst: Burst) -> None:
        """Hand over frames; only while writable and with the mailbox empty."""
        self._write(getattr(burst, self._form))

    def close(self, close: Close) -> None:
        """Send what the mailbox still holds, then the close frame. Idempotent."""
        self._close = self._close or close
        self._uncork()
        if self._actor is None or not self._actor.egress:
            self._socket.close(self._close.code, self._close.reason)

    def abort(self) -> None:
        """Cut the connection. Idempotent."""
        self._socket.abort()

    async def run(self, actor: ConnectionActor, first: AnyCommand | None) -> None:
        """Carry out the first command, if any; then the connection goes on without a task."""
        self._actor, self._work = actor, asyncio.current_task()
        try:
            if first is not None:
                asyncio.get_running_loop().call_soon(self._uncork)  # the command may have to wait
                await actor.begin(first)

            self._uncork()
            self._socket.proceed()
            await self._work_off()
        finally:
            self._rest()

    def message(self, message: Payload) -> None:
        """Act on a message now if nothing has to be waited for, or else in a task."""
        assert self._actor is not None
        if self._actor.receive_nowait(message):
            return

        self._socket.hold()
        self._waiting = message
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run())

    def resume(self) -> None:
        """Empty the mailbox, as far as the socket takes it."""
        if self._actor is None:
            return

        while self.writable and (frames := list(self._take())):
            self.write(Burst(frames))

        if self._close is not None and not self._actor.egress:
            self._socket.close(self._close.code, self._close.reason)

    def violated(self, violation: Violation) -> None:
        """End the connection with the code that belongs to it."""
        close = VIOLATIONS[violation.code].because(violation.reason)
        if self._actor is None:
            self.close(close)
        else:
            self._actor.close(close)

    def lost(self, code: int) -> None:
        """Tell the actor, once what its peer sent before has been worked through."""
        if self._gone in (0, LOST):
            self._gone = code

        if self._work is None:
            self._rest()
        else:
            self._socket.wait(GONE_WITHIN)

    def due(self) -> float | None:
        """Give up on what a lost peer's last message waits for."""
        if self._gone and self._work is not None:
            self._work.cancel()

        return None

    def _uncork(self) -> None:
        """Write what has gathered, and from here on at once."""
        if self._corked is not None:
            corked, self._corked = self._corked, None
            self._write = self._socket.transport.write
            if not self._socket.transport.is_closing():
                self._write(b"".join(corked))

    async def _run(self) -> None:
        try:
            await self._work_off()
        finally:
            self._rest()

    async def _work_off(self) -> None:
        """Act on the message that waits, and on those that come behind it."""
        assert self._actor is not None
        count = 0
        while self._waiting is not None:
            message, self._waiting = self._waiting, None
            await self._actor.receive(message)
            count += 1
            if count % AT_ONCE == 0:
                await checkpoint()  # what a burst publishes leaves between

            self._socket.proceed()

    def _rest(self) -> None:
        """Be without a task again, and end if the peer has gone."""
        self._work = None
        if self._gone and self._actor is not None and not self._socket.crowded:
            actor, self._actor, self.writable = self._actor, None, False
            self._socket.adopt(NOBODY)  # no cycle is left for the garbage collector
            actor.gone(self._gone)

    def _take(self) -> Iterator[Frame]:
        assert self._actor is not None
        try:
            for _ in range(JOINED):
                yield self._actor.egress.receive_nowait()
        except (WouldBlock, EndOfStream):
            return
