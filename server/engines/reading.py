"""How a connection to a provider is read: one slice in each turn of the loop.

Its one rule: the socket is read only when all that came has been taken.
"""

from __future__ import annotations

import asyncio

from server.engines.inflow import Event, Inflow, Misconduct


class Reading(asyncio.Protocol):
    """The reading half of a connection; who derives it says what is done with what comes."""

    _inflow: Inflow

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reading, self._silent, self._over = True, False, False
        self._open = True
        """Whether the transport reads; not so while something waits to be parsed."""
        self._due = False
        """Whether the next slice has its turn coming."""
        self._eof = self._past_end = self._lost = False
        """How the connection has ended, behind what is waiting."""

    def pause(self) -> None:
        """Tell of nothing more for now, and read no more."""
        if self._transport is not None:
            self._reading = False
            self._read(False)

    def resume(self) -> None:
        """Go on where `pause` has stopped."""
        if not self._reading:
            self._reading, self._silent = True, False
            self._go_on()

    def eof_received(self) -> None:
        """Take a refusal without a length; then the transport closes."""
        self._eof = True
        self._go_on()

    def _take(self, event: Event) -> None:
        """Take one thing that the provider says."""
        raise NotImplementedError

    def _taken(self) -> None:
        """Do what is due behind a slice."""
        raise NotImplementedError

    def _drained(self) -> None:
        """See whether what came was in order; all of it has been taken."""
        raise NotImplementedError

    def _ended(self) -> None:
        """Tell that the connection is gone; all that came has been taken."""
        raise NotImplementedError

    def _break(self, why: str) -> None:
        """Cut the connection, for the provider has done this."""
        raise NotImplementedError

    def _came(self, data: bytes) -> None:
        """Take the first slice at once, unless others wait."""
        idle = not self._inflow.waiting
        self._inflow.feed(data)
        if idle:
            self._work()

    def _work(self) -> None:
        """Take a slice of what came; the next one waits until all others had their turn."""
        self._due = False
        assert self._transport is not None
        if self._over and self._transport.is_closing():
            self._inflow.clear()
        elif self._reading:
            self._silent = False
            try:
                self._inflow.parse()
                self._take_events()
            except Misconduct as misconduct:
                self._break(str(misconduct))
            else:
                self._taken()
                self._go_on()

    def _take_events(self) -> None:
        now, inflow = self._loop.time(), self._inflow
        while self._reading and (event := inflow.next(now)) is not None:
            self._take(event)

    def _go_on(self) -> None:
        """Let the next slice have its turn; when there is none, read on, or see to the end."""
        if self._inflow.waiting:
            self._read(False)
            if self._reading and not self._due:
                self._due = True
                self._loop.call_soon(self._work)
        elif self._eof and not self._past_end:
            self._past_end = True
            self._inflow.end()
            self._take_events()
            self._go_on()
        elif self._lost:
            self._ended()
        elif self._reading and not self._eof:
            self._drained()
            if not self._open:
                self._read(True)

    def _read(self, on: bool) -> None:
        """Read, or do not; a transport that closes reads no more in any case."""
        transport = self._transport
        if on is self._open or transport is None or transport.is_closing():
            return

        self._open = on
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()
