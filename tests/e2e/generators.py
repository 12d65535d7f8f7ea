"""Functions that a server is given as its engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from actors.messages import AudioSpec
from server.engines.handover import Audio


def stuck(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    """Hear one chunk, then hang in a call that nothing can interrupt."""
    next(iter(audio))
    here, _there = socket.socketpair()
    yield {"text": "before it hung", "final": True, "start": 0.0, "end": 0.01}
    here.recv(1)


def broken(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    """Fail at the first chunk."""
    for chunk in audio:
        raise ValueError(f"{len(chunk)} bytes are too many")

    yield {}
