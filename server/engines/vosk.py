"""The protocol of vosk-server, as a client of it.

Each message of audio has exactly one answer, in order: so the answers tell how far the server is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from actors.errors import Refused
from actors.messages import AudioSpec, Recognition, Word
from server.engines.dialect import Dialect, Message
from server.engines.options import Vosk

EOF = '{"eof" : 1}'
"""The server compares the whole text with this one, blanks included."""


class Spoken(msgspec.Struct):
    """A word of Vosk."""

    word: str
    start: float
    end: float
    conf: float = 1.0


class Alternative(msgspec.Struct):
    """One reading of an utterance."""

    text: str
    result: tuple[Spoken, ...] = ()


class Answer(msgspec.Struct):
    """What the server made of one message: a partial, or an utterance that has ended."""

    partial: str | None = None
    text: str | None = None
    result: tuple[Spoken, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


DECODER = msgspec.json.Decoder(Answer)


class VoskDialect(Dialect):
    """One stream to a vosk-server."""

    setting = "engines.vosk"
    last = EOF

    def __init__(self, options: Vosk, spec: AudioSpec) -> None:
        """Raise Refused if the audio or the settings do not do."""
        super().__init__(spec)
        if spec.channels != 1:
            raise Refused("unsupported_audio", "the vosk engine takes one channel", "channels")

        self._need(options.url, "url")
        self._dial(options.url)
        config: dict[str, object] = {"sample_rate": spec.rate, "words": int(options.words)}
        if options.phrases:
            config["phrase_list"] = options.phrases

        self.first = [msgspec.json.encode({"config": config}).decode()]
        self.window = options.unanswered
        self._waiting: deque[int] = deque()
        self._answered = 0

    @property
    def heard(self) -> float:
        """Seconds of audio that the server has answered."""
        return self._answered / self._rate

    def sent(self, size: int) -> None:
        """Note a message that will be answered."""
        super().sent(size)
        self._waiting.append(size)
        self.unanswered += 1

    def received(self, message: Message) -> Sequence[Recognition]:
        """Take the answer to the oldest message; the last one is to the end of the audio."""
        answer = self._decode(message, DECODER)
        if self._waiting:
            self._answered += self._waiting.popleft()
            self.unanswered -= 1
        elif self.ended:
            self.done = True
        else:
            self.garbage()

        if answer.alternatives:
            best = answer.alternatives[0]
            return self._utterance(best.text, best.result)

        if answer.text is not None:
            return self._utterance(answer.text, answer.result)

        if answer.partial is None:
            self.garbage()

        return self._segments.partial(self._piece(answer.partial), self.heard)

    def _utterance(self, text: str, spoken: Sequence[Spoken]) -> Sequence[Recognition]:
        words = (Word(each.word, each.start, each.end, each.conf) for each in spoken)
        return self._segments.final(self._piece(text, words=words), self.heard)
