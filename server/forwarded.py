"""Where a request comes from when proxies stand between: only those that the settings name are
believed, and only as far as they can be read.

uvicorn's own middleware takes any text for an address, of any length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HEADER = b"x-forwarded-for"
UNKNOWN = "unknown"
"""Stands for what a proxy said that is no address; all of those are counted as one."""
_HOP = re.compile(
    rb"(?P<four>[0-9.]{7,15})(?::[0-9]{1,5})?"
    rb"|\[(?P<six>[0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?"
    rb"|(?P<bare>[0-9A-Fa-f:.]{2,45})"
)


def read_network(entry: str) -> Network:
    """Read an address or a network of the settings. Raises ValueError."""
    try:
        network = ip_network(entry)
        # An interface's name or IPv4 within IPv6 would match no peer.
        if "%" not in entry and not getattr(network.network_address, "ipv4_mapped", None):
            return network
    except ValueError:
        pass  # it is told what is wanted

    raise ValueError(
        f"server.trusted_proxies: {entry!r} is no address and no network like 10.0.0.0/8"
    )


def trusts(peer: str, trusted: Sequence[Network]) -> bool:
    """Say whether a peer is one of the proxies that are believed."""
    at = _read(peer.encode()) if trusted else None
    return at is not None and _is_in(at, trusted)


def client_of(
    peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]
) -> str | None:
    """Return the address behind trusted proxies, or None to go by that of the peer.

    It is the rightmost that is no trusted proxy, for each proxy adds to the right what it has seen;
    where all are trusted, the leftmost.
    """
    if not trusts(peer, trusted):
        return None

    said = None
    for hop in _from_the_right(headers):
        at = _read(hop)
        if at is None:
            return UNKNOWN

        said = str(at)
        if not _is_in(at, trusted):
            break

    return said


def _from_the_right(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield what each proxy said, the nearest first; several lines are as good as one."""
    for line in reversed([value for name, value in headers if name == HEADER]):
        yield from (hop for each in reversed(line.split(b",")) if (hop := each.strip(b" \t")))


def _read(hop: bytes) -> Address | None:
    """Read an address, with a port or without; one of IPv4 within IPv6 is one of IPv4."""
    found = _HOP.fullmatch(hop)
    if found is None:
        return None

    try:
        address = ip_address((found["four"] or found["six"] or found["bare"]).decode())
    except ValueError:
        return None

    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
