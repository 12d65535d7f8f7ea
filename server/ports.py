"""What the parts of the lean protocol are to each other, and what every protocol bounds alike."""

from __future__ import annotations

import asyncio
from typing import Protocol

from uvicorn.config import Config
from uvicorn.server import ServerState

from server.frames import Payload, Violation
from server.wheel import Wheel, wheel_of

LOST = 1006
"""Close code of a connection that ended without one."""
CLOSE_WITHIN = 5.0
"""Seconds a peer has to answer a close frame, or to take what is left for it."""
ABORT_AFTER = 2.0
"""Seconds between giving a peer up and cutting its connection."""
PINGS = 50
"""Pings of a peer in a second, or in all while it does not read; each costs a pong."""


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
        self.limit = config.ws_max_size
        """Bytes of one message."""
        self.interval = config.ws_ping_interval or 0.0
        """Seconds of silence after which a peer is pinged; 0 for never."""
        self.timeout = config.ws_ping_timeout or self.interval
        """Seconds a peer has to answer a ping."""
