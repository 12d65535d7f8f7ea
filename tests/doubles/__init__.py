"""Doubles of speech providers: real WebSocket servers that keep strictly to what is documented.

Each runs in a thread of its own, so that a test on any event loop, and a server in another process,
can use it:

    with RevAiDouble() as double:
        double.plan(abort(after=96_000), close(4010, "Shutting Down", after=32_000))
        ...                                   # dial double.url with the token double.secret
        double.wait(lambda: len(double.connections) == 3)
        assert bytes(double.connections[0].audio) == ...

What they hear is known from the audio alone: `numbered` makes frames of 20 ms whose first sample is
a number, and a final, once a second of a connection's audio, lists the numbers of its frames.
"""

from __future__ import annotations

from tests.doubles.audio import numbered, numbers
from tests.doubles.deepgram import DeepgramDouble
from tests.doubles.generic import GenericDouble
from tests.doubles.provider import (
    Connection,
    Double,
    Fault,
    abort,
    close,
    mute,
    raw,
    refuse,
    say,
    slow,
    stall,
)
from tests.doubles.relay import Relay
from tests.doubles.revai import RevAiDouble
from tests.doubles.vosk import VoskDouble

__all__ = [
    "Connection",
    "DeepgramDouble",
    "Double",
    "Fault",
    "GenericDouble",
    "Relay",
    "RevAiDouble",
    "VoskDouble",
    "abort",
    "close",
    "mute",
    "numbered",
    "numbers",
    "raw",
    "refuse",
    "say",
    "slow",
    "stall",
]
