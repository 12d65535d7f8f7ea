"""A WebSocket to a provider: websockets' sans-I/O client on an asyncio transport, without a task.

Its one rule: it is bounded every way. Messages have a size, the buffer a mark, a silent peer a
time, and the end a second. What comes is parsed in slices, each in a turn of the loop of its own,
and nothing is read before all that came is taken; so a flood waits in TCP. Nothing is compressed,
no redirect is followed, and no proxy is taken from the environment: the connection goes to the
address that was looked at, or nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import anyio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN
from websockets.typing import Subprotocol

from server.engines.address import Address, tls
from server.engines.inflow import Event, Inflow
from server.engines.options import Connection
from server.engines.outbox import GATHERED, outbox_of
from server.engines.reading import Reading
from server.frames import BINARY, client_frame

CLOSE_WITHIN = 1.0
"""Seconds a provider has to answer a close; then the connection is cut."""
OVERFULL = 1_048_576
"""Bytes in the buffer beyond the mark, all of them pongs, at which the connection is cut."""
LEFT_OVER = 65_536
"""Bytes that are still looked through for the answer to a close; then the connection is cut."""
ANSWER = 65_536
"""Bytes that the answer to the upgrade may have; websockets copies a body with each chunk."""
ABNORMAL = 1006

# Its debug messages hold the request with its key.
quiet = logging.getLogger(f"{__name__}.websockets")
quiet.setLevel(logging.WARNING)


class Owner(Protocol):
    """Who uses a link; each is called from the event loop and must not raise."""

    def opened(self) -> None:
        """The upgrade has been accepted."""

    def refused(self, status: int, headers: Mapping[str, str]) -> None:
        """The upgrade has been answered with this status."""

    def message(self, message: str | bytes) -> None:
        """A whole message has come."""

    def closed(self, code: int, reason: str) -> None:
        """The provider has closed the connection, or it broke: 1006."""

    def broken(self, why: str) -> None:
        """The provider has broken the protocol, or does not answer."""

    def resumed(self) -> None:
        """The buffer has room again."""


class Link(Reading):
    """One connection; it tells its owner of one ending at most."""

    def __init__(self, address: Address, options: Connection, owner: Owner) -> None:
        self.writable = True
        """Whether the buffer is below its mark."""
        super().__init__()
        self._address, self._options, self._owner = address, options, owner
        self._gathered: list[bytes] = []
        """Audio that waits for that of other streams."""
        self._size, self._gathers = 0, GATHERED if options.gather_ms else 0
        self._outbox = outbox_of(self._loop, options.gather_ms / 1000)
        self._gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._left_over = self._answer = 0
        self._joined = False
        """Whether `connect` has come to its end."""

    async def connect(
        self, headers: Sequence[tuple[str, str]], subprotocols: Sequence[str]
    ) -> None:
        """Connect and ask for the upgrade, whose answer the owner is told. Raises OSError."""
        address = self._address
        offered = [Subprotocol(each) for each in subprotocols] or None
        wire = self._wire = ClientProtocol(
            address, subprotocols=offered, max_size=self._options.message_bytes, logger=quiet
        )
        self._inflow, self._request = Inflow(wire, self._options.message_bytes), wire.connect()
        for name, value in headers:
            self._request.headers[name] = value

        await self._loop.create_connection(
            lambda: self,
            address.host,
            address.port,
            ssl=tls() if address.secure else None,
            ssl_handshake_timeout=self._options.connect_within if address.secure else None,
        )
        self._joined = True

    def audio(self, data: bytes) -> None:
        """Send a binary message soon; never waits, so look at `writable` before."""
        transport = self._transport
        assert transport is not None
        if transport.is_closing():  # a write has found that nobody is there; the owner learns soon
            self.writable = False
            return

        self._gathered.append(client_frame(BINARY, data))
        self._size += len(data)
        if self._size >= self._gathers:
            self.release()
        elif len(self._gathered) == 1:
            self._outbox.add(self)

    def release(self) -> None:
        """Send the audio that was gathered."""
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered and self._transport is not None and not self._transport.is_closing():
            self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def send(self, message: str | bytes) -> None:
        """Send one of the protocol's own messages, whatever the buffer holds."""
        if self._wire.state is not OPEN:
            return  # the ending is on its way to the owner

        if isinstance(message, str):
            self._wire.send_text(message.encode())
        else:
            self._wire.send_binary(message)

        self._flush()

    def hang_up(self) -> None:
        """Begin the closing handshake; what the provider still says is still taken."""
        if self._transport is not None and self._wire.state is OPEN:
            self._wire.send_close(1000)
            self._flush()

    async def aclose(self) -> None:
        """Close as the protocol has it, within a second; then cut. Also under cancellation."""
        with anyio.CancelScope(shield=True):
            self._stop()
            if self._transport is None or not self._joined:
                # Cancelled while it connected: uvloop has closed the transport, and tells nobody.
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.abort()

                return

            self.resume()  # a close that is not read is not answered
            self.hang_up()
            if self._wire.state is not CONNECTING:
                with anyio.move_on_after(CLOSE_WITHIN):
                    await self._gone.wait()

            self._transport.abort()
            with anyio.move_on_after(CLOSE_WITHIN):
                await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._options.buffer_bytes)
        self._wire.send_request(self._request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came, and write what the protocol answers to it."""
        self._silent = False
        if self._over:
            self._left_over += len(data)
            if self._left_over > LEFT_OVER:
                self._break("goes on")
                return

        if self._wire.state is CONNECTING:
            self._answer += len(data)

        self._came(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end behind what came, if nobody has."""
        self._gone.set()
        self._lost = True
        self._go_on()

    def pause_writing(self) -> None:
        """The buffer is above its mark."""
        self.writable = False

    def resume_writing(self) -> None:
        """The buffer is well below its mark."""
        self.writable = True
        self._owner.resumed()

    def _answered(self, response: Response) -> None:
        error = self._wire.handshake_exc
        if isinstance(error, InvalidStatus):
            self._end()
            headers = {name.lower(): value for name, value in response.headers.raw_items()}
            self._owner.refused(response.status_code, headers)
        elif error is None:
            self._timer = self._loop.call_later(self._options.ping_interval, self._ping)
            self._owner.opened()

    def _take(self, event: Event) -> None:
        if isinstance(event, Response):
            self._answered(event)
        elif isinstance(event, Frame):
            self._close_received()
        elif not self._over:
            self._owner.message(event)

    def _taken(self) -> None:
        if self._wire.writes:
            self._flush()

        if self._answer > ANSWER and self._wire.state is CONNECTING:
            self._break("answers the upgrade without end")

    def _drained(self) -> None:
        if self._wire.parser_exc is not None:
            self._break("has broken the WebSocket protocol")
        elif self._wire.handshake_exc is not None:
            self._break("has answered with no WebSocket")

    def _ended(self) -> None:
        if not self._over:
            self._stop()
            self._owner.closed(ABNORMAL, "")

    def _close_received(self) -> None:
        close, over = self._wire.close_rcvd, self._over
        assert close is not None
        self._flush()  # the echo
        self._end()
        if not over:
            self._owner.closed(close.code, close.reason)

    def _ping(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return

        if self._silent and self._reading:
            self._break(f"did not answer a ping for {self._options.ping_interval:g} s")
            return

        self._silent = True
        self._wire.send_ping(b"")
        self._flush()
        self._timer = self._loop.call_later(self._options.ping_interval, self._ping)

    def _flush(self) -> None:
        """Write what the protocol has to say, behind the audio that came before."""
        assert self._transport is not None
        self.release()
        for data in self._wire.data_to_send():
            if data and not self._transport.is_closing():
                self._transport.write(data)

        mark = self._options.buffer_bytes + OVERFULL
        if self._transport.get_write_buffer_size() > mark:
            self._break("pings without reading the answers")

    def _break(self, why: str) -> None:
        if not self._over:
            self._stop()
            self._owner.broken(why)

        assert self._transport is not None
        self._transport.abort()

    def _end(self) -> None:
        """Close the transport behind what is written."""
        self._stop()
        assert self._transport is not None
        self._transport.close()

    def _stop(self) -> None:
        """Tell the owner of nothing more."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
