"""Deepgram's live protocol: what a client of `/v1/listen` says, and what it is told.

A segment of ours is an utterance of theirs: its final has the pause behind it. The finals tile
the audio: each Results begins where the final before it ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from actors.commands import Flush, Start, Stop
from actors.errors import NORMAL, Close, Refused
from actors.messages import Ack, AnyEvent, Closing, Error, Transcript
from server.fronts.deepgram_documents import Documents
from server.fronts.deepgram_query import Listen
from server.fronts.opening import Opening
from server.fronts.translator import Say, Step, Touch, fit, public, read_object

FLUSHES = 8
"""Finalize messages that may wait for their answer; then no more is read."""
QUOTED = 1000
"""Characters of a message that an Error about it repeats."""
UNDECODABLE = "DATA-0000"
SILENT_SERVICE = "NET-0000"
SILENT_CLIENT = "NET-0001"
ENDINGS = {
    "normal": (1000, ""),
    "idle": (1011, SILENT_CLIENT),
    "upstream_unavailable": (1011, SILENT_SERVICE),
    "invalid_data": (1008, UNDECODABLE),
    "rate_limited": (1013, ""),
}
"""Close code and Deepgram's name of our endings; the others keep their code."""
AUDIO_REFUSALS = ("unsupported_audio", "bad_audio")


class DeepgramTranslator:
    """One stream."""

    direct, counts = True, True

    def __init__(self, listen: Listen, request: str, created: float) -> None:
        """Take what was asked for, the id of the request and its Unix time."""
        self._listen, self._created = listen, created
        self._documents = Documents(request, listen.model, listen.endpoints)
        self._opening = Opening(listen.start)
        self._digest, self._bytes = sha256(), 0
        self._covered = 0.0
        """Seconds of audio whose text will not change any more."""
        self._began = ""
        """Segment whose beginning was told."""
        self._flushes: deque[str] = deque()
        self._flushed = 0
        self._held: Transcript | None = None
        """A final that may turn out to be the answer to a Finalize."""
        self._unread: str | None = None
        self._complaint: Error | None = None
        self._closing = False

    @property
    def first(self) -> Start | None:
        """The command to begin with, unless the audio has to say what it is."""
        return self._opening.first

    @property
    def busy(self) -> bool:
        """Whether too many Finalize messages wait for their answer."""
        return len(self._flushes) >= FLUSHES

    def read(self, text: str) -> Iterable[Step]:
        """Act on a control message."""
        if self._closing:
            return ()

        message = read_object(text) or {}
        match message:
            case {"type": "KeepAlive"}:
                return (Touch.ALIVE,)
            case {"type": "Finalize"}:
                return self._finalize()
            case {"type": "CloseStream"}:
                self._closing = True
                return (Stop() if self._opening.started else NORMAL,)
            case {"type": "Configure"} if (answer := self._configure(message)) is not None:
                return (answer,)
            case _:
                self._unread = text[:QUOTED]
                return (Refused("bad_message", "this is no message of the live protocol"),)

    def hear(self, data: bytes) -> Iterable[Step]:
        """Pass audio on; an empty message is nothing."""
        if self._closing:
            return ()

        self.heard(data)
        return self._opening.hear(data)

    def heard(self, data: bytes) -> None:
        """Count audio."""
        self._digest.update(data)
        self._bytes += len(data)

    def tell(self, event: AnyEvent) -> Iterable[Say]:
        """Say an event."""
        match event:
            case Transcript(final=True):
                return self._say_final(event)
            case Transcript():
                return self._say_partial(event)
            case Ack(id=str(flush)):
                return self._answer_flush(flush)
            case Error(id=str(flush)) if flush in self._flushes:
                return self._answer_flush(flush)
            case Error(code="quota_exceeded", room=str()):
                return ()  # its audio waits; nothing is refused
            case Error():
                return self._complain(event)
            case Closing():
                return self._take_leave(event)
            case _:
                return ()

    def end(self, close: Close) -> Close:
        """Return an ending in Deepgram's codes, its name first where it has one."""
        code, name = ENDINGS.get(close.reason, (public(close.code), ""))
        complaint = self._complaint
        if complaint and complaint.message == close.message and complaint.code in AUDIO_REFUSALS:
            code, name = 1008, UNDECODABLE

        if close.reason == "normal":
            return Close(code, name, flush=close.flush)

        reason = ": ".join(part for part in (name, close.message or close.reason) if part)
        return Close(code, fit(reason), flush=close.flush)

    def _finalize(self) -> Iterable[Step]:
        if not self._opening.started:
            return (self._nothing(),)

        self._flushed += 1
        self._flushes.append(f"finalize-{self._flushed}")
        return (Flush(id=self._flushes[-1]),)

    def _configure(self, message: Mapping[str, Any]) -> Say | None:
        """Answer a Configure: features are formatting, which is ignored as it is in the query."""
        keyterms, features = message.get("keyterms"), message.get("features")
        if not isinstance(features, dict | None) or not isinstance(keyterms, list | None):
            return None

        return Say(self._documents.configured(keyterms is not None))

    def _say_partial(self, event: Transcript) -> Iterator[Say]:
        yield from self._release()
        yield from self._begin(event)
        if self._listen.interim:
            yield self._result_of(event)

    def _say_final(self, event: Transcript) -> Iterator[Say]:
        yield from self._release()
        yield from self._begin(event)
        self._held = event
        if not self._flushes:
            yield from self._release()

    def _begin(self, event: Transcript) -> Iterator[Say]:
        """Tell that speech began, once for each segment."""
        if self._listen.vad_events and event.segment != self._began and event.text:
            self._began = event.segment
            at = max(event.start, self._covered)
            yield Say(self._documents.speech_started(at))

    def _release(self, from_finalize: bool = False) -> Iterator[Say]:
        """Say the final that was held, if any."""
        event, self._held = self._held, None
        if event is None:
            return

        yield self._result_of(event, from_finalize)
        self._covered = max(self._covered, event.end)
        if self._listen.utterance_ends and event.text:
            yield Say(self._documents.utterance_end(event))

    def _answer_flush(self, flush: str) -> Iterator[Say]:
        """Answer one Finalize, with the final that it brought or with an empty one."""
        if flush not in self._flushes:
            return

        self._flushes.remove(flush)
        if self._held is not None:
            yield from self._release(from_finalize=True)
        else:
            yield self._nothing()

    def _result_of(self, event: Transcript, from_finalize: bool = False) -> Say:
        document = self._documents.results(event, self._covered, from_finalize)
        return Say(document, event.segment, partial=not event.final)

    def _nothing(self) -> Say:
        """Answer a Finalize that found nothing."""
        return Say(self._documents.nothing(self._covered))

    def _complain(self, event: Error) -> Iterator[Say]:
        """Say why something is refused; an Error of the client's text repeats the text."""
        quoted, self._unread = self._unread, None
        self._complaint = event
        if quoted is not None:
            yield Say(self._documents.error("SchemaError", event.message, quoted))
        else:
            yield Say(self._documents.error(event.code, event.message, event.message))

    def _take_leave(self, event: Closing) -> Iterator[Say]:
        """Say what is left, then why it ends if that is not the client's wish, then Metadata."""
        while self._flushes:
            yield from self._answer_flush(self._flushes[0])

        complaint = self._complaint
        if event.reason != "normal" and (complaint is None or complaint.message != event.message):
            name = ENDINGS.get(event.reason, (0, ""))[1] or event.reason
            message = event.message or event.reason
            yield Say(self._documents.error(name, message, message))

        digest, channels = self._digest.hexdigest(), self._listen.start.channels
        yield Say(self._documents.metadata(self._created, digest, self._seconds, channels))

    @property
    def _seconds(self) -> float:
        """Seconds of audio: counted where the bytes say it, else as far as it was recognized."""
        start = self._opening.start
        width = {"pcm_s16le": 2, "mulaw": 1, "alaw": 1}.get(start.encoding)
        if width is None or start.rate is None:
            return self._covered

        return self._bytes / (width * start.rate * start.channels)
