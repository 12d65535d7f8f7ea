"""The node that an app serves: settings turned into a manager with its backplane and engines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio
import msgspec
from starlette.types import Scope

from actors.access import REVOKED_TOKEN
from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.manager import ConnectionManager
from actors.principal import Principal
from server import __version__
from server.arrivals import UNBOUNDED, Turnstile
from server.auth import Credentials, Gate, credentials_of, site_at, site_of
from server.backplanes.memory import MemoryBackplane
from server.decoding import MediaDecoders
from server.engines.configured import make_catalog
from server.engines.embedded import EmbeddedEngine
from server.forwarded import read_network, trusts
from server.metrics import Metrics
from server.newcomers import Newcomers
from server.settings import BadSettings, Settings
from server.tenants import Tenants
from server.tickets import LASTS, Tickets
from server.tokens import EXPIRED

REQUEST = 4.0
"""Commands that a request over HTTP counts for; it costs as much."""
WAITING = 100
"""Requests of a tenant that may wait when one more comes."""
HTTP = "http"
"""Whose turn it is among the commands: that of one request at a time."""


class SystemClock:
    """The clocks of the machine."""

    monotonic = staticmethod(time.monotonic)
    """The machine's monotonic time; asking the event loop costs thirty times as much."""

    def wall(self) -> float:
        """Return Unix time, to the millisecond."""
        return round(time.time(), 3)


class Node:
    """Everything that one app holds."""

    def __init__(self, settings: Settings) -> None:
        """Build the parts; nothing runs yet. Raises BadSettings."""
        self.settings = settings
        self.failed = False
        """Whether a part has died of a bug; the node cannot go on without it."""
        clock = SystemClock()
        self.gate = Gate(settings, clock)
        open_to_all = settings.dev and not self.gate.tenants.configured
        self.turnstile = Turnstile(UNBOUNDED if open_to_all else settings.limits.arrivals)
        self.trusted = [read_network(each) for each in settings.server.trusted_proxies]
        """Proxies whose word counts for where a request comes from."""
        self._waiting: Counter[str] = Counter()
        """Requests that wait for their turn, by tenant."""
        self.tickets = Tickets(settings.limits.tickets)
        self.newcomers = Newcomers(settings.limits.unauthenticated, settings.limits.auth_within)
        backplane = MemoryBackplane(
            settings.limits.history, settings.limits.rooms, clock, settings.limits.publish_keys
        )
        try:
            decoders = MediaDecoders(settings.audio.max_decoders)
            catalog = make_catalog(settings.engines, decoders)
        except ValueError as error:
            raise BadSettings(str(error)) from None

        self.metrics = Metrics(lambda: self.manager.statistics(), __version__)
        self.manager = ConnectionManager(
            settings.limits, backplane, catalog, clock, self.metrics.observer
        )
        self._obey(self.gate.tenants, backplane)
        if self.gate.tenants.configured:
            self.manager.access.authority = self

        self.manager.upkeep.resume_grace = settings.speech.resume_grace
        self.manager.fanout.coalesce = settings.fanout.coalesce_ms / 1000

    def _obey(self, tenants: Tenants, backplane: MemoryBackplane) -> None:
        """Let every part ask the tenants for what is theirs."""
        self.manager.catalog.own = tenants.engines
        self.manager.meters.quotas_of = backplane.quotas_of = tenants.quotas
        self.manager.limits_of = tenants.limits
        backplane.history_of = lambda tenant: tenants.limits(tenant).history
        self.manager.fanout.presence.kept = tenants.keeps_presence

    def authenticate(self, scope: Scope, token: str | None = None) -> Principal:
        """Say who a request comes from; `token` is one that came in a place of its own.

        Raises Refused, without a look at the credential for an address that has brought too many
        wrong ones.
        """
        credentials = credentials_of(scope)
        if token is not None:
            credentials = msgspec.structs.replace(credentials, token=token)

        if credentials.token is None and credentials.ticket is None:
            return self._admit(credentials)

        return self._look(site_of(scope), lambda: self._admit(credentials))

    def confirm(self, principal: Principal) -> None:
        """See that who was let in a while ago still would be. Raises Refused."""
        if principal.kid:
            self.gate.check_signer(principal)

        if self.manager.access.revoked(principal):
            raise Refused("unauthorized", REVOKED_TOKEN)

        if principal.expires + LEEWAY <= self.manager.clock.wall():
            raise Refused("token_expired", EXPIRED)

    def renew(self, token: str, address: str) -> Principal:
        """Say whom the token speaks for that an open connection brings. Raises Refused as above."""
        return self._look(address, lambda: self.gate.authenticate(token))

    def lingering(self) -> set[str]:
        """Name the tenants that are gone, while something of theirs is live."""
        manager = self.manager
        speaking = (each.subject.key for each in manager.upkeep.speaking.values())
        live = {*manager.population.tenants, *(key.partition("/")[0] for key in speaking)}
        return {tenant for tenant in live if not self.gate.serves(tenant)}

    def enter(self, known: bool = True) -> None:
        """Count a connection that is about to be accepted, of who has said who it is or has yet to.

        Raises Refused.
        """
        self.turnstile.enter(known, self.manager.clock.monotonic())

    def operates(self, scope: Scope) -> bool:
        """Say whether the operator asks; of an address with too many wrong credentials nobody does.

        Raises Refused for such an address.
        """
        if not self.gate.operates(scope):
            return False

        self.turnstile.check_failures(site_of(scope), self.manager.clock.monotonic())
        return True

    def is_deaf(self, peer: str) -> bool:
        """Say whether to cut a connection from this address unread, and count it if so.

        A proxy speaks for many.
        """
        if self.trusted and trusts(peer, self.trusted):
            return False

        deaf = self.turnstile.is_deaf(site_at(peer), self.manager.clock.monotonic())
        if deaf:
            self.metrics.observer.cut()

        return deaf

    def _look(self, address: str, find: Callable[[], Principal]) -> Principal:
        """Find out who it is, and count the credential if it is a wrong one. Raises Refused."""
        now = self.manager.clock.monotonic()
        self.turnstile.check_failures(address, now)
        try:
            return find()
        except Refused as refused:
            if refused.status == HTTPStatus.UNAUTHORIZED:
                self.turnstile.failed(address, now)

            raise

    def _admit(self, credentials: Credentials) -> Principal:
        """Say who comes with these. Raises Refused."""
        if credentials.token is None and credentials.ticket is not None:
            principal = self._redeem(credentials.ticket, credentials.origin)
        else:
            principal = self.gate.admit(credentials)

        if self.manager.access.revoked(principal):
            raise Refused("unauthorized", REVOKED_TOKEN)

        return principal

    async def pace(self, tenant: str, amount: float = REQUEST) -> None:
        """Wait for the turn of a request over HTTP. Raises Refused if too many wait already."""
        meter, monotonic = self.manager.meters.of(tenant), self.manager.clock.monotonic
        if self._waiting[tenant] >= WAITING:
            raise meter.over("commands_per_second", meter.commands.debt(monotonic()))

        self._waiting[tenant] += 1
        try:
            await meter.commands.turn(monotonic, amount, HTTP)
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    async def _sweep(self) -> None:
        """Forget tickets that nobody came with, until cancelled."""
        while True:
            await anyio.sleep(LASTS)
            self.tickets.sweep(self.manager.clock.wall())

    def _redeem(self, ticket: str, origin: str | None) -> Principal:
        """Say who comes with a ticket, which is used up whatever is said. Raises Refused."""
        principal = self.tickets.redeem(ticket, self.manager.clock.wall())
        self.gate.check_signer(principal)
        self.gate.check_origin(principal.tenant, origin)
        return principal

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the engines and the manager; the bug that ends one of them is raised.

        The body is cancelled then, and `failed` is set: nobody should wait for this node.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for engine in self.manager.catalog.engines.values():
                    if isinstance(engine, EmbeddedEngine):
                        tasks.start_soon(engine.run)

                started = anyio.Event()
                tasks.start_soon(self.manager.run, started.set)
                tasks.start_soon(self.gate.run)
                tasks.start_soon(self._sweep)
                await started.wait()
                await self.gate.ready()
                yield
                tasks.cancel_scope.cancel()
        except Exception:
            self.failed = True
            raise
        finally:
            self.manager.draining = True  # not ready, and whoever comes is refused
