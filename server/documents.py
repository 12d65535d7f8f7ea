"""What the server API takes and answers: the code decodes these, and OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict

from actors.log import Remembered
from actors.messages import Label
from actors.meter import Usage
from actors.microphone import Kind
from actors.quota import Quotas
from server.tickets import LASTS
from server.tokens import GRANTS, Room

Limit = Annotated[int, Meta(ge=1, le=1000)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object of an answer, which may grow."""


class Order(Document, frozen=True, forbid_unknown_fields=True):
    """A JSON object of a request; what is not known in it is an error."""


class Problem(Document, frozen=True):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    """Stable name; docs/protocol.md lists them."""
    detail: str
    """One sentence for people."""
    field: str | UnsetType = UNSET
    setting: str | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    """Seconds after which the same may be allowed."""


class PageQuery(msgspec.Struct, frozen=True):
    """Which part of a listing is wanted; unknown names in a query are left to proxies and tools."""

    after: Annotated[str, Meta(max_length=128)] = ""
    """The `next` of the page before."""
    limit: Limit = 100


class Publish(Order, frozen=True):
    """The body of a publish or a broadcast."""

    data: Any
    """Any JSON value; listeners get it unchanged."""


class Published(Document, frozen=True, omit_defaults=True):
    """Where a message has its place."""

    room: str
    epoch: str
    offset: int
    duplicate: bool = False
    """The key was used before: this is the first place, and nothing was published."""


class Broadcasted(Document, frozen=True, omit_defaults=True):
    """How many rooms a message went to."""

    rooms: int
    duplicate: bool = False
    """The key was used before: rooms that had the message did not get it again."""


class RoomState(Document, frozen=True):
    """A room that has a listener or a history."""

    room: str
    members: int
    """Connections of this node that have joined it."""
    speakers: int
    """Speech sessions that publish to it."""
    epoch: str
    offset: int
    """The newest offset; 0 before the first event."""


class RoomPage(Document, frozen=True):
    """A part of the rooms, by name."""

    rooms: list[RoomState]
    next: str | UnsetType = UNSET
    """There is more after this name."""


class PersonState(Document, frozen=True):
    """Somebody in a room."""

    id: str
    """The subject of the token, or the id of the connection where it has none."""
    name: str
    connections: int
    """Connections that have joined it."""
    speaking: bool
    """Whether a speech session publishes to it."""


class PresencePage(Document, frozen=True):
    """A part of the people in a room, by id."""

    room: str
    members: int
    """How many there are."""
    people: list[PersonState]
    next: str | UnsetType = UNSET
    """There is more after this id."""


class Speaking(Document, frozen=True):
    """The speech session of a connection."""

    session: str
    room: str


class ConnectionState(Document, frozen=True):
    """A live connection."""

    id: str
    kind: Kind
    subject: str
    name: str
    since: float
    """Unix seconds at which it began."""
    rooms: list[str]
    speech: Speaking | UnsetType = UNSET


class ConnectionPage(Document, frozen=True):
    """A part of the connections, by id."""

    connections: list[ConnectionState]
    next: str | UnsetType = UNSET
    """There is more after this id."""


class Unsubscribe(Order, frozen=True):
    """Who is to be taken out of a room: a connection, or all of a subject."""

    connection: Name | UnsetType = UNSET
    subject: Name | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse both, and neither."""
        if (self.connection is UNSET) is (self.subject is UNSET):
            raise ValueError("name one of connection and subject")


class Revoke(Order, frozen=True):
    """Whose access ends: a subject's, a token's, that of a key's tokens, or of one connection."""

    subject: Name | UnsetType = UNSET
    token: Name | UnsetType = UNSET
    key: Name | UnsetType = UNSET
    connection: Name | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse none, and more than one."""
        if len(self.named) != 1:
            raise ValueError("name one of subject, token, key and connection")

    @property
    def named(self) -> dict[str, str]:
        """What is said of whose it is."""
        return {name: value for name, value in asdict(self).items() if value is not UNSET}


class Revoked(Document, frozen=True):
    """What a revocation has done."""

    connections: int
    """Connections that were closed."""
    expires: float | UnsetType = UNSET
    """Unix seconds until which it holds; absent for a connection, which may come back at once, and
    where it holds as long as the server runs.
    """


class Affected(Document, frozen=True):
    """How many connections it concerned."""

    connections: int


class TicketOrder(Order, frozen=True):
    """What a ticket is to be good for: no more than the token that asks."""

    rooms: Annotated[tuple[Room, ...], Meta(min_length=1, max_length=GRANTS)]
    """Rights in rooms, as in a token."""
    sub: Annotated[str, Meta(max_length=128)] | UnsetType = UNSET
    """Who comes with it; without it the subject of the token."""
    name: Label | UnsetType = UNSET
    """What others see; without it the name in the token."""
    ttl: Annotated[float, Meta(gt=0, le=LASTS)] = LASTS
    """Seconds."""


class Ticket(Document, frozen=True):
    """What one connection may come with."""

    ticket: str
    expires: float
    """Unix seconds."""


class Used(Document, frozen=True):
    """What a tenant uses of this node, and what it may use."""

    tenant: str
    since: float
    """Unix seconds from which on everything is counted."""
    usage: Usage
    history: Remembered
    """What its rooms remember now."""
    quotas: Quotas


class TenantPage(Document, frozen=True):
    """A part of the tenants, by name."""

    tenants: list[Used]
    next: str | UnsetType = UNSET
    """There is more after this name."""


DOCUMENTS = (
    Problem,
    Publish,
    Published,
    Broadcasted,
    RoomPage,
    PresencePage,
    ConnectionPage,
    Unsubscribe,
    Revoke,
    Revoked,
    Affected,
    TicketOrder,
    Ticket,
    Used,
    TenantPage,
)
"""Those that OpenAPI names; what they hold comes with them."""
