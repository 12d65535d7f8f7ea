"""Reading the query of a front: strict about what it means, deaf to what it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping

from actors.errors import Refused
from server.requests import check_room

LABEL = 64
"""Characters of a name or a language."""
ADDRESS = 512
"""Characters of an engine, which may be named by its address."""
RATES = range(8000, 48_001)
"""Samples a second that audio may have."""
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class Query:
    """The parameters of one request. Every reader raises Refused, naming the parameter."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._given = parameters

    def __contains__(self, name: str) -> bool:
        """Tell whether a parameter says anything."""
        return bool(self._given.get(name))

    def text(self, name: str, default: str = "", limit: int = LABEL) -> str:
        """Return a text of bounded length."""
        value = self._given.get(name) or default
        if len(value) > limit:
            raise refused(name, f"is longer than {limit} characters")

        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return `true` or `false`, in any case."""
        value = (self._given.get(name) or str(default)).lower()
        if value not in ("true", "false"):
            raise refused(name, "must be true or false")

        return value == "true"

    def whole(self, name: str, default: int, within: range) -> int:
        """Return a whole number of a range."""
        value = self._given.get(name) or str(default)
        if _WHOLE.fullmatch(value) is None or int(value) not in within:
            raise refused(name, f"must be a whole number from {within[0]} to {within[-1]}")

        return int(value)

    def number(self, name: str) -> float:
        """Return a number that is not negative, 0 by default."""
        value = self._given.get(name) or "0"
        if _NUMBER.fullmatch(value) is None:
            raise refused(name, "must be a number that is not negative")

        return float(value)

    def room(self, default: str) -> str:
        """Return the name of the room. Raises Refused("bad_room")."""
        return check_room(self._given.get("room") or default)


def refused(name: str, why: str) -> Refused:
    """Refuse a parameter; what it said is not repeated."""
    return Refused("bad_message", f"the parameter {name} {why}", name)
