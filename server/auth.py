"""Who a request comes from: what it brings, and the gate that lets it in as somebody."""

from __future__ import annotations

import hmac
import logging
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

import anyio
import msgspec
from anyio import to_thread
from starlette.types import Scope

from actors.errors import Refused
from actors.ports import Clock
from actors.principal import Principal
from server.jwks import STEP_WITHIN, KeyFetcher
from server.loopback import is_loopback
from server.settings import Settings
from server.tenant_settings import DEV
from server.tenants import Tenants
from server.tokens import ABSENT, UnknownKey, verify

log = logging.getLogger("roomcast.tenants")

NOBODY = "no tenant is configured on this server"
WITHDRAWN = "the tenant, or the key that has signed for it, has been removed"
NOTHING_TO_READ = (
    "there is nothing to read again: the settings name no tenants_directory, and need a restart"
)
FOREIGN = "this origin is not among those of the tenant"
SUBPROTOCOL = "bearer."
"""Begins the subprotocol that carries a token; it is never the one that is chosen."""
_TOKEN, _TICKET = b"&token=", b"&ticket="


class Credentials(msgspec.Struct, frozen=True):
    """What a request brings; its repr shows no token."""

    token: str | None = None
    origin: str | None = None
    """What a browser says of the page that asks; None for who is no browser."""
    address: str = ""
    """IP address of the peer."""
    ticket: str | None = None
    """What stands for a token in the address of a WebSocket, where there is none."""

    def __repr__(self) -> str:
        """Keep the secret."""
        return f"Credentials(origin={self.origin!r}, address={self.address!r})"


def credentials_of(scope: Scope) -> Credentials:
    """Read a request: the token is in the header, or else a subprotocol, or else `?token=`."""
    token = origin = None
    for name, value in scope["headers"]:
        if name == b"authorization" and token is None:
            token = _from_header(value)
        elif name == b"origin":
            # Two of them are none that a browser sends, and match nothing.
            origin = value.decode("latin-1") if origin is None else "null"

    if token is None:
        token = _from_subprotocol(scope) or _from_query(scope, _TOKEN)

    peer = scope.get("client")
    ticket = None
    if token is None and scope.get("type") == "websocket":
        ticket = _from_query(scope, _TICKET)

    return Credentials(token, origin, str(peer[0]) if peer else "", ticket)


def _from_header(value: bytes) -> str | None:
    scheme, _, rest = value.decode("latin-1").strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def _from_subprotocol(scope: Scope) -> str | None:
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(SUBPROTOCOL):
            token: str = offered.removeprefix(SUBPROTOCOL)
            return token

    return None


def _from_query(scope: Scope, field: bytes) -> str | None:
    """Find a parameter; nothing in a JWT or a ticket is to be escaped, so nothing is unescaped."""
    _, found, rest = (b"&" + scope.get("query_string", b"")).partition(field)
    token: str = rest.partition(b"&")[0].decode("latin-1")
    return token if found else None


def site_of(scope: Scope) -> str:
    """Return where a request comes from, as `site_at` has it."""
    peer = scope.get("client")
    return site_at(str(peer[0])) if peer else ""


def site_at(address: str) -> str:
    """Return an IPv4 address, or the /64 that an IPv6 one is in.

    Whoever has one address of IPv6 has the whole of it.
    """
    return _network_of(address) if ":" in address else address


@lru_cache(maxsize=1024)  # asked three times of each connection, and 5 us
def _network_of(address: str) -> str:
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address

    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)

    return str(IPv6Network((parsed, 64), strict=False))


class Gate:
    """Lets requests in; it keeps the tenants and their keys fresh while it runs."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Read the tenants. Raises BadSettings."""
        self.tenants = Tenants(settings)
        self._dev, self._clock = settings.dev, clock
        self._directory = settings.tenants_directory
        self._operator = [key.encode() for key in settings.operator.keys]
        self._fetcher = KeyFetcher(lambda: self.tenants.sets, clock, self.tenants.owner)
        self._asked = anyio.Event()

    def admit(self, credentials: Credentials) -> Principal:
        """Say who this is. Raises Refused("unauthorized"), or "forbidden" for an origin.

        In development mode who has no token is the tenant `dev`: everybody if there is no other
        tenant, and whoever is on this machine if there is.
        """
        tenants = self.tenants
        if self._dev and not tenants.configured:
            return Principal(DEV)

        if credentials.token is None:
            if self._dev and is_loopback(credentials.address):
                return Principal(DEV)

            raise Refused("unauthorized", ABSENT if tenants.configured else NOBODY)

        principal = self.authenticate(credentials.token)
        self.check_origin(principal.tenant, credentials.origin)
        return principal

    def check_signer(self, principal: Principal) -> None:
        """See that the tenant is there, and has the key that signed the token. Raises Refused."""
        customer = self.tenants.by_name.get(principal.tenant)
        known = customer is None or not principal.kid or customer.find(principal.kid) is not None
        if not (known and self.serves(principal.tenant)):
            raise Refused("unauthorized", WITHDRAWN)

    def check_origin(self, tenant: str, origin: str | None) -> None:
        """See that a tenant takes this origin. Raises Refused("forbidden")."""
        customer = self.tenants.by_name.get(tenant)
        origins = customer.options.origins if customer else ()
        if origins and origin is not None and origin not in origins:
            raise Refused("forbidden", FOREIGN, "origin")

    @property
    def names(self) -> list[str]:
        """Every tenant that is served, in no order."""
        return [*self.tenants.by_name, *([DEV] if self._dev else [])]

    def serves(self, tenant: str) -> bool:
        """Say whether there is such a tenant."""
        return tenant in self.tenants.by_name or (self._dev and tenant == DEV)

    def operates(self, scope: Scope) -> bool:
        """Say whether a request has a key of the operator, in the one place that one is taken."""
        if not self._operator:
            return False

        found = (
            _from_header(value) for name, value in scope["headers"] if name == b"authorization"
        )
        given = next((token for token in found if token is not None), "").encode("latin-1")
        return any(hmac.compare_digest(key, given) for key in self._operator)

    def authenticate(self, token: str) -> Principal:
        """Say whom a token speaks for. Raises Refused("unauthorized")."""
        try:
            return verify(token, self.tenants.by_name, self._clock.wall())
        except UnknownKey as unknown:
            self._fetcher.miss(unknown.customer.sets)
            raise

    def reload(self) -> None:
        """Have the directory of tenants read again soon; who is connected stays connected."""
        if self._directory:
            self._asked.set()
        else:
            log.info(NOTHING_TO_READ)

    async def ready(self) -> None:
        """Wait for the sets of keys, but for no address that does not answer."""
        with anyio.move_on_after(STEP_WITHIN):
            await self._fetcher.settled()

    async def run(self) -> None:
        """Fetch keys, and reload when asked to, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fetcher.run)
            while True:
                await self._asked.wait()
                self._asked = anyio.Event()
                reading = await to_thread.run_sync(self.tenants.reload, abandon_on_cancel=True)
                if reading is not None:
                    changes = self.tenants.take(reading)
                    self._fetcher.wake()
                    log.info("%d tenants after a reload: %s", len(self.tenants.by_name), changes)
