"""The beginning of a front's speech session, which may have to wait for the first bytes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.commands import Start
from actors.errors import BAD_DATA
from server.fronts.containers import ENOUGH, container_of
from server.fronts.translator import Step

SNIFF = ""
"""Encoding of a Start that is held until the audio has told its container."""


class Opening:
    """Holds a Start without an encoding until enough bytes are here to know it."""

    def __init__(self, start: Start) -> None:
        """Take the session's Start; one with an encoding is not held."""
        self.start = start
        """What is, or will be, the command."""
        self._head = b""
        self.started = start.encoding != SNIFF
        """Whether the Start has been given out."""

    @property
    def first(self) -> Start | None:
        """The command to begin the connection with, if it can begin already."""
        return self.start if self.started else None

    def hear(self, data: bytes) -> Iterable[Step]:
        """Pass audio on, with the Start before the first of it; PCM is what is no container.

        That is so only when a rate is known: without one, nothing says what the bytes are.
        """
        if not data:
            return ()

        if self.started:
            return (data,)

        self._head += data
        if len(self._head) < ENOUGH:
            return ()

        head, self._head, self.started = self._head, b"", True
        container = container_of(head)
        if container is not None:
            self.start = msgspec.structs.replace(self.start, encoding=container, rate=None)
        elif self.start.rate is not None:
            self.start = msgspec.structs.replace(self.start, encoding="pcm_s16le")
        else:
            return (BAD_DATA.because("the audio begins like no container that is known here"),)

        return (self.start, head)
