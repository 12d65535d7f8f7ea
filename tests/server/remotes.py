"""Each engine behind a WebSocket with its double, set up alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.engines import providers
from server.engines.options import Answers, Connection, Deepgram, RevAi, Vosk, WebSocket
from server.engines.remote import RemoteEngine
from tests.doubles import DeepgramDouble, Double, GenericDouble, RevAiDouble, VoskDouble

ANSWERS = Answers(
    text="channel.alternatives.0.transcript",
    final="state",
    final_equals="done",
    start="from",
    end="to",
    words="channel.alternatives.0.words",
    word="w",
    word_start="at.from",
    word_end="at.to",
    word_confidence="p",
    unit="milliseconds",
    error="error",
)
QUERY = "?rate={rate}&channels={channels}&language={language}&encoding={encoding}"


@dataclass(frozen=True)
class Remote:
    """An engine's name, its double, and how to make the one for the other."""

    name: str
    double: Callable[[], Double]
    make: Callable[..., RemoteEngine]
    """Called with the url, the secret, and settings of the section."""


def _revai(url: str, secret: str, **settings: Any) -> RemoteEngine:
    return providers.revai(RevAi(url=url, token=secret, **settings))


def _deepgram(url: str, secret: str, **settings: Any) -> RemoteEngine:
    return providers.deepgram(Deepgram(url=url, key=secret, **settings))


def _vosk(url: str, secret: str, **settings: Any) -> RemoteEngine:
    return providers.vosk(Vosk(url=url, **settings))


def _mapped(url: str, secret: str, **settings: Any) -> RemoteEngine:
    settings = {"answers": ANSWERS, "end": "binary-empty", **settings}
    return providers.websocket(WebSocket(url=url + QUERY, headers={"X-Key": secret}, **settings))


REMOTES = (
    Remote("revai", RevAiDouble, _revai),
    Remote("deepgram", DeepgramDouble, _deepgram),
    Remote("vosk", VoskDouble, _vosk),
    Remote("websocket", GenericDouble, _mapped),
)
QUICK = Connection(connect_within=0.3, send_within=0.2, ping_interval=5.0)
"""For tests of what happens when a provider is late."""
