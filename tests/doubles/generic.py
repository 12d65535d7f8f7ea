"""A provider that nobody knows: audio in, JSON out, with names and units of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

from websockets.asyncio.server import ServerConnection

from tests.doubles.audio import Heard
from tests.doubles.provider import Connection, Double, Hang, Listening, Refuse

END = '{"action":"done"}'


class GenericDouble(Double):
    """Wants its key in a header and the rate in the query; ends by a text or an empty message."""

    path = "/any/stream"

    def __init__(self) -> None:
        super().__init__()
        self._listening = Listening()

    def check(self, connection: Connection) -> None:
        """Look at the key."""
        if connection.headers.get("X-Key") != self.secret:
            raise Refuse(403)

        if not connection.parameter("rate").isdigit():
            raise Refuse(400)

    async def greet(self, socket: ServerConnection, connection: Connection) -> None:
        """Say hello in words that no mapping knows."""
        rate, channels = (int(connection.parameter(key, "1")) for key in ("rate", "channels"))
        self._listening.begin(connection, rate, channels)
        await self.say(socket, connection, ['{"hello":"speak"}'])

    async def heard(self, socket: ServerConnection, connection: Connection, data: bytes) -> None:
        """Answer; an empty message is the end."""
        if not data:
            await self._finish(socket, connection)

        await self.say(socket, connection, said(self._listening.feed(connection, data)))

    async def told(self, socket: ServerConnection, connection: Connection, text: str) -> None:
        """Take a first text, whatever it is, and the end."""
        if text == END:
            await self._finish(socket, connection)

    async def _finish(self, socket: ServerConnection, connection: Connection) -> None:
        await self.say(socket, connection, said([self._listening.cut(connection)]))
        raise Hang(1000)


def said(found: list[Heard]) -> Iterator[str]:
    """Write what was heard, in milliseconds."""
    for heard in found:
        if heard.words:
            words = [
                {"w": word, "at": {"from": start * 1000, "to": end * 1000}, "p": 0.7}
                for word, start, end in heard.words
            ]
            best = {"transcript": heard.text, "words": words}
            yield json.dumps(
                {
                    "state": "done" if heard.final else "going on",
                    "from": heard.start * 1000,
                    "to": heard.end * 1000,
                    "channel": {"alternatives": [best]},
                }
            )
