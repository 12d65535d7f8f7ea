"""What the doubles have in common: a server that records, and faults by plan."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.doubles.audio import Ear, Heard
from tests.doubles.background import Background

AT_ONCE = -1
"""Before the provider says that it is ready."""
RECEIVE_BUFFER = 16_384


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one connection once it has brought so many bytes of audio."""

    kind: str = ""
    after: int = AT_ONCE
    code: int = 0
    text: str = ""
    payload: str | bytes = ""
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


def refuse(status: int, body: str = "", **headers: str) -> Fault:
    """Answer the upgrade with an HTTP status; underscores in the headers' names are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault("refuse", code=status, text=body, headers=named)


def slow(seconds: float) -> Fault:
    """Answer the upgrade late."""
    return Fault("slow", seconds=seconds)


def close(code: int, reason: str = "", after: int = AT_ONCE) -> Fault:
    """Close with a code; what the audio up to there brings is said before."""
    return Fault("close", after, code, reason)


def abort(after: int = AT_ONCE) -> Fault:
    """Reset the TCP connection."""
    return Fault("abort", after)


def stall(after: int = AT_ONCE) -> Fault:
    """Read and say nothing any more, until `resume`."""
    return Fault("stall", after)


def mute(after: int = AT_ONCE) -> Fault:
    """Go on to read and to answer pings, but say nothing any more, until `resume`."""
    return Fault("mute", after)


def say(payload: str | bytes, after: int = AT_ONCE) -> Fault:
    """Send one message that the protocol does not have."""
    return Fault("say", after, payload=payload)


def raw(payload: bytes, after: int = AT_ONCE) -> Fault:
    """Write bytes to the socket that need be no frame."""
    return Fault("raw", after, payload=payload)


class Connection:
    """What one connection brought."""

    def __init__(self, request: Request, fault: Fault) -> None:
        self.headers: Headers = request.headers
        self.path = urlsplit(request.path).path
        self.query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        self.fault = fault
        self.audio = bytearray()
        """Every byte of audio, as it came."""
        self.messages = 0
        """Messages of audio."""
        self.texts: list[str] = []
        """Every text message, as it came."""
        self.sent = 0
        """Messages sent to the client."""
        self.muted = False
        self.closed = False
        """Whether the connection is over."""

    def parameter(self, name: str, default: str = "") -> str:
        """Return the first value of a parameter of the query."""
        return self.query.get(name, [default])[0]


class Refuse(Exception):
    """The upgrade is answered with a status."""

    def __init__(self, status: int, body: str = "", **headers: str) -> None:
        super().__init__(body)
        self.fault = refuse(status, body, **headers)


class Hang(Exception):
    """The provider closes the connection with a code."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Double(Background):
    """A provider on a free port of the loopback address; see the package."""

    path = "/"
    secret = "s3cret-0f-the-double"
    """The key or token that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Connection] = []
        """All that were accepted, in their order; each is here before its client knows."""
        self.requests: list[Request] = []
        """All upgrades that were asked for."""
        self._plan: deque[Fault] = deque()
        self._resumed = asyncio.Event()
        self._begun: dict[Any, Connection] = {}

    @property
    def url(self) -> str:
        """Where to connect to."""
        return f"ws://127.0.0.1:{self.port}{self.path}"

    @property
    def open(self) -> list[Connection]:
        """The connections that are not over."""
        return [each for each in self.connections if not each.closed]

    def plan(self, *faults: Fault) -> None:
        """Let the next connections have these faults, one each; those after them have none."""
        self._plan.extend(faults)

    def resume(self) -> None:
        """End every stall, and those still to come."""
        self.call(self._resumed.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until stopped; then cut what is left."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.port = int(listening.getsockname()[1])
        async with serve(
            self._serve,
            sock=listening,
            process_request=self._look,
            compression=None,
            max_queue=1,
            ping_interval=None,
            close_timeout=0.2,
            select_subprotocol=self._choose,
        ) as server:
            self.ready()
            await stop.wait()
            self._resumed.set()
            for each in server.connections:
                each.transport.abort()

    # A provider's own part.

    def check(self, connection: Connection) -> None:
        """Look at the request. Raises Refuse."""

    async def greet(self, socket: ServerConnection, connection: Connection) -> None:
        """Begin after the upgrade. Raises Hang."""

    async def heard(self, socket: ServerConnection, connection: Connection, data: bytes) -> None:
        """Answer a message of audio. Raises Hang."""
        raise NotImplementedError

    async def told(self, socket: ServerConnection, connection: Connection, text: str) -> None:
        """Answer a text message. Raises Hang."""
        raise NotImplementedError

    async def say(
        self, socket: ServerConnection, connection: Connection, messages: Iterable[str]
    ) -> None:
        """Send messages, unless the plan has silenced the connection."""
        for message in messages:
            if connection.muted:
                return

            connection.sent += 1
            await socket.send(message)

    # The machinery.

    def _choose(self, socket: ServerConnection, offered: Any) -> Any:
        return offered[0] if offered else None

    async def _look(self, socket: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        fault = self._plan.popleft() if self._plan else Fault()
        if fault.kind == "slow":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._resumed.wait(), fault.seconds)

        connection = Connection(request, fault)
        try:
            self.check(connection)
        except Refuse as refusal:
            fault = refusal.fault

        if fault.kind == "refuse":
            response = socket.respond(HTTPStatus(fault.code), fault.text)
            for name, value in fault.headers.items():
                response.headers[name] = value

            return response

        if not socket.transport.is_closing():  # else nobody waits for the answer any more
            self._begun[socket.id] = connection
            self.connections.append(connection)

        return None

    async def _serve(self, socket: ServerConnection) -> None:
        connection = self._begun.pop(socket.id)
        self.changed()
        try:
            await self._fail(socket, connection)
            await self.greet(socket, connection)
            async for message in socket:
                await self._take(socket, connection, message)
                self.changed()
        except Hang as ending:
            await socket.close(ending.code, ending.reason)
        except ConnectionClosed:
            pass
        finally:
            connection.closed = True
            self.changed()

    async def _take(
        self, socket: ServerConnection, connection: Connection, message: str | bytes
    ) -> None:
        if isinstance(message, str):
            connection.texts.append(message)
            await self.told(socket, connection, message)
            return

        connection.messages += 1
        connection.audio += message
        self.changed()
        await self.heard(socket, connection, message)
        await self._fail(socket, connection)

    async def _fail(self, socket: ServerConnection, connection: Connection) -> None:
        """Do what the plan says once it is due."""
        fault = connection.fault
        if fault.after > len(connection.audio) or (fault.after >= 0 and not connection.audio):
            return

        match fault.kind:
            case "close":
                raise Hang(fault.code, fault.text)
            case "abort":
                connection.fault = Fault()
                reset(socket)
            case "stall":
                await self._resumed.wait()
            case "mute":
                connection.muted = not self._resumed.is_set()
            case "say":
                connection.fault = Fault()
                await socket.send(fault.payload)
            case "raw":
                connection.fault = Fault()
                assert isinstance(fault.payload, bytes)
                socket.transport.write(fault.payload)


def reset(socket: ServerConnection) -> None:
    """Cut a connection so that the other end sees a reset."""
    at = socket.transport.get_extra_info("socket")
    at.setsockopt(_SOL_SOCKET, _SO_LINGER, struct.pack("ii", 1, 0))
    socket.transport.abort()


_SOL_SOCKET, _SO_LINGER = socket.SOL_SOCKET, socket.SO_LINGER


class Listening:
    """The ears of a double's connections."""

    def __init__(self) -> None:
        self._ears: dict[Connection, Ear] = {}

    def begin(self, connection: Connection, rate: int, channels: int = 1) -> None:
        """Give a connection an ear for its audio."""
        self._ears[connection] = Ear(rate, channels)

    def feed(self, connection: Connection, data: bytes) -> list[Heard]:
        """Return what a connection's audio says."""
        return list(self._ears[connection].feed(data))

    def cut(self, connection: Connection, flushed: bool = False) -> Heard:
        """Close a connection's segment."""
        return self._ears[connection].cut(flushed)
