"""What a provider says and wants to hear, without I/O: the base of the dialects.

A dialect is made for one stream. It knows the address and what is sent when; it is given each
message, each HTTP status and each close code, and says what that means. It never waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec, Recognition, Word
from server.engines.address import Address, parse
from server.engines.scrub import Scrubber

WORDS, TEXT = 5000, 65_536
"""Words of a result, and characters of it and of its words; one with more is not speech."""
NORMAL, GOING_AWAY, NO_CODE = 1000, 1001, 1005
HTTP = {
    401: "engine_unauthorized",
    402: "engine_unpaid",
    403: "engine_unauthorized",
    429: "engine_busy",
}
"""What the statuses of a refused upgrade mean; other 3xx and 4xx are `engine_rejected`."""
PASSING = frozenset({408, 421, 425})
"""Statuses below 500 that may be gone with the next attempt."""

Message = str | bytes
Parameters = Sequence[tuple[str, str]]
T = TypeVar("T")


class Piece(msgspec.Struct, frozen=True):
    """A text as the provider gave it: times and words may be missing, or out of order."""

    text: str
    start: float | None = None
    end: float | None = None
    words: Sequence[Word] = ()


class Segments:
    """Numbers what is recognized, and keeps its times within the audio and in order."""

    def __init__(self) -> None:
        self._segment = self._revision = 0
        self._reached = 0.0
        self._shown: Recognition | None = None

    def partial(self, piece: Piece, sent: float) -> tuple[Recognition, ...]:
        """Return a partial, unless it is what was shown last; `sent` seconds are the latest end."""
        found = self._fit(piece, sent, final=False)
        last = self._shown
        if last is None:
            if not found.text:
                return ()
        elif (found.text, found.words) == (last.text, last.words):
            return ()

        self._revision += 1
        self._shown = found
        return (found,)

    def final(self, piece: Piece, sent: float, flushed: bool = False) -> tuple[Recognition, ...]:
        """Return a final; one without a text only to take back a partial or to answer a flush."""
        if not (piece.text or self._shown or flushed):
            return ()

        found = self._fit(piece, sent, final=True, flushed=flushed)
        self._segment += 1
        self._revision, self._shown, self._reached = 0, None, found.end
        return (found,)

    def _fit(self, piece: Piece, sent: float, final: bool, flushed: bool = False) -> Recognition:
        first = piece.words[0].start if piece.words else self._reached
        last = piece.words[-1].end if piece.words else sent
        start = _within(self._reached, first if piece.start is None else piece.start, sent)
        end = _within(start, last if piece.end is None else piece.end, sent)
        words, at = [], start
        for word in piece.words:
            begins = _within(at, word.start, end)
            at = _within(begins, word.end, end)
            words.append(Word(word.text, begins, at, _within(0.0, word.confidence, 1.0)))

        return Recognition(
            self._segment, self._revision, final, piece.text, start, end, tuple(words), flushed
        )


class Dialect:
    """One stream's side of a provider's protocol; the defaults fit most."""

    setting: str
    """Name of the engine's section in the settings; the last part is its name."""
    credential = ""
    """Name within the section of the setting that a provider refuses with 401."""
    address: Address
    headers: Sequence[tuple[str, str]] = ()
    subprotocols: Sequence[str] = ()
    first: Sequence[str] = ()
    """Texts to begin with."""
    lively = False
    """Whether it is to be asked for `idle` while no audio flows."""
    last: Message | None = None
    """Message that ends the audio; None: the connection is closed."""
    finalize = ""
    """Text that asks for the final of what was sent; empty where there is no such thing."""
    window = 0
    """Messages of audio that may wait for their answers; 0 where they have none."""

    def __init__(self, spec: AudioSpec) -> None:
        """Raise Refused("unsupported_audio") for audio that no provider takes."""
        check_audio(spec)
        self.ready = True
        """Whether audio may be sent; if not, once a message has said so."""
        self.done = False
        """Whether a message has said that nothing more comes."""
        self.ended = False
        """Whether `last` was sent."""
        self.asked = 0
        """Flushes without an answer."""
        self.unanswered = 0
        """Messages of audio without an answer, where there is a `window`."""
        self._segments = Segments()
        self._bytes, self._rate = 0, spec.bytes_per_second
        self._secrets = Scrubber()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.setting.rpartition(".")[2]

    @property
    def seconds(self) -> float:
        """Seconds of audio that were sent."""
        return self._bytes / self._rate

    @property
    def heard(self) -> float:
        """Seconds of audio that the provider has worked through, as far as it tells."""
        return self.seconds

    def sent(self, size: int) -> None:
        """Note so many bytes of audio, sent as one message."""
        self._bytes += size

    def idle(self) -> Message:
        """Return what tells that the stream is still wanted."""
        raise NotImplementedError

    def received(self, message: Message) -> Sequence[Recognition]:
        """Return what a message says. Raises Refused, or UpstreamLost where it makes no sense."""
        raise NotImplementedError

    def flushed(self) -> Sequence[Recognition]:
        """Return the answer to a flush that the provider has not answered."""
        self.asked = max(0, self.asked - 1)
        return self._segments.final(Piece("", None, 0.0), self.seconds, flushed=True)

    def refused(self, status: int, headers: Mapping[str, str]) -> Refused | UpstreamLost:
        """Return what it means that the upgrade was answered with this status."""
        if status >= 500 or status in PASSING:
            return self.lost(f"answered with HTTP {status}")

        words = "answers with a redirect, which is not followed" if 300 <= status < 400 else ""
        return self.refusal(HTTP.get(status, "engine_rejected"), words or f"HTTP {status}")

    def closed(self, code: int, reason: str) -> Refused | UpstreamLost | None:
        """Return what this close of the provider means; None is the orderly end."""
        if self.done or (self.ended and code in (NORMAL, GOING_AWAY, NO_CODE)):
            return None

        words = f" ({shown})" if (shown := self.printable(reason)) else ""
        return self.lost(f"closed the stream with {code}{words}")

    def lost(self, what: str) -> UpstreamLost:
        """Return the loss with a sentence: the engine, then what it did."""
        return UpstreamLost(f"the {self.name} engine {what}")

    def garbage(self) -> NoReturn:
        """Say that a message makes no sense. Raises UpstreamLost."""
        raise self.lost("sent what makes no sense") from None

    def refusal(self, code: str, reason: str = "") -> Refused:
        """Return a refusal of the provider, with its reason made fit to be shown."""
        what, key = {
            "engine_unauthorized": ("refuses its credential", self.credential),
            "engine_unpaid": ("has an account without credit", self.credential),
            "engine_busy": ("has no stream free at its provider", "max_streams"),
        }.get(code, ("has its request rejected", ""))
        words = f": {shown}" if (shown := self.printable(reason)) else ""
        setting = f"{self.setting}.{key}" if key else self.setting
        message = f"the {self.name} engine {what}{words}; see {setting}"
        return Refused(code, message, setting=setting)

    def printable(self, text: str) -> str:
        """Return a provider's words as they may be shown: short, on one line, without secrets."""
        return self._secrets.printable(text)

    def _dial(self, url: str, parameters: Parameters = ()) -> None:
        self._secrets.hide_query(urlsplit(url).query)
        query = urlencode(parameters, quote_via=quote, safe="")
        joint = "&" if "?" in url else "?"
        try:
            self.address = parse(f"{url}{joint}{query}" if query else url)
        except ValueError as error:
            raise self._unconfigured("url", str(error)) from None

    def _need(self, value: str, key: str) -> None:
        """Raise Refused("engine_unconfigured") if a setting is empty."""
        if not value:
            raise self._unconfigured(key, "it is not set")

    def _unconfigured(self, key: str, why: str) -> Refused:
        setting = f"{self.setting}.{key}"
        message = f"the {self.name} engine needs {setting}: {why}"
        return Refused("engine_unconfigured", message, setting=setting)

    def _decode(self, message: Message, decoder: msgspec.json.Decoder[T]) -> T:
        """Read a text message. Raises UpstreamLost."""
        if isinstance(message, bytes):
            self.garbage()

        try:
            return decoder.decode(message)
        except (msgspec.MsgspecError, RecursionError, OverflowError, ValueError):
            self.garbage()

    def _piece(
        self,
        text: str,
        start: float | None = None,
        end: float | None = None,
        words: Iterable[Word] = (),
    ) -> Piece:
        """Return a piece of a size that speech can have. Raises UpstreamLost."""
        taken = tuple(islice(words, WORDS + 1))
        if len(taken) > WORDS:
            raise self.lost(f"sent a result of more than {WORDS} words")

        if len(text) > TEXT or (taken and sum(len(word.text) for word in taken) > TEXT):
            raise self.lost(f"sent a result of more than {TEXT} characters")

        return Piece(text, start, end, taken)

    def _final(self, piece: Piece) -> Sequence[Recognition]:
        return self._segments.final(piece, self.seconds)

    def _partial(self, piece: Piece) -> Sequence[Recognition]:
        return self._segments.partial(piece, self.seconds)


def text_of(value: Any) -> str:
    """Return a parameter's value as it stands in a query."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_audio(spec: AudioSpec) -> None:
    """Raise Refused("unsupported_audio") with the field that is wrong."""
    faults = {
        "encoding": "must be pcm_s16le" if spec.encoding != "pcm_s16le" else "",
        "rate": "" if 8000 <= spec.rate <= 48000 else "must be 8000 to 48000",
        "channels": "" if spec.channels in (1, 2) else "must be 1 or 2",
    }
    for field, fault in faults.items():
        if fault:
            raise Refused("unsupported_audio", f"the {field} {fault}", field)


def _within(low: float, value: float, high: float) -> float:
    return float(max(low, min(value, high)))
