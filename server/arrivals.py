"""How fast connections may be opened, and wrong tokens brought, before anything is looked at.

A flood costs a look into a table for each try. Time is an argument.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Network

from actors.errors import Refused
from actors.limits import Arrivals

ADDRESSES = 10_000
"""Addresses of which it is remembered what they did, in each table."""
AREA = 5
"""Times as much as an address a whole /48 of IPv6 may do: it has 65 536 of them."""
SWEEP_EVERY = 1.0
"""Seconds between two looks for addresses that can be forgotten, in a table that is full."""
UNBOUNDED = Arrivals(per_address=0, per_node=0, failures_per_address=0, refusals_per_address=0)


class Limiter:
    """How often each of many may do something: `burst` times at once, `rate` times a second.

    A number is kept for each: the time at which all that it did is paid for, and it is forgotten
    from then on. At most `most` are kept; those who come when that many are still paying count
    together, as one.
    """

    __slots__ = ("_ahead", "_cost", "_most", "_others", "_paid", "_swept")

    def __init__(self, rate: float, burst: int, most: int = ADDRESSES) -> None:
        """Bound everybody; a rate of 0 bounds nobody."""
        self._cost = 1 / rate if rate else 0.0
        self._ahead = (burst - 1) * self._cost
        self._most = most
        self._paid: dict[str, float] = {}
        self._others = self._swept = 0.0

    def __len__(self) -> int:
        """Names that are remembered."""
        return len(self._paid)

    def wait(self, name: str, now: float) -> float:
        """Return the seconds until once more is allowed, 0.0 for at once; count nothing."""
        paid = self._paid.get(name)
        if paid is None:
            if len(self._paid) < self._most:
                return 0.0

            paid = self._others

        wait = paid - now - self._ahead
        return wait if wait > 1e-6 else 0.0

    def count(self, name: str, now: float) -> None:
        """Count once."""
        if not self._cost:
            return

        paid = self._paid.get(name)
        if paid is None and len(self._paid) >= self._most and not self._sweep(now):
            self._others = max(self._others, now) + self._cost
        else:
            self._paid[name] = (now if paid is None or paid < now else paid) + self._cost

    def _sweep(self, now: float) -> bool:
        """Forget whoever has paid, not too often; return whether there is room now."""
        if now >= self._swept + SWEEP_EVERY:
            self._swept = now
            self._paid = {name: paid for name, paid in self._paid.items() if paid > now}

        return len(self._paid) < self._most


class Turnstile:
    """What every connection passes first, and every wrong token counts against."""

    def __init__(self, limits: Arrivals) -> None:
        self.limits = limits
        self._addresses = Limiter(limits.per_address, limits.per_address_burst)
        self._areas = Limiter(AREA * limits.per_address, AREA * limits.per_address_burst)
        self._known = Limiter(limits.per_node, limits.per_node_burst, 1)
        self._strangers = Limiter(limits.per_node / 2, max(1, limits.per_node_burst // 2), 1)
        self._failures = Limiter(limits.failures_per_address, limits.failures_burst)
        self._refusals = Limiter(limits.refusals_per_address, limits.refusals_burst)
        self._deaf = Limiter(AREA * limits.refusals_per_address, AREA * limits.refusals_burst)

    def arrive(self, address: str, now: float) -> None:
        """Count a WebSocket upgrade of whomever. Raises Refused("rate_limited")."""
        area = area_of(address)
        if wait := self._addresses.wait(address, now) or (area and self._areas.wait(area, now)):
            self._count_refusal(address, now)
            message = f"this address opens over {self.limits.per_address} connections a second"
            raise _refused("rate_limited", message, "per_address", float(wait))

        self._addresses.count(address, now)
        if area:
            self._areas.count(area, now)

    def enter(self, known: bool, now: float) -> None:
        """Count a connection that the node is about to accept. Raises Refused("overload").

        Those who have yet to say who they are use up no place of those who have done so.
        """
        pace = self._known if known else self._strangers
        if wait := pace.wait("", now):
            most = self.limits.per_node if known else self.limits.per_node / 2
            message = f"over {most:g} connections a second are opened on this node"
            raise _refused("overload", message, "per_node", wait)

        pace.count("", now)

    def check_failures(self, address: str, now: float) -> None:
        """Raise Refused("rate_limited") for an address that has brought too many wrong tokens."""
        if wait := self._failures.wait(address, now):
            self._count_refusal(address, now)
            most = self.limits.failures_per_address
            message = f"over {most} credentials a second from this address were not accepted"
            raise _refused("rate_limited", message, "failures_per_address", wait)

    def is_deaf(self, address: str, now: float) -> bool:
        """Say whether an address goes on and on though it is refused: not even that is told it."""
        if self._refusals.wait(address, now):
            return True

        return ":" in address and self._deaf.wait(area_of(address), now) > 0

    def failed(self, address: str, now: float) -> None:
        """Count a token, ticket or key that was not accepted."""
        self._failures.count(address, now)

    def _count_refusal(self, address: str, now: float) -> None:
        self._refusals.count(address, now)
        if area := area_of(address):
            self._deaf.count(area, now)


@lru_cache(maxsize=1024)
def area_of(address: str) -> str:
    """Return the /48 that a /64 of IPv6 is in, and nothing for any other address."""
    return str(IPv6Network(address).supernet(new_prefix=48)) if address.endswith("/64") else ""


def _refused(code: str, message: str, setting: str, wait: float) -> Refused:
    setting = f"limits.arrivals.{setting}"
    return Refused(code, message, setting=setting, retry_after=round(wait, 3))
