"""Sets of keys behind an address: what is known of one, and when it is to be asked for again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from server.keys import VerifyingKey

FRESH = 600.0
"""Seconds for which a set is not asked for again."""
PAUSE = 30.0
"""Seconds from one asking to the next after a failure, or for a key that is not in the set."""
KEPT = 86_400.0
"""Seconds for which the last set is used while no newer one is to be had."""


class KeySet:
    """The keys of one address; it decides, and others fetch."""

    __slots__ = ("_asked", "_failed", "_fetched", "_missed", "asking", "keys", "said")

    def __init__(self) -> None:
        self.keys: Mapping[str, VerifyingKey] = {}
        """The keys by `kid`."""
        self.asking = False
        """Whether the address is being asked."""
        self.said = ""
        """The failure that was logged, so that it is logged once."""
        self._asked = self._fetched = -math.inf
        self._missed = self._failed = False

    def miss(self) -> bool:
        """Note that a key is not in the set; True says that `due` may have changed."""
        changed, self._missed = not self._missed, True
        return changed

    def due(self) -> float:
        """Return the time at which to ask; infinity while that is being done."""
        if self.asking:
            return math.inf

        if self._missed or self._failed:
            return self._asked + PAUSE

        return self._fetched + FRESH

    def ask(self, now: float) -> None:
        """Note that the address is asked."""
        self.asking, self._asked, self._missed = True, now, False

    def took(self, keys: Mapping[str, VerifyingKey], now: float) -> None:
        """Use what the address has answered."""
        self.keys, self._fetched = keys, now
        self.asking = self._failed = False
        self.said = ""

    def failed(self, now: float) -> None:
        """Go on with the last set, unless that is too old."""
        self.asking, self._failed = False, True
        if now - self._fetched > KEPT:
            self.keys = {}
