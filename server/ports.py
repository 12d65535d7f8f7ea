"""What the parts of the lean protocol are to each other, and what every protocol bounds alike."""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.server import ServerState

from server.frames import Payload, Violation
from server.turns import Turns, turns_of
from server.wheel import Wheel, wheel_of

End = tuple[str, int | None]
"""Address and port; a socket of UNIX has a path and no port."""
LOST = 1006
"""Close code of a connection that ended without one."""
CLOSE_WITHIN = 5.0
"""Seconds a peer has to answer a close frame, or to take what is left for it."""
ABORT_AFTER = 2.0
"""Seconds between giving a peer up and cutting its connection."""
UNREAD = 1024 * 1024
"""Bytes of a peer that are read and dropped after its end, so that our close frame arrives."""
TURN = 64
"""Frames of a connection after which others have their turn."""
PINGS = 50
"""Pings of a peer in a second, or in all while it does not read, for each costs a pong; pongs that
nobody asked for count as much."""


def ends_of(transport: BaseTransport) -> tuple[End | None, End | None]:
    """Return the addresses of this side and of the peer, as ASGI has them.

    uvicorn makes sockets of the connection to ask them, which calls the kernel four times more.
    """
    return _end(transport.get_extra_info("sockname")), _end(transport.get_extra_info("peername"))


def _end(found: Any) -> End | None:
    if isinstance(found, tuple):
        return str(found[0]), int(found[1])

    return (found, None) if found and isinstance(found, str) else None


class Controls:
    """Counts the pings of a peer, and its pongs that nobody asked for."""

    __slots__ = ("_count", "_since")

    def __init__(self) -> None:
        self._count, self._since = 0, 0.0

    def count(self, now: float, read: bool) -> None:
        """Count one; time clears nothing unless our pongs are `read`. Raises Violation."""
        if read and now - self._since >= 1:
            self._count, self._since = 0, now

        self._count += 1
        if self._count > PINGS:
            raise Violation(1008, "too many pings or pongs")


class Sink(Protocol):
    """Where the messages of a connection go, and who writes to it."""

    writable: bool
    """Whether bytes that are written go out at once; kept up by the connection."""

    def message(self, message: Payload) -> None:
        """Take a message; call `hold` to get no more for now."""

    def resume(self) -> None:
        """Write what could not be written."""

    def violated(self, violation: Violation) -> None:
        """End the connection with `close`, for the peer broke the protocol."""

    def lost(self, code: int) -> None:
        """The connection is gone, by this close code of the peer, or 1006. Idempotent."""

    def due(self) -> float | None:
        """Act on the deadline that `wait` set; return the seconds until the next."""


class Socket(Protocol):
    """A connection as its sink uses it."""

    transport: asyncio.Transport
    crowded: bool
    """Whether more has come than one turn of the loop is for; it is acted on in the next ones."""

    def accept(self, deflates: bool, early: bytes) -> None:
        """Begin with frames, `early` ones first, holding the first message until `proceed`."""

    def adopt(self, sink: Sink) -> None:
        """Give the connection to another sink, which gets messages once it says `proceed`."""

    def hold(self) -> None:
        """Give no more messages until `proceed`."""

    def proceed(self) -> None:
        """Give messages again, those first that came meanwhile."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and cut the connection if the peer does not answer. Idempotent."""

    def abort(self) -> None:
        """Cut the connection. Idempotent."""

    def wait(self, seconds: float) -> None:
        """Ask the sink when this time has passed, instead of keeping the connection alive."""


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        if not config.loaded:
            config.load()

        self.config, self.state, self.loop = config, state, loop
        self.wheel: Wheel = wheel_of(loop)
        self.turns: Turns = turns_of(loop)
        self.limit = config.ws_max_size
        """Bytes of one message."""
        self.interval = config.ws_ping_interval or 0.0
        """Seconds of silence after which a peer is pinged; 0 for never."""
        self.timeout = config.ws_ping_timeout or self.interval
        """Seconds a peer has to answer a ping."""

    @classmethod
    def by(
        cls, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop | None
    ) -> Shared:
        """Return what the connections of this server share."""
        shared = _shared.get(state)
        if shared is None:
            shared = _shared[state] = cls(config, state, loop or asyncio.get_running_loop())

        return shared


_shared: WeakKeyDictionary[ServerState, Shared] = WeakKeyDictionary()
