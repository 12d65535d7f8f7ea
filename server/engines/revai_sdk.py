"""Rev.ai through its own package, `rev_ai`: a function for the generator engine.

The package connects within `start`, sends in a thread of its own, and returns an iterator of JSON.
What it does not do by itself is seen to here and in `revai_client`: it has no timeouts, it sends on
after Rev.ai has closed, and it frees its socket only when it is collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actors.errors import Refused
from actors.messages import AudioSpec, Recognition
from server.engines.generator import GeneratorEngine
from server.engines.generator_options import RevAiSdk
from server.engines.handover import Audio
from server.engines.options import RevAi
from server.engines.revai import RevAiDialect

PARAMETERS = (
    "metadata",
    "custom_vocabulary_id",
    "filter_profanity",
    "remove_disfluencies",
    "detailed_partials",
    "transcriber",
    "skip_postprocessing",
)
"""Settings that the package takes by the same names; it leaves out what is false or empty."""


class SdkDialect(RevAiDialect):
    """What Rev.ai's messages and codes mean; the package itself builds the request."""

    setting = "engines.revai_sdk"


class RevAiTranscribe:
    """Called for each stream; each gets a client of its own, for a client cannot start twice."""

    def __init__(self, options: RevAiSdk) -> None:
        self._options = options

    def __call__(self, audio: Audio, spec: AudioSpec) -> Iterator[Recognition]:
        """Connect, and return the results. Raises Refused or UpstreamLost."""
        options, dialect = self._options, dialect_of(self._options, spec)
        try:
            from server.engines.revai_client import Session
        except ImportError:
            message = "the revai_sdk engine needs the package rev_ai: pip install rev_ai"
            raise Refused("engine_unconfigured", message, setting=dialect.setting) from None

        session = Session(dialect, options, spec, audio)
        session.connect(self._parameters(spec))
        return session.results()

    def _parameters(self, spec: AudioSpec) -> dict[str, Any]:
        chosen = {name: getattr(self._options, name) for name in PARAMETERS}
        return {**chosen, "language": self._options.language or spec.language}


def dialect_of(options: RevAiSdk, spec: AudioSpec) -> SdkDialect:
    """Return what the messages mean. Raises Refused for audio or settings that do not do."""
    return SdkDialect(RevAi(token=options.token, url=options.url), spec)


class RevAiSdkEngine(GeneratorEngine):
    """The engine that uses the package."""

    def __init__(self, options: RevAiSdk) -> None:
        transcribe = RevAiTranscribe(options)
        super().__init__(transcribe, options.max_streams, options.bridge, "revai_sdk")
        self._options = options

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused for audio or settings that do not do."""
        dialect_of(self._options, spec)
