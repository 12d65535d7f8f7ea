"""Several packets in one block of Matroska (RFC 9559, section 5.1.4.5.2 and on)."""

from __future__ import annotations

XIPH, FIXED = 1, 2


def unlace(kind: int, body: bytes) -> list[bytes]:
    """Return the packets of a block's body; none if their sizes do not fit into it."""
    if not kind:
        return [body]

    if not body:
        return []

    count = body[0] + 1
    if kind == FIXED:
        size, odd = divmod(len(body) - 1, count)
        sizes, at = [] if odd else [size] * (count - 1), 1
    else:
        sizes, at = (_xiph if kind == XIPH else _ebml)(body, count - 1)

    sizes.append(len(body) - at - sum(sizes))
    if len(sizes) != count or min(sizes) <= 0:
        return []

    packets = []
    for size in sizes:
        packets.append(body[at : at + size])
        at += size

    return packets


def _xiph(body: bytes, count: int) -> tuple[list[int], int]:
    sizes: list[int] = []
    at = 1
    while len(sizes) < count and at < len(body):
        size = 0
        while at < len(body) and body[at] == 255:
            size, at = size + 255, at + 1

        size, at = size + (body[at] if at < len(body) else 0), at + 1
        sizes.append(size)

    return sizes, at


def _ebml(body: bytes, count: int) -> tuple[list[int], int]:
    """Read a first size, and then differences, which are biased to be positive."""
    sizes: list[int] = []
    at = 1
    while len(sizes) < count and at < len(body) and body[at]:
        width = 9 - body[at].bit_length()
        value = int.from_bytes(body[at : at + width], "big") & ((1 << 7 * width) - 1)
        sizes.append(sizes[-1] + value - (1 << 7 * width - 1) + 1 if sizes else value)
        at += width

    return sizes, at
