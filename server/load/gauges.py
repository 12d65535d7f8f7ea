"""What a server says it holds: its metrics, and what it tells a tenant of its usage."""

from __future__ import annotations

import re
from collections import Counter
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

GAUGES = (
    "connections",
    "rooms",
    "subscriptions",
    "channel_depth",
    "channel_bytes",
    "resumable_sessions",
    "engine_streams",
    "engine_abandoned",
    "open_fds",
)
"""What must be back where it was when everybody has left."""
USAGE = ("connections", "rooms", "speakers", "engine_streams")
"""The same of what a tenant uses."""
ANSWER_WITHIN = 5.0
BACK_WITHIN = 30.0
"""Seconds in which they must be; a lost speaker may come back for half of them."""
LARGEST = 1 << 22
"""Bytes of an answer that are read."""
_LINE = re.compile(rf"^(?:roomcast|process)_({'|'.join(GAUGES)})(?:{{.*}})? (\S+)$", re.MULTILINE)


class Unreadable(ValueError):
    """What a server answers instead of what was asked for."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url}: HTTP {status}")
        self.status = status


def read_gauges(url: str) -> Counter[str]:
    """Return the gauges, each over all its labels. Raises OSError or ValueError."""
    found: Counter[str] = Counter()
    for name, value in _LINE.findall(_read(f"{url}/metrics").decode(errors="replace")):
        found[name] += int(float(value))

    if "subscriptions" not in found:
        raise ValueError(f"{url}/metrics has no gauges of Roomcast")

    return found


def read_usage(url: str, token: str) -> Counter[str]:
    """Return what the token's tenant uses now; nothing if the token may not ask.

    Raises OSError or ValueError.
    """
    try:
        answer = msgspec.json.decode(_read(f"{url}/v1/usage", token))
    except Unreadable as error:
        if error.status in (401, 403):
            return Counter()

        raise

    return Counter({f"used_{name}": answer["usage"][name] for name in USAGE})


def _read(url: str, token: str = "") -> bytes:
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_WITHIN) as answer:
            read: bytes = answer.read(LARGEST)
    except HTTPError as refused:
        raise Unreadable(url, refused.code) from None

    return read
