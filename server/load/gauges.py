"""What a server says it holds, read from its metrics."""

from __future__ import annotations

import re
from collections import Counter
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

GAUGES = ("connections", "rooms", "subscriptions", "channel_depth")
"""What must be back where it was when everybody has left."""
ANSWER_WITHIN = 5.0
BACK_WITHIN = 10.0
"""Seconds in which they must be."""
LARGEST = 1 << 22
"""Bytes of metrics that are read."""
_LINE = re.compile(rf"^roomcast_({'|'.join(GAUGES)})(?:{{.*}})? (\S+)$", re.MULTILINE)


def read_gauges(url: str) -> Counter[str]:
    """Return the gauges, each over all its labels. Raises OSError or ValueError."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=ANSWER_WITHIN) as answer:
            text = answer.read(LARGEST).decode(errors="replace")
    except HTTPError as refused:
        raise ValueError(f"{url}/metrics: HTTP {refused.code}") from None

    found: Counter[str] = Counter()
    for name, value in _LINE.findall(text):
        found[name] += int(float(value))

    if found.keys() != set(GAUGES):
        raise ValueError(f"{url}/metrics has no gauges of Roomcast")

    return found
