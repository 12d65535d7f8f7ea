"""A double of Rev.ai's streaming protocol, version 1."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from websockets.asyncio.server import ServerConnection

from tests.doubles.audio import Heard
from tests.doubles.provider import Connection, Double, Hang, Listening, Refuse

RAW = re.compile(r"audio/x-raw;layout=interleaved;rate=(\d+);format=S16LE;channels=(\d+)")
FLAGS = (
    "filter_profanity",
    "remove_disfluencies",
    "detailed_partials",
    "enable_speaker_switch",
    "skip_postprocessing",
)
COUNTS = ("delete_after_seconds", "max_segment_duration_seconds", "max_connection_wait_seconds")
KNOWN = {
    "access_token",
    "content_type",
    "language",
    "metadata",
    "custom_vocabulary_id",
    "start_ts",
    "transcriber",
    "priority",
    "user_agent",
    *FLAGS,
    *COUNTS,
}


class RevAiDouble(Double):
    """Takes one token and raw audio; looks at every parameter."""

    path = "/speechtotext/v1/stream"

    def __init__(self) -> None:
        super().__init__()
        self.ready_after = 0.0
        """Seconds until `connected`; audio that comes before is taken."""
        self._listening = Listening()

    def check(self, connection: Connection) -> None:
        """Know one path; everything else is said after the upgrade."""
        if connection.path != self.path:
            raise Refuse(404)

    async def greet(self, socket: ServerConnection, connection: Connection) -> None:
        """Look at the parameters, then say `connected`."""
        if connection.parameter("access_token") != self.secret:
            raise Hang(4001, "Unauthorized: missing or invalid access_token")

        rate, channels = looked_at(connection)
        self._listening.begin(connection, rate, channels)
        if self.ready_after:
            await asyncio.sleep(self.ready_after)

        await self.say(socket, connection, ['{"type":"connected","id":"s1d24ax2fd21"}'])

    async def heard(self, socket: ServerConnection, connection: Connection, data: bytes) -> None:
        """Answer with hypotheses; silence has none."""
        detailed = connection.parameter("detailed_partials") == "true"
        found = self._listening.feed(connection, data)
        await self.say(socket, connection, said(found, detailed))

    async def told(self, socket: ServerConnection, connection: Connection, text: str) -> None:
        """Take `EOS` and nothing else."""
        if text != "EOS":
            raise Hang(1007, "Invalid payload data")

        await self.say(socket, connection, said([self._listening.cut(connection)]))
        raise Hang(1000, "Normal Closure.")


def looked_at(connection: Connection) -> tuple[int, int]:
    """Return rate and channels. Raises Hang, naming the parameter that is wrong."""
    raw = RAW.fullmatch(connection.parameter("content_type"))
    if raw is None or not (8000 <= int(raw[1]) <= 48000 and 1 <= int(raw[2]) <= 10):
        raise Hang(4002, "Bad Request: content_type")

    wrong = [
        *(name for name in connection.query if name not in KNOWN),
        *(name for name in FLAGS if connection.parameter(name, "true") not in ("true", "false")),
        *(name for name in COUNTS if not connection.parameter(name, "0").isdigit()),
    ]
    if len(connection.parameter("metadata")) > 512:
        wrong.append("metadata")

    if connection.parameter("custom_vocabulary_id") == "unknown":
        wrong.append("custom_vocabulary_id")

    if connection.parameter("priority", "speed") not in ("speed", "accuracy"):
        wrong.append("priority")

    if wrong:
        raise Hang(4002, f"Bad Request: {wrong[0]}")

    return int(raw[1]), int(raw[2])


def said(found: list[Heard], detailed: bool = False) -> Iterator[str]:
    """Write what was heard as Rev.ai does."""
    for heard in found:
        if not heard.words:
            continue

        elements: list[dict[str, Any]] = []
        for word, start, end in heard.words:
            if elements and heard.final:
                elements.append({"type": "punct", "value": " "})

            times = {"ts": start, "end_ts": end} if heard.final or detailed else {}
            sure = {"confidence": 0.9} if times else {}
            elements.append({"type": "text", "value": word, **times, **sure})

        kind = "final" if heard.final else "partial"
        yield json.dumps(
            {"type": kind, "ts": heard.start, "end_ts": heard.end, "elements": elements}
        )
