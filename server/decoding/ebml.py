"""Numbers and elements of EBML (RFC 8794), the tree that WebM is."""

from __future__ import annotations

from collections.abc import Iterator


class Unsound(Exception):
    """No element begins here."""


def number(data: bytes | bytearray, at: int) -> tuple[int | None, int]:
    """Read a number of variable width: it, None if all its bits are set; and where it ends.

    It ends at 0 if it is not all there. Raises Unsound.
    """
    if at >= len(data):
        return None, 0

    width = 9 - data[at].bit_length()
    if width > 8:
        raise Unsound

    if len(data) < at + width:
        return None, 0

    mask = (1 << 7 * width) - 1
    value = int.from_bytes(data[at : at + width], "big") & mask
    return None if value == mask else value, at + width


def children(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements in the body of another, by their ids; what is cut off is left out."""
    at = 0
    while at < len(body):
        width = 9 - body[at].bit_length()
        try:
            size, begins = number(body, at + width)
        except Unsound:
            return

        if size is None or begins + size > len(body):
            return

        yield int.from_bytes(body[at : at + width], "big"), body[begins : begins + size]
        at = begins + size
