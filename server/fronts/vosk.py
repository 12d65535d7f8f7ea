"""The protocol of vosk-server: exactly one reply for each binary, eof and reset message.

Clients send and receive in lock-step, so what is recognized waits for the next reply.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.commands import Flush, Start, Stop
from actors.errors import BAD_DATA, NORMAL, Close, Refused
from actors.messages import Ack, AnyEvent, Closing, Error, Transcript, Word
from server.fronts.query import ADDRESS, RATES, Query
from server.fronts.translator import Drained, Say, Step, fit, public, read_object

RATE = 16_000
"""Samples a second when the client does not say."""
FINALS = 256
"""Finals that wait for a reply; older ones are joined beyond that."""
RESET = "reset"
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)


def read_vosk(parameters: Mapping[str, str], room: str, connection: str) -> Start:
    """Read a query, which no client of vosk-server has, but may. Raises Refused."""
    query = Query(parameters)
    return Start(
        room=query.room(room or f"vosk:{connection}"),
        language=query.text("language", "en"),
        engine=query.text("engine", limit=ADDRESS),
        name=query.text("name"),
        transcripts=True,
    )


class VoskTranslator:
    """One stream."""

    direct, counts = False, False
    first = None

    def __init__(self, start: Start) -> None:
        """Take the command that the first audio gives, but for the rate."""
        self._start = start
        self._rate, self._words, self._alternatives = RATE, True, False
        self._started = self._ended = self.busy = False
        self._partial: Transcript | None = None
        self._finals: deque[Transcript] = deque()

    def read(self, text: str) -> Iterable[Step]:
        """Act on a config, an eof or a reset; nothing else is answered."""
        if self._ended:
            return ()

        match read_object(text):
            case {"config": dict(config)}:
                return self._configure(config)
            case {"eof": _}:
                self._ended = True
                return (Stop() if self._started else NORMAL,)
            case {"reset": _}:
                if not self._started:
                    return (self._joined(),)

                self.busy = True
                return (Flush(id=RESET),)
            case _:
                return (Refused("bad_message", "a text is a config, an eof or a reset"),)

    def hear(self, data: bytes) -> Iterator[Step]:
        """Pass audio on and reply; an empty message is replied to as well."""
        if self._ended:
            return

        if data and not self._started:
            self._started = True
            yield msgspec.structs.replace(self._start, rate=self._rate)

        if data:
            yield data

        yield Drained(self._reply)

    def heard(self, data: bytes) -> None:
        """Never be asked: each message has its reply."""

    def tell(self, event: AnyEvent) -> Iterable[Say]:
        """Keep what is recognized for the next reply; answer a reset and an eof."""
        match event:
            case Transcript(final=True):
                self._partial = None
                self._keep(event)
            case Transcript():
                self._partial = event
            case Ack(id="reset") | Error(id="reset"):
                self.busy = False
                return (self._joined(),)
            case Closing() if self._ended or self._finals or self.busy:
                self.busy = False
                return (self._joined(),)

        return ()

    def end(self, close: Close) -> Close:
        """Keep to the codes of RFC 6455: the protocol has none of its own."""
        code = {"upstream_unavailable": 1011, "rate_limited": 1013}.get(close.reason)
        code = code or public(close.code)
        reason = "" if close.reason == "normal" else fit(close.message or close.reason)
        return Close(code, reason, flush=close.flush)

    def _configure(self, config: Mapping[str, Any]) -> Iterable[Step]:
        """Take what is known of a config; what it says of models is nobody's business here."""
        rate = _number(config.get("sample_rate", self._rate))
        if rate not in RATES:
            return (BAD_DATA.because(f"sample_rate must be {RATES[0]} to {RATES[-1]}"),)

        self._rate = rate
        self._words = _number(config.get("words", self._words)) > 0
        self._alternatives = _number(config.get("max_alternatives", self._alternatives)) > 0
        return ()

    def _keep(self, event: Transcript) -> None:
        self._finals.append(event)
        if len(self._finals) > FINALS:
            first, second = self._finals.popleft(), self._finals.popleft()
            self._finals.appendleft(_join([first, second]))

    def _reply(self) -> Iterable[Say]:
        """Say the oldest final that was not said, or else how far the hypothesis is."""
        if self._ended:
            return ()

        if self._finals:
            return (self._result([self._finals.popleft()]),)

        return (Say({"partial": self._partial.text if self._partial else ""}),)

    def _joined(self) -> Say:
        """Say everything that is left, as one result."""
        left, self._finals, self._partial = list(self._finals), deque(), None
        return self._result(left)

    def _result(self, finals: list[Transcript]) -> Say:
        text = " ".join(final.text for final in finals if final.text)
        words = [_word(word) for final in finals for word in final.words]
        result: dict[str, Any] = {"result": words} if words and self._words else {}
        if not self._alternatives:
            return Say(result | {"text": text})

        for word in words:
            del word["conf"]

        return Say({"alternatives": [{"confidence": 1.0, "text": text, **result}]})


def _join(finals: list[Transcript]) -> Transcript:
    return msgspec.structs.replace(
        finals[0],
        text=" ".join(final.text for final in finals),
        words=tuple(word for final in finals for word in final.words),
    )


def _word(word: Word) -> dict[str, Any]:
    return {
        "conf": round(word.confidence, 6),
        "end": round(word.end, 6),
        "start": round(word.start, 6),
        "word": word.text,
    }


def _number(value: Any) -> int:
    """Read a number as leniently as clients write it; what is none is -1."""
    if isinstance(value, int | float):
        return int(value) if abs(value) < 1e9 else -1

    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else -1
