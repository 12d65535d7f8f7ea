"""Who is behind a connection, and what they may do in which rooms of their tenant."""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

from actors.errors import Refused

Capability = Literal["speak", "listen", "publish", "presence", "admin"]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)
RIGHTS: dict[Capability, str] = {
    "speak": "speak in this room",
    "listen": "listen to this room",
    "publish": "publish to this room",
    "presence": "know who is in this room",
    "admin": "administer this room",
}


class Grant(msgspec.Struct, frozen=True):
    """What is allowed in the rooms whose names match a pattern."""

    pattern: str
    """Characters of a room's name, which stand for themselves, and `*` for any run of them."""
    capabilities: tuple[Capability, ...]

    def covers(self, room: str) -> bool:
        """Return whether the pattern matches a room's name; a room's key is no name."""
        return "/" not in room and matches(self.pattern, room)

    def includes(self, pattern: str) -> bool:
        """Return whether it covers every room that another pattern does.

        What stands for anything there must be met by what stands for anything here, as no literal
        is a `*`.
        """
        return "/" not in pattern and matches(self.pattern, pattern)


EVERYTHING = Grant("*", CAPABILITIES)


class Principal(msgspec.Struct, frozen=True):
    """Who is behind a connection."""

    tenant: str
    subject: str = ""
    name: str = ""
    token: str = ""
    """The token's id, by which it can be revoked; empty where it has none."""
    expires: float = math.inf
    """Unix time in seconds, leeway not included."""
    grants: tuple[Grant, ...] = (EVERYTHING,)
    maker: str = ""
    """Subject of who made the ticket that this one came with, who may be revoked too."""
    kid: str = ""
    """Id of the key that verified the token, by which it can be revoked; empty where none did."""

    def key(self, room: str) -> str:
        """Name a room of this principal's tenant within the node."""
        return f"{self.tenant}/{room}"

    def may(self, room: str, capability: Capability) -> bool:
        """Return whether a grant covers this room and gives this capability."""
        return any(capability in each.capabilities and each.covers(room) for each in self.grants)

    def patterns(self, capability: Capability) -> list[str]:
        """Return the patterns of the rooms in which a grant gives this capability."""
        return [each.pattern for each in self.grants if capability in each.capabilities]

    def require(self, room: str, capability: Capability) -> None:
        """Raise Refused("forbidden") unless a grant gives this capability in this room.

        It is said of every room alike: nobody learns from it whether there is one.
        """
        if not self.may(room, capability):
            raise Refused("forbidden", f"the token gives no right to {RIGHTS[capability]}", "room")

    def require_grant(self, wanted: Grant, *more: Capability) -> None:
        """Raise Refused("forbidden") unless one could give all of a grant, and has `more` there."""
        including = [each for each in self.grants if each.includes(wanted.pattern)]
        had = {capability for each in including for capability in each.capabilities}
        if not had.issuperset((*wanted.capabilities, *more)):
            raise Refused("forbidden", "the token does not cover what it is to give", "rooms")

    def require_everywhere(self, capability: Capability) -> None:
        """Raise Refused("forbidden") unless a grant gives this capability in every room."""
        all_rooms = [each for each in self.grants if each.pattern and not each.pattern.strip("*")]
        if not any(capability in each.capabilities for each in all_rooms):
            raise Refused("forbidden", f"this needs the right to {capability} in every room")

    def require_somewhere(self, capability: Capability) -> None:
        """Raise Refused("forbidden") unless a grant gives this capability in any room."""
        if not any(capability in each.capabilities for each in self.grants):
            raise Refused("forbidden", f"the token covers no room to {capability} in")


def matches(pattern: str, name: str) -> bool:
    """Return whether a name matches a pattern, in one pass: no choice is ever taken back.

    Each piece between two `*` goes to the first place after the piece before; no later place could
    leave more room for the rest.
    """
    first, *pieces = pattern.split("*")
    if not pieces:
        return name == first

    last = pieces.pop()
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False

    for piece in pieces:
        found = name.find(piece, at, end)
        if found < 0:
            return False

        at = found + len(piece)

    return True
