"""A double of Deepgram's live protocol, `/v1/listen`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from websockets.asyncio.server import ServerConnection

from tests.doubles.audio import Heard
from tests.doubles.provider import Connection, Double, Hang, Listening, Refuse

REQUEST_ID = "8c8ef0a2-1d2f-4b8e-9d3a-0d3a6f6f0a11"
FLAGS = ("punctuate", "smart_format", "interim_results", "vad_events", "multichannel", "diarize")


class DeepgramDouble(Double):
    """Takes one key and linear16."""

    path = "/v1/listen"

    def __init__(self) -> None:
        super().__init__()
        self.idle_within = 10.0
        """Seconds after which a client that says nothing is closed: NET-0001."""
        self.answers_finalize = True
        """Whether a Finalize is answered; the documentation says usually."""
        self._listening = Listening()
        self._timers: dict[Connection, asyncio.TimerHandle] = {}

    def check(self, connection: Connection) -> None:
        """Refuse the upgrade as Deepgram does, with a reason in a header."""
        if connection.path != self.path:
            raise Refuse(404, dg_request_id=REQUEST_ID)

        if connection.headers.get("Authorization") != f"Token {self.secret}":
            raise Refuse(401, dg_error="Invalid credentials.", dg_request_id=REQUEST_ID)

        for fault in faults(connection):
            raise Refuse(400, dg_error=f"Bad request: {fault}", dg_request_id=REQUEST_ID)

    async def greet(self, socket: ServerConnection, connection: Connection) -> None:
        """Wait for audio, for so long."""
        rate, channels = (int(connection.parameter(key)) for key in ("sample_rate", "channels"))
        self._listening.begin(connection, rate, channels)
        self._alive(socket, connection)

    async def heard(self, socket: ServerConnection, connection: Connection, data: bytes) -> None:
        """Answer with results, empty ones included."""
        if not data:
            raise Hang(1011, "unexpected empty message")

        self._alive(socket, connection)
        found = self._listening.feed(connection, data)
        interim = connection.parameter("interim_results") == "true"
        said = (results(each) for each in found if each.final or interim)
        await self.say(socket, connection, said)

    async def told(self, socket: ServerConnection, connection: Connection, text: str) -> None:
        """Take the three messages of a client; anything else is an error."""
        try:
            kind = json.loads(text)["type"]
        except (ValueError, LookupError, TypeError):
            kind = ""

        if kind == "KeepAlive":
            if connection.audio:  # before the first audio it does not count
                self._alive(socket, connection)
        elif kind == "Finalize":
            self._alive(socket, connection)
            if self.answers_finalize:
                cut = self._listening.cut(connection, flushed=True)
                await self.say(socket, connection, [results(cut)])
        elif kind == "CloseStream":
            cut = self._listening.cut(connection)
            await self.say(socket, connection, [results(cut), metadata(connection)])
            self._timers.pop(connection).cancel()
            raise Hang(1000)
        else:
            await self.say(socket, connection, [error("SchemaError", "unknown message")])

    def _alive(self, socket: ServerConnection, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if connection in self._timers:
            self._timers[connection].cancel()

        self._timers[connection] = loop.call_later(
            self.idle_within, lambda: loop.create_task(socket.close(1011, "NET-0001"))
        )


def faults(connection: Connection) -> Iterator[str]:
    """Yield what is wrong with the parameters; unknown ones are ignored."""
    if not connection.parameter("model"):
        yield "model is required"

    if connection.parameter("encoding") != "linear16":
        yield "encoding is not supported"

    for key in ("sample_rate", "channels"):
        if not connection.parameter(key).isdigit():
            yield f"{key} is no number"

    for key in FLAGS:
        if connection.parameter(key, "true") not in ("true", "false"):
            yield f"{key} is neither true nor false"

    endpointing = connection.parameter("endpointing", "10")
    if endpointing != "false" and not endpointing.isdigit():
        yield "endpointing is no number"


def results(heard: Heard) -> str:
    """Write what was heard as Deepgram does."""
    words = [
        {
            "word": word,
            "start": start,
            "end": end,
            "confidence": 0.8,
            "punctuated_word": word,
        }
        for word, start, end in heard.words
    ]
    alternative = {"transcript": heard.text, "confidence": 0.8, "words": words}
    message: dict[str, Any] = {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": heard.end - heard.start,
        "start": heard.start,
        "is_final": heard.final,
        "speech_final": heard.final,
        "channel": {"alternatives": [alternative]},
        "metadata": {"request_id": REQUEST_ID, "model_info": {}, "model_uuid": str(uuid4())},
        "from_finalize": heard.flushed,
    }
    return json.dumps(message)


def metadata(connection: Connection) -> str:
    """Write the last message."""
    return json.dumps(
        {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": REQUEST_ID,
            "sha256": "e3b0",
            "created": "2024-08-29T22:37:55.202Z",
            "duration": 0.0,
            "channels": 1,
        }
    )


def error(variant: str, description: str) -> str:
    """Write an error."""
    return json.dumps({"type": "Error", "variant": variant, "description": description})
