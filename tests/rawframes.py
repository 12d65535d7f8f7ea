"""Frames as a client sends them and as it reads them, legal or not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, DEFLATED = 0x80, 0x40
TAIL = b"\x00\x00\xff\xff"


def upgrade(path: str, token: str) -> bytes:
    """Build the head of a request for a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def head(first: int, size: int, mask: bytes = bytes(4)) -> bytes:
    """Build the head of a masked frame with this first byte."""
    if size < 126:
        return bytes((first, 0x80 | size)) + mask

    if size < 65536:
        return bytes((first, 0xFE)) + struct.pack(">H", size) + mask

    return bytes((first, 0xFF)) + struct.pack(">Q", size) + mask


def masked(opcode: int, data: bytes = b"", fin: bool = True, mask: bytes = bytes(4)) -> bytes:
    """Build a frame of a client; a mask of zeros changes nothing."""
    key = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    hidden = (int.from_bytes(data, "big") ^ key).to_bytes(len(data), "big")
    return head(opcode | FIN * fin, len(data), mask) + hidden


def deflated(data: bytes) -> bytes:
    """Deflate a message as permessage-deflate does."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read what a server sent: the first byte and the payload of each frame; all must be whole."""
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        if size == 126:
            (size,), at = struct.unpack_from(">H", data, at), at + 2
        elif size == 127:
            (size,), at = struct.unpack_from(">Q", data, at), at + 8

        assert at + size <= len(data), "the last frame is cut"
        yield first, data[at : at + size]
        at += size
