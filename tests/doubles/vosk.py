"""A double of vosk-server: one answer to each message of audio, in order."""

from __future__ import annotations

import json
from typing import Any

from websockets.asyncio.server import ServerConnection

from tests.doubles.audio import Heard
from tests.doubles.provider import Connection, Double, Hang, Listening

EOF = '{"eof" : 1}'
RESET = '{"reset" : 1}'


class VoskDouble(Double):
    """Takes a configuration, then audio; a text that it does not know ends it."""

    def __init__(self) -> None:
        super().__init__()
        self._listening = Listening()
        self._words: dict[Connection, bool] = {}
        self._partials: dict[Connection, str] = {}

    async def heard(self, socket: ServerConnection, connection: Connection, data: bytes) -> None:
        """Answer exactly once."""
        if connection not in self._words:
            raise Hang(1011)

        found = self._listening.feed(connection, data)
        finals = [each for each in found if each.final]
        if finals:
            answer = self._utterance(connection, finals)
        elif found:
            self._partials[connection] = found[-1].text
            answer = {"partial": found[-1].text}
        else:
            answer = {"partial": self._partials.get(connection, "")}

        await self.say(socket, connection, [json.dumps(answer)])

    async def told(self, socket: ServerConnection, connection: Connection, text: str) -> None:
        """Take the configuration, or one of two texts that are compared as they are."""
        if text in (EOF, RESET):
            answer = self._utterance(connection, [self._listening.cut(connection)])
            await self.say(socket, connection, [json.dumps(answer)])
            if text == EOF:
                raise Hang(1000)
        elif "config" in text:
            config = json.loads(text)["config"]
            self._words[connection] = bool(config.get("words"))
            self._listening.begin(connection, int(config["sample_rate"]))
        else:
            raise Hang(1011)

    def _utterance(self, connection: Connection, finals: list[Heard]) -> dict[str, Any]:
        self._partials[connection] = ""
        spoken = [word for heard in finals for word in heard.words]
        answer: dict[str, Any] = {"text": " ".join(word for word, _, _ in spoken)}
        if spoken and self._words[connection]:
            answer["result"] = [
                {"conf": 1.0, "end": end, "start": start, "word": word}
                for word, start, end in spoken
            ]

        return answer
