"""Which publishes were made under a key, so that one that is sent again is not made again."""

from __future__ import annotations

from collections import OrderedDict

from actors.errors import Refused
from actors.log import Position

KEEP = 300.0
"""Seconds for which a key is kept."""
Use = tuple[str, str]
"""A room, and a key that was used in it."""


class Once:
    """Per tenant at most `most` keys; one more is refused, and none is forgotten before its time.

    So who is told that a key counts can rely on it, and no tenant can push out another's.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: dict[str, OrderedDict[Use, tuple[float, Position]]] = {}

    def __len__(self) -> int:
        """Keys that are kept, of all tenants."""
        return sum(map(len, self._tenants.values()))

    def find(self, tenant: str, use: Use, now: float) -> Position | None:
        """Return the place of the first publish under a key; None where there is none by `now`."""
        self._forget(tenant, now)
        kept = self._tenants.get(tenant)
        return kept[use][1] if kept is not None and use in kept else None

    def check(self, tenant: str, now: float) -> None:
        """Raise Refused("overload") if there is no room for one more key of a tenant."""
        kept = self._tenants.get(tenant)
        if kept and len(kept) >= self._most:
            oldest, _ = next(iter(kept.values()))
            message = f"this tenant has used {self._most} keys in {KEEP:g} seconds"
            setting, wait = "limits.publish_keys", max(0.0, oldest + KEEP - now)
            raise Refused("overload", message, "Idempotency-Key", setting, round(wait, 3))

    def keep(self, tenant: str, use: Use, place: Position, now: float) -> None:
        """Note the place of a publish under a key."""
        self._tenants.setdefault(tenant, OrderedDict())[use] = now, place

    def sweep(self, now: float) -> None:
        """Forget what is too old."""
        for tenant in list(self._tenants):
            self._forget(tenant, now)

    def _forget(self, tenant: str, now: float) -> None:
        kept = self._tenants.get(tenant)
        while kept:
            use, (since, _) = next(iter(kept.items()))
            if now - since < KEEP:
                return

            del kept[use]

        self._tenants.pop(tenant, None)
