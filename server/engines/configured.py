"""The settings `engines` and the engines that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from msgspec import Meta

from actors.catalog import Catalog
from actors.limits import Count, Section
from actors.ports import Decoders, Engine
from server.engines import providers
from server.engines.echo import EchoEngine
from server.engines.embedded import EmbeddedEngine
from server.engines.generator import generator
from server.engines.generator_options import Generator, RevAiSdk
from server.engines.guest import Guests
from server.engines.options import Deepgram, RevAi, Vosk, WebSocket
from server.engines.remote import Slots
from server.engines.revai_sdk import RevAiSdkEngine

EngineName = Literal[
    "embedded", "echo", "revai", "deepgram", "vosk", "websocket", "generator", "revai_sdk"
]


class Embedded(Section, frozen=True):
    """The speech engine that comes with the server."""

    max_streams: Annotated[int, Meta(ge=0)] = 0
    """Speaking streams at a time; 0 means four for each core."""


class Echo(Section, frozen=True):
    """The engine for tests and load: it answers without listening."""

    max_streams: Count = 10_000
    """Speaking streams at a time."""


class Engines(Section, frozen=True):
    """The speech engines."""

    enabled: Annotated[tuple[EngineName, ...], Meta(min_length=1)] = ("embedded", "echo")
    """Engines that clients may name; the first is used when they name none."""
    failover: tuple[EngineName, ...] = ()
    """Engines that are tried in turn for who names none, and when one is lost; empty means the
    first that is enabled, alone."""
    embedded: Embedded = Embedded()
    echo: Echo = Echo()
    revai: RevAi = RevAi()
    deepgram: Deepgram = Deepgram()
    vosk: Vosk = Vosk()
    websocket: WebSocket = WebSocket()
    generator: Generator = Generator()
    revai_sdk: RevAiSdk = RevAiSdk()

    def __post_init__(self) -> None:
        """Refuse a failover to an engine that is not enabled."""
        for name in self.failover:
            if name not in self.enabled:
                raise ValueError(f"engines.failover: {name} is not in engines.enabled")


def make_catalog(settings: Engines, decoders: Decoders | None = None) -> Catalog:
    """Make the enabled engines, and what makes those that clients name by address.

    Raises ValueError for a function that cannot be had.
    """
    shared = Slots(settings.websocket.max_streams)
    makers: Mapping[EngineName, Callable[[], Engine]] = {
        "embedded": lambda: EmbeddedEngine(settings.embedded.max_streams or None),
        "echo": lambda: EchoEngine(settings.echo.max_streams),
        "revai": lambda: providers.revai(settings.revai),
        "deepgram": lambda: providers.deepgram(settings.deepgram),
        "vosk": lambda: providers.vosk(settings.vosk),
        "websocket": lambda: providers.websocket(settings.websocket, shared),
        "generator": lambda: generator(settings.generator),
        "revai_sdk": lambda: RevAiSdkEngine(settings.revai_sdk),
    }
    engines: dict[str, Engine] = {name: makers[name]() for name in settings.enabled}
    guests = Guests(settings.websocket, shared)
    return Catalog(engines, settings.failover, guests.engine, decoders)
