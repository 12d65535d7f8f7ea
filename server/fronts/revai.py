"""Rev.ai's streaming protocol: what a client of `/speechtotext/v1/stream` says, and is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.commands import Start, Stop
from actors.errors import BAD_DATA, NORMAL, Close, Refused
from actors.messages import AnyEvent, Closing, Error, Hello, Speech, Transcript, Word
from server.fronts.opening import SNIFF, Opening
from server.fronts.query import ADDRESS, RATES, Query, refused
from server.fronts.translator import Say, Step, fit, public

RAW = "audio/x-raw"
CONTAINERS = {
    "audio/x-flac": "flac",
    "audio/flac": "flac",
    "audio/x-wav": "wav",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/*": SNIFF,
}
RAW_FIELDS = ("layout", "rate", "format", "channels")
METADATA = 512
"""Characters of `metadata`, which nobody keeps here."""
LONGEST_TYPE = 256
BAD_REQUEST = 4002
SHUTTING_DOWN = (4010, "Shutting Down")
TRY_AGAIN = (4013, "Try Again Later")
TOO_MANY = (4029, "Too Many Concurrent Streams")
UNAUTHORIZED = (4001, "access_token is missing or invalid")
ENDINGS = {
    "normal": (1000, "Normal Closure."),
    "restart": SHUTTING_DOWN,
    "overload": TRY_AGAIN,
    "rate_limited": TRY_AGAIN,
    "upstream_unavailable": TRY_AGAIN,
    **dict.fromkeys(("forbidden", "revoked", "token_expired", "unauthorized"), (4001, "")),
}
"""Close code and reason of our endings, '' for their own sentence; the others keep their code."""
REFUSALS = {
    "unauthorized": UNAUTHORIZED,
    "token_expired": (4001, "access_token has expired"),
    "forbidden": (4001, "access_token does not cover the room"),
    "draining": SHUTTING_DOWN,
    "overload": TOO_MANY,
    "quota_exceeded": TOO_MANY,
    "rate_limited": TRY_AGAIN,
    "room_limit": TOO_MANY,
    "engine_busy": TRY_AGAIN,
}
"""Close code and reason of refusals that are not about a parameter."""
ABOUT_PARAMETERS = (
    "bad_audio",
    "bad_message",
    "bad_room",
    "engine_forbidden",
    "engine_rejected",
    "unknown_engine",
    "unsupported_audio",
)
_SPOKEN = re.compile(r"(?P<word>.*?)(?P<punct>[.,!?;:]*)", re.DOTALL)


class Stream(msgspec.Struct, frozen=True):
    """What one connection asked for."""

    start: Start
    detailed: bool
    """Whether partials have times."""
    offset: float
    """Seconds to add to every time."""


def read_stream(parameters: Mapping[str, str], connection: str) -> Stream:
    """Read a query. Raises Refused, naming the parameter."""
    query = Query(parameters)
    query.text("metadata", limit=METADATA)
    encoding, rate, channels = _read_type(query.text("content_type", limit=LONGEST_TYPE))
    start = Start(
        room=query.room(f"revai:{connection}"),
        encoding=encoding,
        rate=rate,
        channels=channels,
        language=query.text("language", "en"),
        engine=query.text("engine", limit=ADDRESS),
        name=query.text("name"),
        transcripts=True,
    )
    return Stream(start, query.flag("detailed_partials"), query.number("start_ts"))


def _read_type(content_type: str) -> tuple[str, int | None, int]:
    """Return encoding, rate and channels. Raises Refused."""
    kind, *pairs = (part.strip() for part in content_type.split(";"))
    if kind in CONTAINERS:
        return CONTAINERS[kind], None, 1

    if kind != RAW:
        raise refused("content_type", f"must be {RAW} or one of {', '.join(CONTAINERS)}")

    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    for name in RAW_FIELDS:
        if not fields.get(name):
            raise refused("content_type", f"lacks {name}")

    if fields["layout"] != "interleaved":
        raise refused("content_type", "must say layout=interleaved")

    if fields["format"] != "S16LE":
        raise refused("content_type", "must say format=S16LE")

    numbers = Query(fields)
    try:
        return (
            "pcm_s16le",
            numbers.whole("rate", 0, RATES),
            numbers.whole("channels", 0, range(1, 3)),
        )
    except Refused as error:
        raise Refused(error.code, f"in content_type, {error.message}", "content_type") from None


class RevaiTranslator:
    """One stream."""

    direct, counts = True, False
    busy = False

    def __init__(self, stream: Stream) -> None:
        """Take what was asked for."""
        self._stream = stream
        self._opening = Opening(stream.start)
        self._connection = ""
        self._connected = self._ended = False
        self._refusal: Error | None = None

    @property
    def first(self) -> Start | None:
        """The command to begin with, unless the audio has to say what it is."""
        return self._opening.first

    def read(self, text: str) -> Iterable[Step]:
        """End the audio at the one text that there is; no other may come."""
        if self._ended:
            return ()

        if text != "EOS":
            return (BAD_DATA.because("the only text of this protocol is EOS"),)

        self._ended = True
        return (Stop() if self._opening.started else NORMAL,)

    def hear(self, data: bytes) -> Iterable[Step]:
        """Pass audio on; an empty message is nothing."""
        return () if self._ended else self._opening.hear(data)

    def heard(self, data: bytes) -> None:
        """Need not know."""

    def tell(self, event: AnyEvent) -> Iterable[Say]:
        """Say an event."""
        match event:
            case Transcript():
                return (self._hypothesis(event),)
            case Hello():
                self._connection = event.connection
                # A client may send nothing before it is connected, not even what is to be sniffed.
                return () if self._opening.started else self._connect()
            case Speech(state="ready"):
                return self._connect()
            case Error():
                self._refusal = event
            case Closing():
                self._ended = True

        return ()

    def end(self, close: Close) -> Close:
        """Return an ending in Rev.ai's codes; a bad parameter is named."""
        code, reason = ENDINGS.get(close.reason, (public(close.code), ""))
        refusal = self._refusal
        if refusal is not None and refusal.message == close.message:
            code, reason = ending_of(refusal.code, refusal.message)

        return Close(code, fit(reason or close.message or close.reason), flush=close.flush)

    def _connect(self) -> Iterator[Say]:
        if not self._connected:
            self._connected = True
            yield Say({"type": "connected", "id": self._connection})

    def _hypothesis(self, event: Transcript) -> Say:
        final = event.final
        elements = self._final_elements(event) if final else self._partial_elements(event)
        document = {
            "type": "final" if final else "partial",
            "ts": self._time(event.start),
            "end_ts": self._time(event.end),
            "elements": list(elements),
        }
        return Say(document, event.segment, partial=not final)

    def _partial_elements(self, event: Transcript) -> Iterable[dict[str, Any]]:
        """Return words only, with times if that was asked."""
        if self._stream.detailed:
            words = words_of(event)
            return [{"type": "text", "value": word.text, **self._details(word)} for word in words]

        texts = [word.text for word in event.words] if event.words else event.text.split()
        return [{"type": "text", "value": text} for text in texts]

    def _final_elements(self, event: Transcript) -> Iterator[dict[str, Any]]:
        """Yield words with times; spaces and punctuation are elements of their own."""
        for count, word in enumerate(words_of(event)):
            if count:
                yield {"type": "punct", "value": " "}

            spoken = _SPOKEN.fullmatch(word.text)
            assert spoken is not None
            if spoken["word"]:
                yield {"type": "text", "value": spoken["word"], **self._details(word)}

            if spoken["punct"]:
                yield {"type": "punct", "value": spoken["punct"]}

    def _details(self, word: Word) -> dict[str, float]:
        return {
            "ts": self._time(word.start),
            "end_ts": self._time(word.end),
            "confidence": round(word.confidence, 3),
        }

    def _time(self, seconds: float) -> float:
        return round(seconds + self._stream.offset, 3)


def words_of(event: Transcript) -> Iterable[Word]:
    """Return the words; where the engine gives none, those of the text, each with its times."""
    return event.words or [Word(text, event.start, event.end, 1.0) for text in event.text.split()]


def ending_of(code: str, message: str) -> tuple[int, str]:
    """Return close code and reason of a refusal: what is about a parameter names it."""
    if code in REFUSALS:
        return REFUSALS[code]

    if code in ABOUT_PARAMETERS:
        return BAD_REQUEST, f"Bad Request: {message}"

    return TRY_AGAIN
