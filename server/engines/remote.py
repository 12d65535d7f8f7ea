"""An engine behind somebody's WebSocket, and the number of streams that it may have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from actors.errors import Refused
from actors.messages import AudioSpec
from server.engines.dialect import Dialect
from server.engines.options import Connection
from server.engines.remote_stream import RemoteStream


class Slots:
    """The streams that engines share, up to a number."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    @contextmanager
    def taken(self, name: str, setting: str) -> Iterator[None]:
        """Hold one. Raises Refused("engine_busy")."""
        if self.used >= self.limit:
            message = f"all {self.limit} {name} streams are in use; {setting} allows more"
            raise Refused("engine_busy", message, setting=setting)

        self.used += 1
        try:
            yield
        finally:
            self.used -= 1


class RemoteEngine:
    """Opens streams to one provider."""

    restarts = 0
    """Nothing of ours can die: each stream is a connection of its own."""
    acknowledges = False
    abandoned = 0

    def __init__(
        self,
        name: str,
        slots: Slots,
        connection: Connection,
        dialect: Callable[[AudioSpec], Dialect],
    ) -> None:
        """Make a `dialect` for each stream; it raises Refused for audio or settings that fail."""
        self.name, self.max_streams = name, slots.limit
        self._slots, self._connection, self._dialect = slots, connection, dialect

    @property
    def streams(self) -> int:
        """Streams open now, those that are being dialled included."""
        return self._slots.used

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused for audio or settings with which no stream can be opened."""
        self._dialect(spec)

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[RemoteStream]:
        """Open a stream; it is ready. Raises Refused or UpstreamLost.

        Leaving closes the connection, within a second.
        """
        dialect = self._dialect(spec)
        with self._slots.taken(self.name, f"{dialect.setting}.max_streams"):
            stream = RemoteStream(dialect, self._connection)
            try:
                await stream.connect()
                yield stream
            finally:
                await stream.aclose()
