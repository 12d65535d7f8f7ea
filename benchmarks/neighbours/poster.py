"""A keep-alive connection over which messages are published with HTTP."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import cast

from server.load.target import Target

WAITING = 4
"""Requests that may wait for their answer on one connection."""
_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


class Poster(asyncio.Protocol):
    """Publishes to one room, and counts the answers by their status."""

    def __init__(self, target: Target, room: str, counts: Counter[str]) -> None:
        self._target, self._counts = target, counts
        self._head = (
            f"POST /v1/rooms/{room}/messages HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {target.token}\r\n"
        )
        self._bodies: dict[int, bytes] = {}
        self._transport: asyncio.Transport | None = None
        self._waiting = self._number = 0
        self._opening: asyncio.Task[None] | None = None

    async def open(self, number: int) -> None:
        """Connect. Raises OSError."""
        self._number, self._waiting = number, 0
        await self._target.connect(lambda: self, number)

    def post(self, size: int) -> None:
        """Publish so many bytes, unless too many answers are still to come."""
        if self._transport is None or self._transport.is_closing():
            if self._opening is None or self._opening.done():
                self._opening = asyncio.ensure_future(self._again())

            return

        if self._waiting < WAITING:
            self._waiting += 1
            self._counts["posts"] += 1
            self._transport.write(self._request(size))

    def cut(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Count the answers."""
        for status in _STATUS.findall(data):
            self._waiting -= 1
            self._counts[f"HTTP {status.decode()}"] += 1

    async def _again(self) -> None:
        try:
            await self.open(self._number)
        except OSError:
            self._counts["connects refused"] += 1

    def _request(self, size: int) -> bytes:
        request = self._bodies.get(size)
        if request is None:
            body = b'{"data":"' + b"x" * size + b'"}'
            head = f"{self._head}Content-Length: {len(body)}\r\n\r\n"
            request = self._bodies[size] = head.encode() + body

        return request
