"""Deepgram's live protocol, `/v1/listen`, as a client of it.

Each `is_final` result with a text is a final of its own: what it says does not change any more, and
to hold it back until `speech_final` would delay it for nothing. A `Finalize` is answered by the
result that says `from_finalize`; Deepgram does not promise one, so whoever sends it sets a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec, Recognition, Word
from server.engines.dialect import Dialect, Message, Parameters, text_of
from server.engines.options import Deepgram

KEEPALIVE = '{"type":"KeepAlive"}'
PRIMERS = 50
"""Part of a second that is sent as silence for a speaker who is late."""
UNDECODABLE = 1008
"""Close code for audio that is not what the parameters say (DATA-0000)."""


class Heard(msgspec.Struct):
    """A word of Deepgram."""

    word: str
    start: float
    end: float
    confidence: float = 1.0
    punctuated_word: str = ""


class Alternative(msgspec.Struct):
    """One reading of a stretch of audio."""

    transcript: str
    words: tuple[Heard, ...] = ()


class Channel(msgspec.Struct):
    """The readings of one channel."""

    alternatives: tuple[Alternative, ...]


class Results(msgspec.Struct):
    """What was recognized in a stretch of audio."""

    start: float
    duration: float
    channel: Channel
    is_final: bool = False
    from_finalize: bool = False


class Kind(msgspec.Struct):
    """Any message; `Results` are read once more."""

    type: str
    description: str = ""


KIND = msgspec.json.Decoder(Kind)
RESULTS = msgspec.json.Decoder(Results)


class DeepgramDialect(Dialect):
    """One stream to Deepgram."""

    setting = "engines.deepgram"
    credential = "key"
    lively = True
    finalize = '{"type":"Finalize"}'
    last = '{"type":"CloseStream"}'

    def __init__(self, options: Deepgram, spec: AudioSpec) -> None:
        """Raise Refused if the audio or the settings do not do."""
        super().__init__(spec)
        self._need(options.key, "key")
        self._secrets.hide(options.key)
        self._secrets.hide_values(options.parameters.values())
        self.headers = [("Authorization", f"Token {options.key}")]
        self._tells, self._told = options.interim_results, 0.0
        self._primer = spec.rate // PRIMERS * spec.channels * 2
        self._primed = 0.0
        """Seconds of silence that were sent before the first audio."""
        self._dial(options.url, [*_fixed(options, spec), *_free(options)])

    @property
    def heard(self) -> float:
        """Seconds that the results cover, empty ones too; with partials they come all the time."""
        return self._told if self._tells and not self.done else self.seconds

    def idle(self) -> Message:
        """Return a KeepAlive; but before the first audio it does not count, so a little silence."""
        if self._bytes or self._primed:
            return KEEPALIVE

        self._primed = self._primer / self._rate
        return bytes(self._primer)

    def received(self, message: Message) -> Sequence[Recognition]:
        """Take a result, the last metadata or an error; what else there is tells nothing new."""
        kind = self._decode(message, KIND)
        if kind.type == "Results":
            return self._take(self._decode(message, RESULTS))

        if kind.type == "Metadata":
            self.done = self.ended
        elif kind.type == "Error":
            raise self.lost(f"tells of an error: {self.printable(kind.description)}")

        return ()

    def refused(self, status: int, headers: Mapping[str, str]) -> Refused | UpstreamLost:
        """Add Deepgram's own words to a refusal."""
        found = super().refused(status, headers)
        words = headers.get("dg-error", "")
        if isinstance(found, Refused) and words:
            return self.refusal(found.code, f"HTTP {status}, {words}")

        return found

    def closed(self, code: int, reason: str) -> Refused | UpstreamLost | None:
        """Tell audio that cannot be decoded, which no new attempt mends, from losses."""
        if code == UNDECODABLE:
            return self.refusal("engine_rejected", reason)

        return super().closed(code, reason)

    def _take(self, results: Results) -> Sequence[Recognition]:
        if not results.channel.alternatives:
            self.garbage()

        best, start = results.channel.alternatives[0], results.start - self._primed
        end = start + results.duration
        self._told = max(self._told, min(end, self.seconds))
        piece = self._piece(best.transcript, start, end, self._words(best.words))
        if not results.is_final:
            return self._partial(piece)

        flushed = results.from_finalize and self.asked > 0
        self.asked -= flushed
        return self._segments.final(piece, self.seconds, flushed)

    def _words(self, words: Sequence[Heard]) -> Iterator[Word]:
        for each in words:
            start, end = each.start - self._primed, each.end - self._primed
            yield Word(each.punctuated_word or each.word, start, end, each.confidence)


def _fixed(options: Deepgram, spec: AudioSpec) -> Parameters:
    return [
        ("encoding", "linear16"),
        ("sample_rate", str(spec.rate)),
        ("channels", str(spec.channels)),
        ("language", options.language or spec.language),
        ("model", options.model),
        ("punctuate", text_of(options.punctuate)),
        ("smart_format", text_of(options.smart_format)),
        ("interim_results", text_of(options.interim_results)),
        ("endpointing", text_of(options.endpointing or False)),
    ]


def _free(options: Deepgram) -> Iterator[tuple[str, str]]:
    for name, value in options.parameters.items():
        for each in value if isinstance(value, tuple) else (value,):
            yield name, text_of(each)
