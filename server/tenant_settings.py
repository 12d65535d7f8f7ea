"""The settings `tenants.*`: who may come, and how their tokens are known."""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from actors.limits import Count, Limits, Seconds, Section
from actors.quota import Quotas
from server.engines.configured import EngineName
from server.engines.options import Provider, Secret
from server.loopback import is_loopback

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_RULE = "a tenant's name is 1 to 64 of the characters A-Z a-z 0-9 _ -"
DEV = "dev"
"""The tenant of development mode, which has no tokens."""
BASE64 = "base64:"
SECRET_BYTES = 32
RoomPattern = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:*-]{1,128}$(?!\n)")]
"""What a room's name may be, and `*` for any run of characters."""
KEY_ID = re.compile(r"[!-~]{1,128}")
OPERATOR_KEY = re.compile(r"[!-~]{32,512}")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[1-9][0-9]{0,4})?"
)
_USUAL = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Key(Provider, frozen=True):
    """A key that verifies a tenant's tokens: one of `secret`, `pem` and `jwks`."""

    secret: Secret = ""
    """Shared secret of HS256, of 32 bytes or more: a text, or `base64:` and the bytes."""
    pem: str = ""
    """Public key of RS256, ES256 or EdDSA: the PEM text, or the path of a file that holds it."""
    jwks: str = ""
    """Address of a set of public keys, each known by its `kid`; https, or http on this machine."""

    def __post_init__(self) -> None:
        """Refuse what is no key, or more than one."""
        if sum(map(bool, (self.secret, self.pem, self.jwks))) != 1:
            raise ValueError("a key has exactly one of secret, pem and jwks")

        if self.secret:
            read_secret(self.secret)

        if self.jwks:
            check_address(self.jwks)


class TenantHistory(Section, frozen=True):
    """What a room of a tenant remembers."""

    messages: Count = 1000
    """Finals and messages kept in a room."""
    bytes: Count = 4_194_304
    """Bytes kept in a room, for an event's JSON and MessagePack together."""
    age: Seconds = 600.0
    """Seconds an event is kept."""


class TenantUpstream(Section, frozen=True):
    """What waits for a speech engine."""

    policy: Literal["block", "drop_oldest"] = "block"
    """When full: `block` loses nothing and slows the client, `drop_oldest` bounds the delay."""


class TenantLimits(Section, frozen=True):
    """The limits that a tenant may have of its own."""

    history: TenantHistory = TenantHistory()
    upstream: TenantUpstream = TenantUpstream()

    def within(self, node: Limits) -> Limits:
        """Return the limits of a node with these in the place of its own."""
        replace, asdict = msgspec.structs.replace, msgspec.structs.asdict
        return replace(
            node,
            history=replace(node.history, **asdict(self.history)),
            upstream=replace(node.upstream, **asdict(self.upstream)),
        )


class Tenant(Section, frozen=True):
    """One customer, whose rooms and tokens are its own."""

    keys: dict[str, Key] = msgspec.field(default_factory=dict)
    """Keys that verify its tokens, by key id (`kid`)."""
    audience: str = ""
    """What the claim `aud` of its tokens must name; empty: they must have none."""
    origins: tuple[str, ...] = ()
    """Origins that browsers may come from, exactly as browsers send them; empty for any."""
    engines: tuple[EngineName, ...] = ()
    """The only engines it may use, tried in turn for who names none; empty for the node's."""
    quotas: Quotas = Quotas()
    """What it may use; what is not said here is as in the section `quotas`."""
    limits: TenantLimits = TenantLimits()
    """Limits of its own; what is not said here is as in the section `limits`."""
    presence: tuple[RoomPattern, ...] = ("*",)
    """Patterns of the rooms in which presence is kept; empty for none."""

    def __post_init__(self) -> None:
        """Refuse a tenant without keys, and origins that no browser would send."""
        if not self.keys:
            raise ValueError("a tenant needs a key")

        for name in self.keys:
            if not KEY_ID.fullmatch(name):
                raise ValueError("a key's id is 1 to 128 visible ASCII characters")

        for origin in self.origins:
            check_origin(origin)


class Operator(Provider, frozen=True):
    """Who runs the server, and asks its API for any tenant."""

    keys: tuple[Secret, ...] = ()
    """Keys of 32 to 512 visible ASCII characters; two at a time let one follow the other."""

    def __post_init__(self) -> None:
        """Refuse what is easily guessed, and what no header can carry."""
        for number, key in enumerate(self.keys):
            if not OPERATOR_KEY.fullmatch(key):
                raise ValueError(
                    f"operator.keys[{number}] is {len(key.encode())} bytes;"
                    " a key is 32 to 512 visible ASCII characters, without a space"
                )


def inherit(tenant: Any, node: Mapping[str, Any]) -> Any:
    """Return the table of a tenant with the node's quotas and limits where it has none of its own.

    What is no table stays as it is: it is refused when it is read.
    """
    if not isinstance(tenant, dict):
        return tenant

    limits = node.get("limits", {})
    given: dict[str, Any] = {"quotas": node.get("quotas", {}), "limits": {}}
    for name, kind in (("history", TenantHistory), ("upstream", TenantUpstream)):
        section = limits.get(name, {}) if isinstance(limits, dict) else {}
        if isinstance(section, dict):
            known = kind.__struct_fields__
            given["limits"][name] = {each: section[each] for each in known if each in section}

    return _merge(given, tenant)


def _merge(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**given, **own}
    for name in given.keys() & own.keys():
        if isinstance(given[name], dict) and isinstance(own[name], dict):
            merged[name] = _merge(given[name], own[name])

    return merged


def check_tenants(tenants: Mapping[str, Tenant], enabled: Collection[str]) -> None:
    """Refuse names that no tenant can have, and engines that are not enabled. Raises ValueError."""
    for name, tenant in tenants.items():
        if not NAME.fullmatch(name):
            raise ValueError(f"tenants: {name!r}: {NAME_RULE}")

        if name == DEV:
            raise ValueError("tenants: dev is the tenant of development mode; take another name")

        for engine in tenant.engines:
            if engine not in enabled:
                raise ValueError(f"tenants.{name}.engines: {engine} is not in engines.enabled")


def read_secret(text: str) -> bytes:
    """Return the bytes of a shared secret. Raises ValueError, without the secret."""
    if text.startswith("-----BEGIN"):
        raise ValueError("a PEM is no secret; it belongs in pem")

    secret = text.encode()
    if text.startswith(BASE64):
        try:
            secret = binascii.a2b_base64(secret.removeprefix(BASE64.encode()), strict_mode=True)
        except binascii.Error:
            raise ValueError(f"the secret after {BASE64} is no base64") from None

    if len(secret) < SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes; HS256 needs {SECRET_BYTES} or more")

    return secret


def check_origin(origin: str) -> None:
    """Refuse what can be no browser's `Origin`. Raises ValueError."""
    scheme, _, rest = origin.partition("://")
    usual = f":{_USUAL.get(scheme)}"
    if not _ORIGIN.fullmatch(origin) or rest.endswith(usual):
        raise ValueError(
            f"{origin!r} is no origin: it is like https://app.example.com, in small letters,"
            " without a path, with a port only where it is not the usual one"
        )


def check_address(url: str) -> None:
    """Refuse an address that keys are not fetched from. Raises ValueError, without the address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""

    plain = url.isascii() and url.isprintable() and not set(url) & set(" \\#")
    if not host or not plain or "@" in parts.netloc:
        raise ValueError("jwks is no address like https://example.com/keys.json")

    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("jwks must be https, or http on this machine")
