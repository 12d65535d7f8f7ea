"""The address of an engine, read once and strictly: what is dialled is what was looked at.

Its one rule: nothing is mended. What two parsers could read in two ways is refused.
"""

from __future__ import annotations

import re
import ssl
from functools import cache
from ipaddress import AddressValueError, IPv6Address

from websockets.uri import WebSocketURI

_ADDRESS = re.compile(
    r"(?i:(?P<scheme>wss?))://"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[!-~]*)?(?:\?(?P<query>[!-~]*))?"
)
_PORTS = {"ws": 80, "wss": 443}


class Address(WebSocketURI):
    """Where to connect to: TLS or not, a host in small letters, a port, a path and a query."""

    def __repr__(self) -> str:
        return f"Address({self.host!r}, {self.port})"  # a path or a query may hold a key


def allows(entry: str, address: Address) -> bool:
    """Tell whether `HOST` or `HOST:PORT` names the host of an address, and its port.

    Without a port it is the usual one of the address's scheme. Raises ValueError.
    """
    allowed = parse(f"{'wss' if address.secure else 'ws'}://{entry}")
    if allowed.path or allowed.query:
        raise ValueError(f"{entry!r} is no host")

    return (allowed.host, allowed.port) == (address.host, address.port)


def parse(url: str) -> Address:
    """Read `ws[s]://HOST[:PORT][/PATH][?QUERY]`. Raises ValueError, which does not show the URL."""
    found = _ADDRESS.fullmatch(url)
    if found is None or any(sign in url for sign in "#\\") or not _is_name(found["name"]):
        raise ValueError(
            "an address is ws://HOST or wss://HOST, with a port, a path and a query at most"
        )

    scheme = found["scheme"].lower()
    port = int(found["port"] or _PORTS[scheme])
    if port > 65535:
        raise ValueError("the port of an address is 65535 at most")

    path, _, query = (found["path"] or "").partition("?")
    return Address(
        secure=scheme == "wss",
        host=_six(found["six"]) if found["six"] else found["name"].lower(),
        port=port,
        path=path,
        query=found["query"] or query,
    )


@cache
def tls() -> ssl.SSLContext:
    """Return the context of all connections: certificates and names are verified."""
    return ssl.create_default_context()


def _is_name(host: str | None) -> bool:
    """Tell whether each label of a name has a length that a resolver takes."""
    return host is None or all(1 <= len(label) <= 63 for label in host.split("."))


def _six(host: str) -> str:
    """Return an IPv6 address in its one usual form."""
    try:
        return IPv6Address(host).compressed
    except AddressValueError:
        raise ValueError("the address in brackets is no IPv6 address") from None
