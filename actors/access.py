"""How long a connection may stay: its token is refreshed, expires, or is revoked."""

from __future__ import annotations

import math

from msgspec import UNSET

from actors.commands import Refresh
from actors.connection import ConnectionActor
from actors.errors import REVOKED, Refused
from actors.membership import Membership
from actors.messages import Ack, Hello
from actors.population import Population
from actors.ports import Authority, Clock
from actors.principal import Principal
from actors.revocation import Revocations, names_of
from actors.upkeep import Upkeep

REVOKED_TOKEN = "this token was revoked, or its subject or key"


class NoTokens:
    """The authority of a node that has no tenants."""

    def renew(self, token: str, address: str) -> Principal:
        """Refuse: there is no token that could be replaced."""
        raise Refused("no_token", "this connection was opened without a token", "token")


class Access:
    """The tokens behind the connections of a node."""

    def __init__(
        self,
        population: Population,
        membership: Membership,
        upkeep: Upkeep,
        clock: Clock,
        revocations: Revocations,
    ) -> None:
        self._population, self._membership = population, membership
        self._upkeep, self._clock = upkeep, clock
        self.revocations = revocations
        self.authority: Authority = NoTokens()

    def revoked(self, principal: Principal) -> bool:
        """Return whether a principal's subject, token or key has been revoked."""
        return self.revocations.revoked(principal, self._clock.wall())

    def greet(self, actor: ConnectionActor) -> None:
        """Say hello, and watch the token; one that was revoked meanwhile is the end."""
        expires = actor.principal.expires
        actor.tell(
            Hello(
                connection=actor.id,
                at=self._clock.wall(),
                expires=UNSET if expires == math.inf else expires,
            )
        )
        if self.revoked(actor.principal):
            actor.close(REVOKED.because(REVOKED_TOKEN))
        elif actor.open:
            self._upkeep.expiries.watch(actor, expires)

    def forget(self, actor: ConnectionActor) -> None:
        """The connection ends: its token does not matter any more."""
        self._upkeep.expiries.forget(actor)

    def refresh(self, actor: ConnectionActor, command: Refresh) -> None:
        """Go on with another token of the same subject, and without the rooms that it lacks.

        Raises Refused.
        """
        old, new = actor.principal, self.authority.renew(command.token, actor.address)
        if (new.tenant, new.subject) != (old.tenant, old.subject):
            message = "a token is refreshed by one of the same tenant and subject"
            raise Refused("forbidden", message, "token")

        if self.revoked(new):
            raise Refused("unauthorized", REVOKED_TOKEN, "token")

        actor.principal = new
        self._upkeep.expiries.watch(actor, new.expires)
        self._membership.confine(actor)
        if actor.microphone is not None:
            actor.microphone.confine()

        if command.id is not None:
            actor.tell(Ack(id=command.id, at=self._clock.wall()))

    def revoke(
        self, tenant: str, subject: str = "", token: str = "", key: str = "", connection: str = ""
    ) -> int:
        """Close what is live of a tenant's subject, token, key or connection; return their number.

        They do nothing from here on; of many the last ones are closed some turns of the loop later.
        All but a connection are refused from here on, for a day, or until the last token that is
        live has expired if that is later. Raises Refused("limit_exceeded") if no more can be
        kept: what is live is closed all the same. Speech that waits for who is revoked ends, too.
        """
        given = (("subject", subject), ("token", token), ("key", key))
        names = {name for name in given if name[1]}
        if not (names or connection):
            raise ValueError("a subject, a token, a key or a connection is to be named")

        live = self._population.of(tenant).values()
        named = {each for each in live if not names.isdisjoint(names_of(each.principal))}
        closed = {each for each in live if each in named or each.id == connection}
        closed = {each for each in closed if each.open}
        revoked = REVOKED.because("access was revoked")
        self._upkeep.endings.end((each, revoked) for each in closed)
        self._upkeep.abandon_lost(tenant, names)
        expires = max((each.principal.expires for each in named), default=0.0)
        self.revocations.add(tenant, names, expires, self._clock.wall())
        return len(closed)
