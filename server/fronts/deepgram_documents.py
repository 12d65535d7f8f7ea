"""The JSON documents that a client of Deepgram is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from actors.messages import Transcript, Word

CHANNEL = [0, 1]
"""The channel that everything is about, and how many there are: channels are mixed."""
WORD_EDGES = ".,!?;:\"'()[]"
Document = dict[str, Any]


class Documents:
    """Makes the documents of one request."""

    def __init__(self, request: str, model: str, endpoints: bool) -> None:
        """Take the request's id, the name of the model, and whether pauses are told."""
        self._request, self._endpoints = request, endpoints
        self._metadata = {
            "request_id": request,
            "model_info": {"name": model, "version": "roomcast", "arch": "roomcast"},
            "model_uuid": str(uuid5(NAMESPACE_URL, model)),
        }

    def results(self, event: Transcript, covered: float, from_finalize: bool) -> Document:
        """Say what was recognized of the audio from `covered` on."""
        words = event.words
        sure = sum(word.confidence for word in words) / len(words) if words else 1.0
        alternative = {
            "transcript": event.text,
            "confidence": round(sure, 4),
            "words": [_word(word) for word in words],
        }
        length = max(0.0, event.end - covered)
        return self._results(alternative, (covered, length), event.final, from_finalize)

    def nothing(self, covered: float) -> Document:
        """Answer a Finalize that found nothing."""
        alternative = {"transcript": "", "confidence": 0.0, "words": []}
        return self._results(alternative, (covered, 0.0), final=True, from_finalize=True)

    def speech_started(self, at: float) -> Document:
        """Say when speech began."""
        return {"type": "SpeechStarted", "channel": CHANNEL, "timestamp": round(at, 3)}

    def utterance_end(self, event: Transcript) -> Document:
        """Say when the last word of an utterance ended."""
        end = event.words[-1].end if event.words else event.end
        return {"type": "UtteranceEnd", "channel": CHANNEL, "last_word_end": round(end, 3)}

    def error(self, variant: str, description: str, message: str) -> Document:
        """Say what is wrong."""
        return {
            "type": "Error",
            "variant": variant,
            "description": description,
            "message": message,
            "request_id": self._request,
        }

    def configured(self, keyterms: bool) -> Document:
        """Answer a Configure, which fails if it has keyterms."""
        if not keyterms:
            return {"type": "ConfigureSuccess", "request_id": self._request}

        return {
            "type": "ConfigureFailure",
            "request_id": self._request,
            "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
            "description": "no engine here takes keyterms",
        }

    def metadata(self, created: float, digest: str, duration: float, channels: int) -> Document:
        """Say what the stream was; `created` is its Unix time."""
        at = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request,
            "sha256": digest,
            "created": at.replace("+00:00", "Z"),
            "duration": round(duration, 3),
            "channels": channels,
        }

    def _results(
        self, alternative: Document, span: tuple[float, float], final: bool, from_finalize: bool
    ) -> Document:
        start, length = span
        return {
            "type": "Results",
            "channel_index": CHANNEL,
            "duration": round(length, 3),
            "start": round(start, 3),
            "is_final": final,
            "speech_final": final and self._endpoints,
            "channel": {"alternatives": [alternative]},
            "metadata": self._metadata,
            "from_finalize": from_finalize,
        }


def _word(word: Word) -> Document:
    return {
        "word": word.text.strip(WORD_EDGES).lower() or word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
        "punctuated_word": word.text,
    }
