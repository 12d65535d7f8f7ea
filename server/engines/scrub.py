"""Keeps what is secret of the settings out of the words that a provider is quoted with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote

REASON = 123
"""Characters of a provider's own words that an error may carry."""
HIDDEN = 4
"""Length from which a part of a secret is kept out of a provider's words too."""
KEY = 8
"""Length from which a value that is not known for a secret may be one."""


class Scrubber:
    """The secrets of one stream, and a provider's words without them."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, secret: str) -> None:
        """Keep a secret, its longer parts and its form in a URL out of all that is shown."""
        parts = [part for part in secret.split() if len(part) >= HIDDEN]
        self._secrets.update(filter(None, [secret, quote(secret, safe=""), *parts]))

    def hide_values(self, values: Iterable[object]) -> None:
        """Hide what may be a key by its length, also within lists and mappings."""
        for value in values:
            if isinstance(value, Mapping):
                self.hide_values(value.values())
            elif isinstance(value, list | tuple):
                self.hide_values(value)
            elif len(text := str(value)) >= KEY:
                self.hide(text)

    def hide_query(self, query: str) -> None:
        """Hide the values of a query, as they are meant and as they are written."""
        self.hide_values(value for _, value in parse_qsl(query))
        self.hide_values(part.partition("=")[2] for part in query.split("&"))

    def printable(self, text: str) -> str:
        """Return a provider's words as they may be shown: short, on one line, without secrets."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")

        return "".join(each if each.isprintable() else " " for each in text)[:REASON].strip()
