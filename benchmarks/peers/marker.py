"""Payloads that can be found again in any framing, and the scanner that finds them.

Pure: bytes in, numbers out. A payload begins with a mark: its number and the time at which it was
sent. Whatever a server wraps around payloads, the scanner finds the marks in the bytes of a read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from server.load.frames import BINARY, PONG, TEXT, Chunk

MARK = re.compile(rb"~S(\d{12})(\d{19})~")
MARK_BYTES = 34
BEGIN = b"~"

Answer = Callable[["re.Match[bytes]"], tuple[int, bytes]]
"""Makes opcode and payload of the answer to a ping that was found."""


class Pings:
    """How a server's pings look, and what answers them."""

    def __init__(self, pattern: bytes, answer: Answer) -> None:
        self.pattern = re.compile(pattern, re.DOTALL)
        self.answer = answer


_CONTROL = b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(126))
WEBSOCKET = Pings(
    # At the end of another frame only: the same byte may be part of a length.
    rb"(?:\A|(?<=[\]}x\n]))\x89(" + _CONTROL + b")",
    lambda found: (PONG, found[1][1:]),
)
ENGINE_IO = Pings(rb"\x81\x012", lambda found: (TEXT, b"3"))
NATS = Pings(rb"PING\r\n", lambda found: (BINARY, b"PONG\r\n"))


def payload(number: int, now: int, size: int) -> bytes:
    """Make a payload of exactly this size: a number from 1 on, and nanoseconds."""
    return (b"~S%012d%019d~" % (number, now)).ljust(size, b"x")


def scan(data: bytes, pings: tuple[Pings, ...] = ()) -> Chunk:
    """Find the marks, and what is owed for pings; what follows `size` may begin another mark."""
    chunk, end = Chunk(data), 0
    for found in MARK.finditer(data):
        chunk.offsets.append(int(found[1]))
        chunk.stamps.append(int(found[2]))
        end = found.end()

    begins = data.find(BEGIN, max(end, len(data) - MARK_BYTES + 1))
    chunk.size = len(data) if begins < 0 else begins
    first = chunk.offsets[0] if chunk.offsets else 0
    chunk.run = first > 0 and chunk.offsets == list(range(first, first + len(chunk.offsets)))
    for kind in pings:
        chunk.others += [kind.answer(found) for found in kind.pattern.finditer(data)]

    return chunk
