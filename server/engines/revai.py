"""Rev.ai's streaming protocol, version 1, as a client of it.

A partial's words are joined with spaces; a final brings its spaces and punctuation along. Times are
from the start of this connection's audio: `start_ts` is not used, for whoever dials again shifts
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec, Recognition, Word
from server.engines.dialect import Dialect, Message, text_of
from server.engines.options import RevAi

CLOSES = {
    4001: "engine_unauthorized",
    4002: "engine_rejected",
    4003: "engine_unpaid",
    4029: "engine_busy",
}
"""Close codes that are worth no new attempt at once."""
TRY_AGAIN_LATER = 4013
OWN = frozenset({"token", "url", "max_streams", "language", "connection"})
"""Settings that are no parameters, or are not passed on as they are."""
UNSET = {"delete_after_seconds": -1}
"""Values that stand for no parameter, where that is not the empty one."""


class Element(msgspec.Struct):
    """A word or what stands between words."""

    type: str
    value: str
    ts: float | None = None
    end_ts: float | None = None
    confidence: float | None = None


class Answer(msgspec.Struct):
    """A message of Rev.ai."""

    type: str
    ts: float | None = None
    end_ts: float | None = None
    elements: tuple[Element, ...] = ()


DECODER = msgspec.json.Decoder(Answer)


class RevAiDialect(Dialect):
    """One stream to Rev.ai."""

    setting = "engines.revai"
    credential = "token"
    last = "EOS"

    def __init__(self, options: RevAi, spec: AudioSpec) -> None:
        """Raise Refused if the audio or the settings do not do."""
        super().__init__(spec)
        self._need(options.token, "token")
        self._secrets.hide(options.token)
        self.ready = False
        kind = (
            f"audio/x-raw;layout=interleaved;rate={spec.rate};format=S16LE;channels={spec.channels}"
        )
        parameters = [
            ("access_token", options.token),
            ("content_type", kind),
            ("language", options.language or spec.language),
        ]
        self._dial(options.url, [*parameters, *_chosen(options)])

    def received(self, message: Message) -> Sequence[Recognition]:
        """Take `connected`, `partial` or `final`; other types are ignored."""
        answer = self._decode(message, DECODER)
        if answer.type == "connected":
            self.ready = True
        elif answer.type == "partial":
            text = " ".join([each.value for each in answer.elements])
            words = _words(answer.elements)
            return self._partial(self._piece(text, answer.ts, answer.end_ts, words))
        elif answer.type == "final":
            text = "".join([each.value for each in answer.elements]).strip()
            words = _words(answer.elements)
            return self._final(self._piece(text, answer.ts, answer.end_ts, words))

        return ()

    def closed(self, code: int, reason: str) -> Refused | UpstreamLost | None:
        """Tell refusals from losses: a worker is missing (4013) before the stream or within it."""
        if code == TRY_AGAIN_LATER and not self.ready:
            return self.refusal("engine_busy", reason)

        return (
            self.refusal(CLOSES[code], reason) if code in CLOSES else super().closed(code, reason)
        )


def _chosen(options: RevAi) -> Iterator[tuple[str, str]]:
    """Yield the parameters that are set to something."""
    for name in options.__struct_fields__:
        value = getattr(options, name)
        if name not in OWN and value != UNSET.get(name, type(value)()):
            yield name, text_of(value)


def _words(elements: Sequence[Element]) -> Iterator[Word]:
    """Yield the words that have times, each with the punctuation that follows it."""
    word: Word | None = None
    for each in elements:
        if each.type != "text":
            mark = each.value.strip()
            if word is not None and mark:
                word = msgspec.structs.replace(word, text=word.text + mark)
        elif each.ts is not None and each.end_ts is not None:
            if word is not None:
                yield word

            sure = 1.0 if each.confidence is None else each.confidence
            word = Word(each.value, each.ts, each.end_ts, sure)

    if word is not None:
        yield word
