"""Tickets: what stands in an address in place of a token, for once and for a moment."""

from __future__ import annotations

import secrets
from hashlib import sha256

import msgspec

from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.principal import Principal

LASTS = 30.0
"""Seconds for which a ticket is good at most."""
BYTES = 16
SPENT = "this ticket is unknown, has been used or has expired"


class Ticket(msgspec.Struct, frozen=True):
    """What a ticket is good for."""

    principal: Principal
    """Who comes with it."""
    until: float
    """Unix time in seconds."""


class Tickets:
    """Per tenant at most `most` unused tickets; one more is refused and none is forgotten.

    Only digests are kept: nothing in memory opens a door, and no comparison takes a telling time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tickets: dict[bytes, Ticket] = {}
        self._tenants: dict[str, dict[bytes, float]] = {}

    def __len__(self) -> int:
        """Tickets that are kept, of all tenants."""
        return len(self._tickets)

    def issue(self, principal: Principal, ttl: float, now: float) -> str:
        """Make a ticket that is good for `ttl` seconds. Raises Refused("overload")."""
        tenant = principal.tenant
        if len(self._tenants.get(tenant, ())) >= self._most:
            self._expire(tenant, now)

        if len(self._tenants.get(tenant, ())) >= self._most:
            message = f"{self._most} tickets of this tenant wait to be used"
            raise Refused("overload", message, setting="limits.tickets", retry_after=1.0)

        ticket = secrets.token_urlsafe(BYTES)
        name, until = _digest(ticket), min(now + ttl, principal.expires + LEEWAY)
        self._tickets[name] = Ticket(principal, until)
        self._tenants.setdefault(tenant, {})[name] = until
        return ticket

    def redeem(self, ticket: str, now: float) -> Principal:
        """Use a ticket up, and say who comes with it. Raises Refused("unauthorized")."""
        found = self._tickets.get(name := _digest(ticket))
        if found is None:
            raise Refused("unauthorized", SPENT)

        self._forget(found.principal.tenant, name)
        if found.until <= now:
            raise Refused("unauthorized", SPENT)

        return found.principal

    def sweep(self, now: float) -> None:
        """Forget the tickets that nobody came with."""
        for tenant in list(self._tenants):
            self._expire(tenant, now)

    def _expire(self, tenant: str, now: float) -> None:
        kept = self._tenants[tenant]
        for name in [each for each, until in kept.items() if until <= now]:
            self._forget(tenant, name)

    def _forget(self, tenant: str, name: bytes) -> None:
        del self._tickets[name]
        kept = self._tenants[tenant]
        del kept[name]
        if not kept:
            del self._tenants[tenant]


def _digest(ticket: str) -> bytes:
    return sha256(ticket.encode()).digest()
