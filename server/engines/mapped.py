"""Any provider that takes binary audio and answers in JSON, by paths from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec

from actors.messages import AudioSpec, Recognition, Word
from server.engines.address import Address, parse
from server.engines.dialect import Dialect, Message, Piece, text_of
from server.engines.options import BINARY_EMPTY, Answers, WebSocket

LATEST = 1e9
"""Times beyond this are taken for it: thirty years of audio, and still a number to reckon with."""
DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class MappedDialect(Dialect):
    """One stream to a provider of whom we know what the settings say."""

    setting = "engines.websocket"
    credential = "headers"

    def __init__(self, options: WebSocket, spec: AudioSpec, address: Address | None = None) -> None:
        """Go to this address instead of the settings' own. Raises Refused."""
        super().__init__(spec)
        self._options, self._answers = options, options.answers
        self._scale = 1000 if options.answers.unit == "milliseconds" else 1
        if address is None:
            self._need(options.url, "url")
            self._dial(_fill(options.url, spec, lambda text: quote(text, safe="")))
        else:
            self.address = address

        self._secrets.hide_query(self.address.query)
        if _sends_headers(options, self.address):
            self.headers = list(options.headers.items())
            for value in options.headers.values():
                self._secrets.hide(value)

        self.subprotocols = options.subprotocols
        self.first = [_fill(options.first, spec, _in_json)] if options.first else ()
        self._hide_first(options.first)
        self.last = b"" if options.end == BINARY_EMPTY else options.end or None

    def received(self, message: Message) -> Sequence[Recognition]:
        """Take what the paths lead to; a message without a text says nothing."""
        tree, answers = self._decode(message, DECODER), self._answers
        if not isinstance(tree, dict | list):
            self.garbage()

        if error := self._text(tree, answers.error):
            raise self.lost(f"tells of an error: {self.printable(error)}")

        text = self._text(tree, answers.partial)
        if text is not None:
            return self._partial(self._found(tree, text))

        text = self._text(tree, answers.text)
        if text is None:
            return ()

        piece = self._found(tree, text)
        return self._final(piece) if self._is_final(tree) else self._partial(piece)

    def _hide_first(self, text: str) -> None:
        """Hide the first text, and the values in it if it is JSON: they may log us in."""
        self._secrets.hide_values([text])
        with suppress(msgspec.MsgspecError, RecursionError, ValueError):  # any text will do
            self._secrets.hide_values([DECODER.decode(text)])

    def _is_final(self, tree: Any) -> bool:
        if not self._answers.final:
            return True

        value = find(tree, self._answers.final)
        if self._answers.final_equals:
            return value is not None and text_of(value) == self._answers.final_equals

        return bool(value)

    def _found(self, tree: Any, text: str) -> Piece:
        answers = self._answers
        start, end = find(tree, answers.start), find(tree, answers.end)
        words = self._words(find(tree, answers.words), answers)
        return self._piece(text.strip(), self._time(start), self._time(end), words)

    def _words(self, words: Any, answers: Answers) -> Iterator[Word]:
        """Yield the words that have times."""
        if words is not None and not isinstance(words, list):
            self.garbage()

        for each in words or ():
            text = self._text(each, answers.word)
            start = self._time(find(each, answers.word_start))
            end = self._time(find(each, answers.word_end))
            sure = _number(find(each, answers.word_confidence))
            if text and start is not None and end is not None:
                yield Word(text, start, end, 1.0 if sure is None else sure)

    def _text(self, tree: Any, path: str) -> str | None:
        value = find(tree, path)
        if value is not None and not isinstance(value, str):
            self.garbage()

        return value

    def _time(self, value: Any) -> float | None:
        number = _number(value)
        return None if number is None else number / self._scale


def find(tree: Any, path: str) -> Any:
    """Return what a dotted path leads to; None where it leads nowhere, and for no path."""
    if not path:
        return None

    for step in path.split("."):
        if isinstance(tree, dict):
            tree = tree.get(step)
        elif isinstance(tree, list) and step.isascii() and step.isdigit() and len(step) < 9:
            tree = tree[int(step)] if int(step) < len(tree) else None
        else:
            return None

    return tree


def _number(value: Any) -> float | None:
    """Return a number of JSON within bounds, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None

    return float(max(-LATEST, min(value, LATEST)))


def _fill(text: str, spec: AudioSpec, escape: Callable[[str], str]) -> str:
    """Put a session's audio into a text; what a client chose cannot break out of its place."""
    values = {"rate": spec.rate, "channels": spec.channels, "encoding": spec.encoding}
    for name, value in {**values, "language": escape(spec.language)}.items():
        text = text.replace(f"{{{name}}}", str(value))

    return text


def _in_json(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _sends_headers(options: WebSocket, address: Address) -> bool:
    """Tell whether an address may see the headers: they are for the host of the settings' own."""
    if not options.url:
        return True

    own = parse(options.url)
    return (own.host, own.port, own.secure) == (address.host, address.port, address.secure)
