"""The engines behind a WebSocket, made from their settings."""

from __future__ import annotations

from server.engines.deepgram import DeepgramDialect
from server.engines.mapped import MappedDialect
from server.engines.options import Deepgram, RevAi, Vosk, WebSocket
from server.engines.remote import RemoteEngine, Slots
from server.engines.revai import RevAiDialect
from server.engines.vosk import VoskDialect


def revai(options: RevAi) -> RemoteEngine:
    """Return the Rev.ai engine."""
    slots = Slots(options.max_streams)
    return RemoteEngine(
        "revai", slots, options.connection, lambda spec: RevAiDialect(options, spec)
    )


def deepgram(options: Deepgram) -> RemoteEngine:
    """Return the Deepgram engine, which says how far it is where it is asked for partials."""
    slots = Slots(options.max_streams)
    engine = RemoteEngine(
        "deepgram", slots, options.connection, lambda spec: DeepgramDialect(options, spec)
    )
    engine.acknowledges = options.interim_results
    return engine


def vosk(options: Vosk) -> RemoteEngine:
    """Return the engine of a vosk-server, which says how far it is."""
    slots = Slots(options.max_streams)
    engine = RemoteEngine(
        "vosk", slots, options.connection, lambda spec: VoskDialect(options, spec)
    )
    engine.acknowledges = True
    return engine


def websocket(options: WebSocket, slots: Slots | None = None) -> RemoteEngine:
    """Return the engine of `engines.websocket.url`; its slots may be shared with guests."""
    slots = slots or Slots(options.max_streams)
    return RemoteEngine(
        "websocket", slots, options.connection, lambda spec: MappedDialect(options, spec)
    )
