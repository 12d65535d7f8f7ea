"""Tokens: who one speaks for, if a key of the tenant that it names has signed it.

Its one rule: cheap things first. A wrong token is refused before its signature is looked at, if
anything else can be seen to be wrong with it; nothing that it says chooses an algorithm or an
address.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.messages import Label, RoomName
from actors.principal import Capability, Grant, Principal
from server.keys import VerifyingKey
from server.tenants import Customer

LENGTH = 8192
"""Characters of a token."""
LAST = 253_402_300_799.0
"""The end of the year 9999: what is later is no time."""
TRIED = 4
"""Keys that are tried for a token that names none; each costs a look at a signature."""
STARS = 8
"""Times that a pattern may have a `*`."""
GRANTS = 64
"""Entries of `rooms`; each is looked at for each command."""

ABSENT = "this needs a token"
TOO_LONG = f"the token is over {LENGTH} characters"
MALFORMED = "the token is no JWT"
BAD_HEADER = "the token's header is not that of a signed JWT"
CRITICAL = "the token has a critical extension, and none is known here"
BAD_CLAIMS = "the token's claims are no JSON object"
BAD_CLAIM = "the claim {} of the token has a wrong form"
BAD_TENANT = "the token does not name its tenant"
BAD_EXPIRY = "the token has no usable exp"
BAD_ROOMS = f"the claim rooms is no list of up to {GRANTS} times {{pattern or room, can}}"
EXPIRED = "the token has expired"
EARLY = "the token is not valid yet"
UNSIGNED = "the token is not signed by a key of its tenant"
NO_KEY = "the token's kid names no key of its tenant"
UNNAMED = "the token must name its key (kid)"
"""Said of a tenant that has more keys of the token's algorithm than are tried."""
AUDIENCE = "the token is for another audience"
NO_AUDIENCE = "the token must name the tenant's audience (aud)"

_PARTS = re.compile(r"([A-Za-z0-9_-]{1,1024})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_PATH = re.compile(r" - at `\$((?:\.[a-z]+|\[[0-9]+\])+)`")
"""How the decoder ends its words; what is before may repeat the token."""
_MISSING = re.compile(r"Object missing required field `([a-z]+)`")
_CAUSES = {"exp": BAD_EXPIRY, "tenant": BAD_TENANT}
"""Claims with a sentence of their own."""


class UnknownKey(Refused):
    """A token whose key may have been added to a set since the set was fetched."""

    def __init__(self, customer: Customer, message: str) -> None:
        super().__init__("unauthorized", message)
        self.customer = customer


class Header(msgspec.Struct, frozen=True, gc=False):
    """What is looked at of a header: an address of a key, or a key, is not."""

    alg: str
    kid: Annotated[str, Meta(max_length=128)] | None = None
    crit: msgspec.Raw | UnsetType = UNSET


class Room(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `rooms`."""

    can: Annotated[tuple[Capability, ...], Meta(max_length=16)]
    pattern: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:*-]{1,128}$(?!\n)")] | UnsetType = UNSET
    room: RoomName | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse both, or neither, and a pattern that takes long to match."""
        if (self.pattern is UNSET) is (self.room is UNSET):
            raise ValueError("one of pattern and room")

        if self.pattern is not UNSET and self.pattern.count("*") > STARS:
            raise ValueError(f"a pattern has at most {STARS} times *")

    @property
    def grant(self) -> Grant:
        """The right that it gives."""
        return Grant(self.pattern or self.room or "", self.can)


class Claims(msgspec.Struct, frozen=True):
    """What is looked at of the claims."""

    tenant: Annotated[str, Meta(min_length=1, max_length=64)]
    exp: Annotated[float, Meta(ge=0, le=LAST)]
    nbf: float = 0.0
    aud: str | tuple[str, ...] = ()
    sub: Annotated[str, Meta(max_length=128)] = ""
    name: Label = ""
    jti: Annotated[str, Meta(max_length=128)] = ""
    rooms: msgspec.Raw = msgspec.Raw(b"[]")
    """Read once the signature is known to be good: a long list is dear."""


_header = msgspec.json.Decoder(Header)
_claims = msgspec.json.Decoder(Claims)
_rooms = msgspec.json.Decoder(Annotated[tuple[Room, ...], Meta(max_length=GRANTS)])


def verify(token: str, tenants: Mapping[str, Customer], now: float) -> Principal:
    """Return whom a token speaks for at a Unix time.

    Raises UnknownKey, Refused("unauthorized"), or "token_expired" where another one may do. The
    sentence is one of the above, and repeats nothing of the token.
    """
    if len(token) > LENGTH:
        raise Refused("unauthorized", TOO_LONG)

    parts = _PARTS.fullmatch(token)
    if parts is None:
        raise Refused("unauthorized", MALFORMED)

    header = _read_header(parts[1])
    claims = _read_claims(parts[2])
    _check_times(claims, now)
    customer = tenants.get(claims.tenant)
    if customer is None:
        raise Refused("unauthorized", UNSIGNED if header.kid is None else NO_KEY)

    kid = _signer(parts, header, customer)
    _check_audience(claims, customer.options.audience)
    return Principal(
        tenant=customer.name,
        subject=claims.sub,
        name=claims.name,
        token=claims.jti,
        kid=kid,
        expires=claims.exp,
        grants=_read_grants(claims.rooms),
    )


def _read_header(part: str) -> Header:
    try:
        header = _header.decode(_decode(part))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Refused("unauthorized", BAD_HEADER) from None

    if header.crit is not UNSET:
        raise Refused("unauthorized", CRITICAL)

    return header


def _read_claims(part: str) -> Claims:
    try:
        return _claims.decode(_decode(part))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        claim = _place(error)
        sentence = BAD_CLAIM.format(claim) if claim else BAD_CLAIMS
        raise Refused("unauthorized", _CAUSES.get(claim, sentence)) from None


def _read_grants(rooms: msgspec.Raw) -> tuple[Grant, ...]:
    try:
        return tuple(room.grant for room in _rooms.decode(rooms))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        place = _place(error)
        sentence = BAD_CLAIM.format(f"rooms{place}") if place else BAD_ROOMS
        raise Refused("unauthorized", sentence) from None


def _place(error: Exception) -> str:
    """Say where the decoder has stopped, like `aud` or `[3].can[0]`; empty if that is nowhere.

    It is made of names of our own and of numbers, never of what a token has brought.
    """
    said = str(error)
    path = said.rpartition(" - at `$")
    found = _PATH.fullmatch("".join(path[1:])) or _MISSING.fullmatch(said)
    return found[1].removeprefix(".") if found else ""


def _decode(part: str) -> bytes:
    """Decode one part. Raises Refused."""
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise Refused("unauthorized", MALFORMED) from None


def _check_times(claims: Claims, now: float) -> None:
    if claims.exp + LEEWAY <= now:
        raise Refused("token_expired", EXPIRED)

    if claims.nbf - LEEWAY > now:
        raise Refused("unauthorized", EARLY)


def _signer(parts: re.Match[str], header: Header, customer: Customer) -> str:
    """Return the id of the key that has signed a token, each key by its own algorithm alone.

    Raises Refused, or UnknownKey where a set that is fetched again may have the key.
    """
    signed, signature = parts.string[: parts.end(2)].encode(), _decode(parts[3])
    for kid, key in _candidates(header, customer).items():
        if header.alg == key.algorithm and key.verifies(signed, signature):
            return kid

    if header.kid is None:
        raise UnknownKey(customer, UNSIGNED)

    raise Refused("unauthorized", UNSIGNED)


def _candidates(header: Header, customer: Customer) -> Mapping[str, VerifyingKey]:
    """Return the key that a token names; without a name, those of the algorithm that it claims."""
    if header.kid is None:
        keys = customer.suited(header.alg)
        if len(keys) > TRIED:
            raise Refused("unauthorized", UNNAMED)

        return keys

    key = customer.find(header.kid)
    if key is None:
        raise UnknownKey(customer, NO_KEY)

    return {header.kid: key}


def _check_audience(claims: Claims, wanted: str) -> None:
    named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if (wanted not in named) if wanted else any(named):
        raise Refused("unauthorized", AUDIENCE if any(named) else NO_AUDIENCE)
