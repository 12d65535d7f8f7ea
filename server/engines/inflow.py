"""What a provider sends, taken apart a slice at a time: sans-I/O.

Its one rule: no slice costs more than some milliseconds, whatever it holds, and what no stream of
speech needs ends the stream: pings and pongs beyond a rate, and messages in crumbs. A frame of two
bytes costs 20 us in websockets' parser; a read of 256 KiB of them would cost seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.streams import StreamReader

from server.engines.pace import Pace
from server.frames import CLOSE, CONTINUATION, FIN, FRAGMENT_BYTES, FRAGMENTS, PING, PONG, TEXT

SLICE = 2048
"""Bytes that are parsed at a time."""
CONTROLS = 50
"""Pings and pongs in a second, and at once; each ping costs a pong."""

_EVENTS = Response, Frame
_AT_EOF = StreamReader.at_eof.__code__
"""Where websockets' parser waits for the first byte of a frame."""
Event = Response | Frame | str | bytes
"""The answer to the upgrade, a close frame, or a whole message."""


class Misconduct(Exception):
    """A provider has done what ends its stream; the message completes "the engine ..."."""


class Inflow:
    """The bytes of one connection that have come, and what they say."""

    def __init__(self, wire: ClientProtocol, limit: int) -> None:
        """Read what comes behind this wire, whose messages have so many bytes at most."""
        self._wire = wire
        self._data, self._at = b"", 0
        self._events: deque[Response | Frame | str] = deque()
        self._between = False
        """Whether websockets' parser is between two frames, so that it need not see the next."""
        self._limit, self._joining = limit, False
        self._controls = Pace(CONTROLS, CONTROLS)
        self._parts, self._fragments, self._text = bytearray(), 0, False

    @property
    def waiting(self) -> bool:
        """Whether there is something that was not taken yet."""
        return bool(self._events) or self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Add bytes from the socket; as long as some are waiting, it should not be read."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def parse(self) -> None:
        """Parse the next slice, unless something of the last one was not taken yet."""
        if self._events or (self._between and not self._joining and self._take_text()):
            return

        first, self._at = self._at, self._at + SLICE
        whole = not first and len(self._data) <= SLICE
        self._wire.receive_data(self._data if whole else self._data[first : self._at])
        self._collect()
        self._between = self._is_between()
        if self._at >= len(self._data):
            self._data, self._at = b"", 0

    def end(self) -> None:
        """Note that no more bytes come."""
        self._wire.receive_eof()
        self._collect()

    def clear(self) -> None:
        """Forget what is waiting: nobody wants it."""
        self._data, self._at = b"", 0
        self._events.clear()

    def next(self, now: float) -> Event | None:
        """Return what the last slice says next, None at its end. Raises Misconduct."""
        while self._events:
            event = self._events.popleft()
            if not isinstance(event, Frame):
                return event

            if event.opcode in (PING, PONG):
                if self._controls.spend(1, now):
                    raise Misconduct("sends pings or pongs without end")
            elif event.opcode == CLOSE:
                return event
            elif (message := self._join(event)) is not None:
                return message

        return None

    def _take_text(self) -> bool:
        """Take what came if it is one whole text and no more, as results are.

        A dozen calls less than through the parser. Raises Misconduct.
        """
        data = self._data
        if self._at or not 2 <= len(data) <= SLICE or data[0] != FIN | TEXT:
            return False

        size, begins = data[1], 2
        if size == 126:
            size, begins = int.from_bytes(data[2:4], "big"), 4
        elif size > 126:
            return False

        if size > self._limit or begins + size != len(data) or self._wire.state is not OPEN:
            return False

        self._data = b""
        self._events.append(_decode(data[begins:]))
        return True

    def _is_between(self) -> bool:
        if self._wire.state is not OPEN:
            return False

        waiting: Any = self._wire.parser
        while waiting.gi_yieldfrom is not None:
            waiting = waiting.gi_yieldfrom

        return waiting.gi_code is _AT_EOF

    def _collect(self) -> None:
        for event in self._wire.events_received():
            assert isinstance(event, _EVENTS)
            self._events.append(event)

    def _join(self, frame: Frame) -> str | bytes | None:
        """Add a fragment; return the message if it is whole now. Raises Misconduct."""
        if frame.opcode != CONTINUATION:
            self._text, self._fragments = frame.opcode == TEXT, 0

        self._joining = not frame.fin
        self._parts += frame.data
        self._fragments += 1
        crumbs = len(self._parts) < self._fragments * FRAGMENT_BYTES
        if crumbs and self._fragments > FRAGMENTS:
            raise Misconduct("sends a message in too many fragments")

        if not frame.fin:
            return None

        whole, self._parts = bytes(self._parts), bytearray()
        return _decode(whole) if self._text else whole


def _decode(data: bytes) -> str:
    """Return a text. Raises Misconduct."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Misconduct("has sent text that is not UTF-8") from None
