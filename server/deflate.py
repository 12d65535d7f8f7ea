"""permessage-deflate (RFC 7692) without context takeover, so that one message serves everybody."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension

NAME = "permessage-deflate"
ANSWER = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
BOUND = "server_max_window_bits"
FULL_WINDOW = f"; {BOUND}={zlib.MAX_WBITS}"
NO_CONTEXT = ("server_no_context_takeover", "client_no_context_takeover")
TAIL = b"\x00\x00\xff\xff"
"""What a sender leaves off the end of a message (section 7.2.1)."""


class BadDeflate(ValueError):
    """The bytes are not what deflate makes."""


class TooBig(ValueError):
    """The message is over the limit once it is inflated."""


def negotiate(headers: Iterable[str]) -> str | None:
    """Return the answer to the first offer that can be taken, or None.

    The window is the full one, so an offer that wants the server's smaller is left for the next.
    """
    try:
        offers = [offer for header in headers for offer in parse_extension(header)]
    except InvalidHeaderFormat:
        return None

    for name, parameters in offers:
        if _acceptable(name, parameters):
            # Whoever asks for a bound has to be told one (section 7.1.2.1).
            return ANSWER + FULL_WINDOW * any(key == BOUND for key, _ in parameters)

    return None


def inflate(data: bytes, limit: int) -> bytes:
    """Inflate a message. Raises TooBig before more than `limit` bytes exist, or BadDeflate."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        message = inflater.decompress(data + TAIL, limit + 1)
    except zlib.error as error:
        raise BadDeflate(str(error)) from None

    if len(message) > limit:
        raise TooBig

    if inflater.unconsumed_tail or inflater.unused_data.rstrip(TAIL):
        raise BadDeflate("bytes after the end")

    return message


def _acceptable(name: str, parameters: Sequence[tuple[str, str | None]]) -> bool:
    names = [key for key, _ in parameters]
    if name != NAME or len(set(names)) < len(names):
        return False

    return all(_known(key, value) for key, value in parameters)


def _known(key: str, value: str | None) -> bool:
    if key in NO_CONTEXT:
        return value is None

    bits = {str(number) for number in range(8, 16)}
    if key == "client_max_window_bits":
        return value is None or value in bits

    return key == BOUND and value == str(zlib.MAX_WBITS)
