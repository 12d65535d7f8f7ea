"""The load client: a raw asyncio protocol that does no more than it takes to count right."""

from __future__ import annotations

import asyncio
import errno
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec

from server.load.frames import BINARY, CLOSE, LARGEST, PING, PONG, TEXT, Chunk, pack, parse

WITHIN = 30.0
"""Seconds that anything may take; what takes longer counts as lost."""
NORMAL = (1000).to_bytes(2, "big")
CUT_OFF = "cut off"
"""The ending of a connection that broke without a close frame."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CODE = re.compile(rb'"code": ?"(\w+)"')

AnySocket = TypeVar("AnySocket", bound="Socket")


class Broken(Exception):
    """The server did something that no measurement should go on after."""


def reason(error: BaseException) -> str:
    """Say why a connection failed, in few words."""
    match error:
        case TimeoutError():
            return f"no answer within {WITHIN:g} s"
        case OSError(errno=errno.EADDRNOTAVAIL):
            return "no local port is free"
        case OSError(strerror=str(text)):
            return text

    return str(error)


class Socket(asyncio.Protocol):
    """One WebSocket client."""

    head = ""
    """More lines of its request, each with its end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened = self.paused = self.lost = False
        self.leaving = False
        """Whether we have begun the end."""
        self.ending = ""
        """How the server ended it: a close code and its reason, or that it broke."""
        self.troubles: list[str] = []
        """Errors and gaps that the server told of, and an ending that was not a normal one."""
        self.latest: dict[str, dict[str, Any]] = {}
        """The newest event of each type."""
        self.came_at = 0
        """Nanoseconds at which the newest bytes came."""
        self.transport: asyncio.Transport
        self._refusal = "the server hung up"
        self._rest = b""
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take the whole frames, and keep the beginning of the next."""
        self.came_at = time.monotonic_ns()
        if self._rest:
            data = self._rest + data

        try:
            if not self.opened:
                data = self._open(data)

            if self.opened:
                chunk = self.read(data)
                data = data[chunk.size :]
                self.take(chunk)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError):
            self._give_up()

        self._rest = data
        if len(data) > LARGEST:
            self._give_up()

        if self._news is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note an end that nobody asked for, and wake whoever waits for something."""
        self.lost = True
        if self.opened and not self.leaving and not self.ending:
            self.ending = CUT_OFF
            self.troubles.append(CUT_OFF)

        self._wake()

    def pause_writing(self) -> None:
        """The buffers are full."""
        self.paused = True

    def resume_writing(self) -> None:
        """They are not any more."""
        self.paused = False
        self._wake()

    def read(self, data: bytes) -> Chunk:
        """Find the frames in what came."""
        return parse(data)

    def take(self, chunk: Chunk) -> None:
        """Act on the frames."""
        for opcode, payload in chunk.others:
            if opcode == PING and not self.transport.is_closing():
                self.transport.write(pack(PONG, payload))
            elif opcode == CLOSE:
                self._end(payload)
            elif opcode == TEXT:
                event = msgspec.json.decode(payload)
                self.hear(event["type"], event)
            else:
                self.hear("binary", {})

    def hear(self, kind: str, event: dict[str, Any]) -> None:
        """Keep an event, and what is wrong with it."""
        if kind == "error":
            self.troubles.append(f"error {event['code']}")
        elif kind == "gap":
            self.troubles.append(f"gap {event['reason']}")

        self.latest[kind] = event

    def write(self, frames: bytes) -> None:
        """Send whole frames. Raises Broken."""
        if self.transport.is_closing():
            raise Broken(self.ending or CUT_OFF)

        self.transport.write(frames)

    def send(self, command: dict[str, object]) -> None:
        """Send a command. Raises Broken."""
        self.write(pack(TEXT, msgspec.json.encode(command)))

    def send_audio(self, data: bytes) -> None:
        """Send one frame of audio. Raises Broken."""
        self.write(pack(BINARY, data))

    async def until(self, fits: Callable[[], bool]) -> None:
        """Wait, one at a time, until something is so. Raises Broken when it cannot be any more."""
        while not fits():
            if self.lost:
                raise Broken(self.ending or self._refusal)

            self._news = asyncio.get_running_loop().create_future()
            await self._news

    async def event(
        self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda event: True
    ) -> dict[str, Any]:
        """Wait until the newest event of a type fits. Raises Broken or TimeoutError."""
        async with asyncio.timeout(WITHIN):
            await self.until(lambda: kind in self.latest and fits(self.latest[kind]))

        return self.latest[kind]

    async def drained(self) -> None:
        """Wait while the buffers are full. Raises Broken or TimeoutError."""
        async with asyncio.timeout(WITHIN):
            await self.until(lambda: not self.paused)

    def leave(self) -> None:
        """Begin to close as the protocol has it."""
        if not (self.leaving or self.transport.is_closing()):
            self.transport.write(pack(CLOSE, NORMAL))

        self.leaving = True

    def cut(self) -> None:
        """End the connection without a word."""
        self.leaving = True
        self.transport.abort()

    async def close(self, within: float = WITHIN) -> bool:
        """Close as the protocol has it, and cut it if the server does not; tell whether it did."""
        self.leave()
        try:
            async with asyncio.timeout(within):
                await self.until(lambda: self.lost)
        except TimeoutError:
            self.cut()

        return bool(self.ending)

    def _open(self, data: bytes) -> bytes:
        """Read the answer to the upgrade; return what follows it, or all as long as it is short."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if end and head.startswith(b"HTTP/1.1 101 "):
            self.opened = True
            return rest

        length = _LENGTH.search(head)
        if end and len(rest) >= int(length[1] if length else 0):
            code = _CODE.search(rest)
            words = [b"HTTP", *head.split(b" ", 2)[1:2], *(code.groups() if code else ())]
            self._refusal = b" ".join(words).decode(errors="replace")
            self.transport.abort()

        return data

    def _give_up(self) -> None:
        self.ending = "sent what is no event of Roomcast"
        self.troubles.append(self.ending)
        self.transport.abort()

    def _end(self, payload: bytes) -> None:
        code, why = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
        self.ending = f"{code} {why}".strip()
        if payload[:2] not in (b"", NORMAL):
            self.troubles.append(f"closed with {self.ending}")

        if not (self.leaving or self.transport.is_closing()):
            self.transport.write(pack(CLOSE, payload[:2]))

        self.transport.close()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


async def close_all(sockets: Sequence[Socket]) -> int:
    """Close connections as the protocol has it; return how many the server did not."""
    for socket in sockets:
        socket.leave()

    deadline = time.monotonic() + WITHIN
    return sum([not await each.close(max(0.0, deadline - time.monotonic())) for each in sockets])


def hang_up(sockets: Sequence[Socket]) -> None:
    """Cut connections that are not needed any more."""
    for socket in sockets:
        socket.cut()
