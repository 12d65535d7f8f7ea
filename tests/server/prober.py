"""Somebody who tries the surfaces of a server with whatever stands for a right to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.clients import WITHIN, client
from tests.server.authorisation import ALL, ROOM, Place, Rooms, Surface, good

READ_TO = {"speak": '"type":"speech"', "listen": '"type":"joined"', "connect": '"type":"hello"'}
"""What an accepted native socket is read to, by the end of its path."""
QUERY = {"revai": "access_token", "vosk": "token"}
"""Where clients that have no header put a token, by the kind of surface."""


class Answer(msgspec.Struct):
    """What came of an attempt, and everything that was told."""

    outcome: str
    text: str = ""


class Prober:
    """Tries the surfaces of one server."""

    def __init__(self, http: httpx2.AsyncClient, port: int, vosk: int) -> None:
        self._http, self._address, self._vosk = http, f"127.0.0.1:{port}", f"127.0.0.1:{vosk}"

    async def ask(self, surface: str, token: str, body: Any) -> Any:
        """Ask the server API for what is allowed."""
        method, _, path = surface.partition(" ")
        headers = {"Authorization": f"Bearer {token}"}
        url = f"http://{self._address}{path}"
        answer = await self._http.request(method, url, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, token: str, rooms: Rooms, subject: str = "ann") -> str:
        """Get a ticket."""
        body = {"rooms": rooms, "sub": subject}
        return str((await self.ask("POST /v1/tickets", token, body))["ticket"])

    async def revoke(self, kind: str, name: str) -> None:
        """Revoke a subject or a token."""
        await self.ask("POST /v1/revoke", good(ALL, sub="setup"), {kind: name})

    async def attempt(
        self,
        surface: Surface,
        token: str | None,
        place: Place = "usual",
        connection: str = "nobody",
    ) -> Answer:
        """Try a surface with a token at a place, or without; `connection` is asked for by id."""
        with anyio.fail_after(WITHIN):
            if surface.kind == "http":
                return await self._request(surface, token, place, connection)

            if surface.kind == "refresh":
                return await self._connect(surface, good(ALL), place, token or "")

            if "{session}" in str(surface.body):
                async with self._speaking() as session:
                    return await self._connect(surface, token, place, session)

            return await self._connect(surface, token, place)

    def connecting(self, surface: Surface, token: str | None, place: Place = "usual") -> Any:
        """Connect to the socket of a surface."""
        path, host = surface.name.removeprefix("WS "), self._address
        match surface.kind:
            case "command" | "refresh":
                path = "/v1/connect"
            case "vosk":
                path, host = "/", self._vosk

        query, headers = _credential(surface, token, place)
        url = f"ws://{host}{path.format(room=ROOM)}?{query}"
        return connect(url, additional_headers=headers, compression=None, close_timeout=WITHIN)

    def listening(self, token: str) -> Any:
        """Listen to the room."""
        return client(f"ws://{self._address}/v1/rooms/{ROOM}/listen?token={token}")

    async def _request(
        self, surface: Surface, token: str | None, place: Place, connection: str
    ) -> Answer:
        method, _, path = surface.name.partition(" ")
        query, headers = _credential(surface, token, place)
        url = f"http://{self._address}{path.format(room=ROOM, id=connection)}?{query}"
        body = msgspec.json.encode(surface.body).replace(b"{id}", connection.encode())
        content = None if surface.body is None else body
        answer = await self._http.request(method, url, content=content, headers=headers)
        refused = "" if answer.is_success else f" {answer.json()['code']}"
        return Answer(f"{answer.status_code}{refused}", answer.text)

    async def _connect(
        self, surface: Surface, token: str | None, place: Place, said: str = ""
    ) -> Answer:
        try:
            async with self.connecting(surface, token, place) as socket:
                if place == "message":
                    await socket.send(
                        msgspec.json.encode({"type": "auth", "token": token}).decode()
                    )

                return await look_around(surface, socket, said)
        except InvalidStatus as refused:
            body = (refused.response.body or b"").decode()
            problem = msgspec.json.decode(body)
            code = problem.get("code") or problem.get("err_code")
            return Answer(f"{refused.response.status_code} {code}", body)

    @asynccontextmanager
    async def _speaking(self) -> AsyncIterator[str]:
        """Speak as somebody who may come back; yields the session."""
        url = f"ws://{self._address}/v1/rooms/{ROOM}/speak?token={good(ALL)}"
        async with client(url) as speaker:
            yield (await speaker.until("speech"))["session"]


async def look_around(surface: Surface, socket: ClientConnection, said: str = "") -> Answer:
    """Say how an accepted connection goes on, with all that it is told.

    `said` is the session or the token that a command names.
    """
    heard = ""
    try:
        match surface.kind:
            case "deepgram" | "vosk":
                return Answer("open")
            case "revai":
                return Answer("open", str(await socket.recv()))
            case "socket":
                while READ_TO[surface.name.rpartition("/")[2]] not in heard:
                    heard += str(await socket.recv())

                return Answer("open", heard)

        command: dict[str, Any] = {"id": "asked", **(surface.body or {})}
        text = msgspec.json.encode(command).decode()
        await socket.send(text.replace("{session}", said).replace("{token}", said))
        while '"id":"asked"' not in (event := str(await socket.recv())):
            heard += event

        answer = msgspec.json.decode(event)
        return Answer(answer.get("code", answer["type"]), heard + event)
    except ConnectionClosed as closed:
        return Answer(str(closed.rcvd and closed.rcvd.code), heard)


async def code_of(socket: ClientConnection) -> str:
    """Read to the end; return the close code."""
    with suppress(ConnectionClosed), anyio.fail_after(WITHIN):
        while True:
            await socket.recv()

    return str(socket.close_code)


def _credential(surface: Surface, token: str | None, place: Place) -> tuple[str, dict[str, str]]:
    """Return the query and the headers that carry a token."""
    parameter = QUERY.get(surface.kind)
    if place != "usual":
        parameter = place if place == "ticket" else parameter or "token"

    if token is None:
        return surface.query, {}

    if place == "message":
        return f"auth=message&{surface.query}", {}

    if parameter is not None:
        return f"{parameter}={token}&{surface.query}", {}

    scheme = "Token" if surface.kind == "deepgram" else "Bearer"
    return surface.query, {"Authorization": f"{scheme} {token}"}
