"""What a generator yields, read as recognitions: sans-I/O.

Its one rule: what is not understood ends the stream with a sentence that says why, for it is a bug
that nobody would look for in missing words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import msgspec

from actors.errors import Refused, UpstreamLost
from actors.messages import Recognition, Word
from server.engines.dialect import Piece, Segments

LATEST = 1e9
"""Seconds beyond which no time is: thirty years of audio, and still a number to reckon with."""
REASON = 300
"""Characters that the sentence about an exception may have."""
T = TypeVar("T")


class BadAnswer(ValueError):
    """A generator has yielded what is no result; the message completes "it yielded ..."."""


class Spoken(msgspec.Struct):
    """A word as a mapping tells it."""

    text: str
    start: float
    end: float
    confidence: float = 1.0


class Answer(msgspec.Struct):
    """A result as a mapping tells it."""

    text: str
    final: bool
    start: float | None = None
    end: float | None = None
    words: tuple[Spoken, ...] = ()


class Answers:
    """The results of one stream."""

    def __init__(self) -> None:
        self._segments = Segments()

    def read(self, result: object, heard: float) -> Sequence[Recognition]:
        """Return what a result says, if anything new; `heard` seconds were pulled so far.

        Raises BadAnswer.
        """
        if isinstance(result, Recognition):
            _check(Recognition, result)
            _check_times(result)
            return (result,)

        answer = _answer(result)
        words = tuple(
            Word(each.text, each.start, each.end, each.confidence) for each in answer.words
        )
        piece = Piece(answer.text, answer.start, answer.end, words)
        if answer.final:
            return self._segments.final(piece, heard)

        return self._segments.partial(piece, heard)


def outcome(name: str, error: BaseException | None, ended: bool) -> Exception:
    """Return how a stream ends: by what it raised, and whether the audio was over."""
    if isinstance(error, Refused | UpstreamLost):
        return error

    if isinstance(error, BadAnswer):  # it would yield the same again
        return Refused("engine_rejected", _shown(f"the {name} engine yielded {error}"))

    if error is not None:
        return _lost(f"the {name} engine raised {told(error)}")

    return anyio.EndOfStream() if ended else _lost(f"the {name} engine ended before the audio did")


def told(error: BaseException) -> str:
    """Return the kind and the words of what was raised; somebody else's class may have none."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _lost(message: str) -> UpstreamLost:
    return UpstreamLost(_shown(message))


def _shown(message: str) -> str:
    shown = "".join(each if each.isprintable() else " " for each in message)
    return shown if len(shown) <= REASON else f"{shown[: REASON - 3]}..."


def _answer(result: object) -> Answer:
    if isinstance(result, str | bytes):
        try:
            result = msgspec.json.decode(result)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise BadAnswer("a text that is no JSON") from None

    if not isinstance(result, Mapping):
        kind = type(result).__name__
        raise BadAnswer(f"{kind}, which is no Recognition, mapping or JSON object")

    fields = Answer.__struct_fields__
    return _check(Answer, {name: result[name] for name in fields if name in result})


def _check(kind: type[T], value: object) -> T:
    """Return a value as this kind of thing, all the way down. Raises BadAnswer."""
    try:
        plain = msgspec.to_builtins(value)
        checked = msgspec.convert(plain, kind)
    except (msgspec.MsgspecError, RecursionError, TypeError, OverflowError) as error:
        raise BadAnswer(f"a result of the wrong shape: {error}") from None

    for leaf in _leaves(plain):
        if isinstance(leaf, str) and not _is_text(leaf):
            raise BadAnswer("a result with a text that is not Unicode")

        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise BadAnswer("a result with a number that is not finite")

    return checked


def _check_times(found: Recognition) -> None:
    """Refuse times that nothing fits to the audio. Raises BadAnswer."""
    times = [found.start, found.end]
    for word in found.words:
        times += (word.start, word.end)

    if not all(0 <= each <= LATEST for each in times):
        raise BadAnswer("a Recognition with a time that is not within any audio")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False

    return True


def _leaves(value: Any) -> Iterator[object]:
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(each)
    else:
        yield value
