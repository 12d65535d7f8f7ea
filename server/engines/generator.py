"""The generator engine: any synchronous SDK, or any async generator, as a speech engine.

`engines.generator.call` names a function of the user's, as `package.module:function`, that is
called with `(audio, spec)` for each stream and returns an iterator of results:

    def transcribe(audio, spec):                    async def transcribe(audio, spec):
        client = SDK(spec.rate)                         async for chunk in audio:
        audio.on_leave(client.abort)                        ...
        for each in client.start(audio):                    yield {"text": ..., "final": False}
            yield {"text": each.text, "final": each.done}

- `audio` is an iterator of bytes, and an async iterator too: 16-bit PCM in whole samples, of
  `spec.rate` and `spec.channels`; `spec.language` is what the speaker asks for. It ends when the
  speaker stops: then the last results are due. It also ends when the stream is left, and by
  `audio.close()`; `audio.on_leave(function)` names what makes blocking calls of an SDK return.
- A result is a mapping, or a JSON object in a str or bytes, of `text` (a str), `final` (a bool: the
  text of this segment changes no more; if false, the next result replaces it), and if known `start`
  and `end` (seconds from the start of the audio) and `words`, a list of mappings with `text`,
  `start`, `end` and perhaps `confidence` (0 to 1). Other keys are ignored. The bridge numbers these
  results, and gives those without times the stretch from the last final to the audio pulled so far.
  An actors.messages.Recognition is passed on as it is.
- An async generator function, or a coroutine function that returns an async iterator, runs in a
  task, and must neither block nor swallow its cancellation. Any other function runs in a thread of
  its own, with its iterator; if that is an async one, it runs in a task. A class will do: it is
  called and its object iterated.
- It may raise actors.errors.Refused or UpstreamLost. Any other exception is a bug: it is logged,
  and the stream is lost with its type and message.

When a stream is left, the audio ends and the hooks are called. After `leave_within` seconds the
generator is interrupted by an exception, and INTERRUPTED_WITHIN later given up: a thread that hangs
in a call into C cannot be ended. It is counted as `abandoned`, and against `max_streams`, until it
ends, so that such threads are bounded. So is a task that swallows its cancellation.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.errors import Refused
from actors.messages import AudioSpec
from server.engines.bridge import Bridged, Transcribe
from server.engines.dialect import check_audio
from server.engines.generator_options import Bridge, Generator

logger = logging.getLogger(__name__)

SETTING = "engines.generator.call"


class GeneratorEngine:
    """Opens streams to a function, up to a number."""

    restarts = 0
    """Nothing of ours can die: each stream is a call of its own."""
    acknowledges = False

    def __init__(
        self, transcribe: Transcribe, max_streams: int, bridge: Bridge, name: str = "generator"
    ) -> None:
        """Call `transcribe` for each stream; `engines.<name>` has the settings."""
        self.name, self.max_streams = name, max_streams
        self.streams = 0
        """Streams open now, and those that were left but whose code still runs."""
        self.abandoned = 0
        """Streams of these whose code could not be ended when they were left."""
        self._transcribe, self._bridge = transcribe, bridge

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused("unsupported_audio") unless it is 16-bit PCM of 8 to 48 kHz."""
        check_audio(spec)

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[Bridged]:
        """Open a stream, once the function has returned its iterator or asks for audio.

        Raises Refused, UpstreamLost, or Refused("engine_busy") at once when `max_streams` are open.
        Leaving takes `leave_within` and INTERRUPTED_WITHIN at most.
        """
        self.check(spec)
        if self.streams >= self.max_streams:
            raise self._busy()

        stream = Bridged(self.name, self._transcribe, spec, self._bridge)
        self.streams += 1
        stream.start(self._freed)
        try:
            await stream.wait_open()
            yield stream
        finally:
            await stream.aclose()
            if stream.abandoned:
                self.abandoned += 1
                logger.warning(
                    "a stream of the %s engine was left, and its code does not end: it keeps its "
                    "place until it does; %d of %d places are kept so",
                    self.name,
                    self.abandoned,
                    self.max_streams,
                )

    def _freed(self, stream: Bridged) -> None:
        self.streams -= 1
        self.abandoned -= stream.abandoned

    def _busy(self) -> Refused:
        setting = f"engines.{self.name}.max_streams"
        hang = f" ({self.abandoned} of them hang)" if self.abandoned else ""
        message = (
            f"all {self.max_streams} {self.name} streams are in use{hang}; {setting} allows more"
        )
        return Refused("engine_busy", message, setting=setting)


def generator(options: Generator) -> GeneratorEngine:
    """Return the engine of the function that the settings name. Raises ValueError."""
    if not options.call:
        return Unconfigured(_nothing, options.max_streams, options.bridge)

    return GeneratorEngine(load(options.call), options.max_streams, options.bridge)


class Unconfigured(GeneratorEngine):
    """What is there in place of a function that nobody has named."""

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused("engine_unconfigured")."""
        message = f"the generator engine needs {SETTING}: it is not set"
        raise Refused("engine_unconfigured", message, setting=SETTING)


def _nothing(audio: object, spec: AudioSpec) -> tuple[()]:
    return ()


def load(path: str) -> Transcribe:
    """Import `package.module:function`. Raises ValueError with a sentence that says what fails."""
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"{SETTING} must be package.module:function, not {path!r}")

    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            raise ValueError(f"{SETTING}: there is no module {error.name!r}") from None

        kind = type(error).__name__
        message = f"{SETTING}: {module_name!r} cannot be imported: {kind}: {error}"
        raise ValueError(message) from error

    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{SETTING}: {module_name!r} has no {attribute!r}")

        found = getattr(found, name)

    if not callable(found):
        raise ValueError(f"{SETTING}: {path!r} is a {type(found).__name__}, not a function")

    return found


def _is_part(name: str | None, module: str) -> bool:
    """Return whether a module is the wanted one, or a package that it is in."""
    return f"{module}.".startswith(f"{name}.")
