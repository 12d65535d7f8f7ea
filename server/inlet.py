"""The way into an HTTP connection: what was read already comes before what is still to be read."""

from __future__ import annotations

from asyncio.transports import Transport
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

PIECE = 2048
"""Bytes that are parsed at a time, so that few requests can begin before one of them waits."""
PIECES = 8
"""Pieces after which others have their turn."""


def _nothing() -> None:
    """Do nothing."""


class Inlet(FlowControl):
    """uvicorn's flow control, which would read on whatever is left of what was read."""

    def __init__(self, transport: Transport, resumed: Callable[[], object]) -> None:
        """Take what is to be called when more may come; that reads on once nothing is left."""
        super().__init__(transport)
        self._resumed = resumed

    def end(self) -> None:
        """Resume nothing any more: no cycle is left for the garbage collector."""
        self._resumed = _nothing

    def rest(self, goes_on: bool) -> None:
        """Read no more; what was read goes on in the next turn, or when more is wanted."""
        self.pause_reading()
        if goes_on:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Let more come."""
        if self.read_paused:
            self.read_paused = False
            self._resumed()
