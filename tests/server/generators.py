"""Generators of a user's own, as the generator engine is given them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from actors.messages import AudioSpec
from server.engines.handover import Audio
from tests.doubles.audio import Ear, Heard

NUMBER = 4
"""Not a function."""


def told(heard: Heard) -> dict[str, Any]:
    """Write what was heard as a result."""
    words = [{"text": word, "start": start, "end": end} for word, start, end in heard.words]
    return {
        "text": heard.text,
        "final": heard.final,
        "start": heard.start,
        "end": heard.end,
        "words": words,
    }


def hears(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    """Recognize numbered frames, in a thread."""
    ear = Ear(spec.rate, spec.channels)
    for chunk in audio:
        yield from map(told, ear.feed(chunk))

    yield told(ear.cut())


async def hears_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    """Recognize numbered frames, in a task."""
    ear = Ear(spec.rate, spec.channels)
    async for chunk in audio:
        for heard in ear.feed(chunk):
            yield told(heard)

    yield told(ear.cut())


def adopted(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    """Return an async iterator, as only the call shows."""
    return hears_soon(audio, spec)


async def awaited(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    """Return an async iterator when awaited."""
    return hears_soon(audio, spec)


class Hearing:
    """An object for each stream."""

    def __init__(self, audio: Audio, spec: AudioSpec) -> None:
        self._found = hears(audio, spec)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._found

    @classmethod
    def make(cls, audio: Audio, spec: AudioSpec) -> Hearing:
        """Return one, as its class does when called."""
        return cls(audio, spec)


class Listener:
    """An object whose call is an async generator."""

    async def __call__(self, audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
        async for each in hears_soon(audio, spec):
            yield each
