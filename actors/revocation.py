"""Subjects, tokens and keys that are accepted no more: for a day, or until the last token that is
live has expired if that is later.
"""

from __future__ import annotations

from collections.abc import Set

from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.principal import Principal

KEEP = 86_400.0
"""Seconds for which a revocation is kept at least: no shorter than the longest life of a token."""
Name = tuple[str, str]
"""What is revoked (`subject`, `token` or `key`), and its name."""


def names_of(principal: Principal) -> set[Name]:
    """Return the names under which a principal may be revoked."""
    subjects = (principal.subject, principal.maker)
    names = {("token", principal.token), ("key", principal.kid)}
    return {*(("subject", each) for each in subjects), *names}


class Revocations:
    """Per tenant at most `most` names; one more is refused and none is forgotten.

    So no tenant can push out what another has revoked, and who is told that somebody is revoked
    can rely on it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: dict[str, dict[Name, float]] = {}
        self.keep = KEEP
        """Seconds for which a revocation is kept, where no live token expires later."""

    def __len__(self) -> int:
        """Subjects, tokens and keys that are kept, of all tenants."""
        return sum(map(len, self._tenants.values()))

    def add(self, tenant: str, names: Set[Name], expires: float, now: float) -> None:
        """Revoke names for `keep` seconds, or until `expires` where that is later.

        Raises Refused("limit_exceeded") when the tenant has its number; nothing is revoked then.
        """
        kept = self._tenants.get(tenant, {})
        if len(kept.keys() | names) > self._most:
            kept = {name: until for name, until in kept.items() if until > now}

        if len(kept.keys() | names) > self._most:
            raise Refused(
                "limit_exceeded",
                f"{self._most} subjects, tokens and keys of this tenant are revoked already",
                setting="limits.revocations",
            )

        until = max(expires, now + self.keep) + LEEWAY
        for name in names:
            kept[name] = max(until, kept.get(name, until))

        if kept:
            self._tenants[tenant] = kept

    def until(self, tenant: str, name: Name) -> float:
        """Return the Unix time until which a name is revoked; 0 if it is not."""
        return self._tenants.get(tenant, {}).get(name, 0.0)

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return whether a principal's subject, token or key has been revoked."""
        kept = self._tenants.get(principal.tenant)
        return kept is not None and any(kept.get(each, 0.0) > now for each in names_of(principal))
