"""Who is let in where, as tables: every surface, and every credential, with what it is answered.

Nothing here is taken from the code under test: the statuses and the codes are those of the docs.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from actors.principal import CAPABILITIES, Capability
from tests.tokens import (
    NEXT_OPERATOR,
    OPERATOR,
    OTHER_SECRET,
    SECRET,
    forge,
    mint,
    pem,
    private,
    tenant,
)

Kind = Literal["http", "socket", "command", "refresh", "deepgram", "revai", "vosk"]
Where = Literal["the room", "any room", "all rooms"]
Place = Literal["usual", "query", "ticket", "message"]
Rooms = list[dict[str, Any]]
ROOM = "a"
"""The room that every surface asks for."""
EXPIRED = "token_expired"
"""The code by which a token that has expired is refused."""
STATUS = {"unauthorized": 401, "token_expired": 401, "forbidden": 403, "bad_message": 400}
UNBOUNDED = {
    "connections": 0,
    "connections_per_subject": 0,
    "connections_per_address": 0,
    "publishes_per_second": 0,
}
SETTINGS: dict[str, Any] = {
    "engines": {"enabled": ["echo"]},
    "limits": {"arrivals": {"per_address": 0, "per_node": 0, "failures_per_address": 0}},
    "operator": {"keys": [OPERATOR, NEXT_OPERATOR]},
    "tenants": {
        **tenant(quotas=UNBOUNDED),
        **tenant("other", OTHER_SECRET, quotas=UNBOUNDED),
        "public": {"keys": {"main": {"pem": pem("RS256")}}, "audience": "roomcast"},
    },
}


class Surface(msgspec.Struct, frozen=True):
    """One door."""

    name: str
    """Method and path of a route, the type of a command, or the port of a front."""
    kind: Kind
    needs: Capability | Literal["operator"] | None
    """What opens it; None for any good token."""
    where: Where = "the room"
    """Where that is needed."""
    allowed: str = "200"
    """What is answered to whom it is open."""
    body: dict[str, Any] | None = None
    query: str = ""
    foreign: str = ""
    """What is answered to another tenant's token that has the right, where that is less."""
    ends: str = ""
    """The code that closes it when access is revoked meanwhile."""


def http(
    name: str, needs: Capability | Literal["operator"], where: Where = "the room", **more: Any
) -> Surface:
    """Return a route of the server API."""
    return Surface(name, "http", needs, where, **more)


def command(kind: str, needs: Capability | None, allowed: str, **more: Any) -> Surface:
    """Return a command on `/v1/connect`."""
    fields = {"type": kind, **more.pop("body", {})}
    return Surface(more.pop("name", kind), "command", needs, allowed=allowed, body=fields, **more)


HTTP: tuple[Surface, ...] = (
    http("POST /v1/rooms/{room}/messages", "publish", body={"data": 1}),
    http("POST /v1/broadcast", "publish", "any room", body={"data": 1}),
    http("GET /v1/rooms", "admin", "any room"),
    http("GET /v1/rooms/{room}", "admin"),
    http("POST /v1/rooms/{room}/unsubscribe", "admin", body={"subject": "nobody"}),
    http("GET /v1/rooms/{room}/presence", "presence"),
    http("GET /v1/connections", "admin", "all rooms"),
    http("DELETE /v1/connections/{id}", "admin", "all rooms", allowed="404 not_found"),
    http(
        "POST /v1/revoke",
        "admin",
        "all rooms",
        allowed="404 not_found",
        body={"connection": "{id}"},
    ),
    http("GET /v1/usage", "admin", "any room"),
    http("POST /v1/tickets", "admin", body={"rooms": [{"room": ROOM, "can": ["admin"]}]}),
    http("GET /v1/tenants", "operator"),
)
SOCKETS: tuple[Surface, ...] = (
    Surface("WS /v1/rooms/{room}/speak", "socket", "speak", allowed="open", ends="4505"),
    Surface(
        "WS /v1/rooms/{room}/listen",
        "socket",
        "listen",
        allowed="open",
        query="history=1",
        ends="4505",
    ),
    Surface("WS /v1/connect", "socket", None, allowed="open", ends="4505"),
)
FRONTS: tuple[Surface, ...] = (
    Surface(
        "WS /v1/listen",
        "deepgram",
        "speak",
        allowed="open",
        query=f"encoding=linear16&sample_rate=16000&room={ROOM}",
        ends="1008",
    ),
    Surface(
        "WS /speechtotext/v1/stream",
        "revai",
        "speak",
        allowed="open",
        query=f"content_type=audio/*&room={ROOM}",
        ends="4001",
    ),
    Surface("PORT", "vosk", "speak", allowed="open", query=f"room={ROOM}", ends="1008"),
)
COMMANDS: tuple[Surface, ...] = (
    command("join", "listen", "joined", body={"room": ROOM, "history": 1}),
    command("leave", None, "not_joined", body={"room": ROOM}),
    command("start", "speak", "ack", body={"room": ROOM}),
    command(
        "start",
        "speak",
        "ack",
        name="start with resume",
        body={"room": ROOM, "resume": "{session}"},
        foreign="unknown_session",
    ),
    command("stop", None, "not_started"),
    command("flush", None, "not_started"),
    command("publish", "publish", "ack", body={"room": ROOM, "data": 1}),
    command("ping", None, "ack"),
    Surface(
        "refresh",
        "refresh",
        None,
        allowed="ack",
        body={"type": "refresh", "token": "{token}"},
        foreign="forbidden",
    ),
)
SURFACES = (*HTTP, *SOCKETS, *FRONTS, *COMMANDS)
OPEN = {
    *(
        f"{method} {path}"
        for path in ("/livez", "/readyz", "/healthz", "/version", "/metrics", "/", "/openapi.json")
        for method in ("GET", "HEAD")
    ),
    "MOUNT /static",
}
"""What is open to everybody."""
DEVELOPMENT = {"WS /v1/echo"}
"""What there is in development mode alone."""


class Credential(msgspec.Struct, frozen=True):
    """What somebody comes with."""

    make: Callable[[Rooms], str | None]
    """Make the token that gives these rights."""
    outcome: str = "unauthorized"
    """The code by which it is refused everywhere."""
    place: Place = "usual"
    on_refresh: str = ""
    """The code by which a refresh with it is refused, where that is another."""


def rights(*capabilities: Capability, pattern: str = "*") -> Rooms:
    """Return the claim `rooms` with one entry."""
    return [{"pattern": pattern, "can": list(capabilities)}]


ALL = rights(*CAPABILITIES)


def good(rooms: Rooms, **changes: Any) -> str:
    """Make a good token of the tenant that all surfaces are asked as."""
    return mint(**{"sub": "ann", "jti": "ann's", "rooms": rooms, **changes})


def other(rooms: Rooms) -> str:
    """Make a good token of another tenant, for somebody of the same name."""
    return good(rooms, key=OTHER_SECRET, tenant="other")


def _later(seconds: int) -> int:
    return int(time.time()) + seconds


def _public(rooms: Rooms, **changes: Any) -> str:
    return good(
        rooms,
        **{"key": private("RS256"), "algorithm": "RS256", "tenant": "public", "aud": "roomcast"}
        | changes,
    )


BAD: dict[str, Credential] = {
    "no token": Credential(lambda rooms: None),
    "garbage": Credential(lambda rooms: "canary"),
    "empty parts": Credential(lambda rooms: ".."),
    "expired": Credential(lambda rooms: good(rooms, exp=_later(-31)), EXPIRED),
    "future nbf": Credential(lambda rooms: good(rooms, nbf=_later(60))),
    "another tenant's key": Credential(lambda rooms: good(rooms, key=OTHER_SECRET)),
    "a tenant that is not": Credential(lambda rooms: good(rooms, tenant="nobody")),
    "RS256 for a secret": Credential(
        lambda rooms: good(rooms, key=private("RS256"), algorithm="RS256")
    ),
    "RS256 in the header alone": Credential(lambda rooms: forge({"alg": "RS256"}, rooms=rooms)),
    "HS512": Credential(lambda rooms: forge({"alg": "HS512"}, rooms=rooms)),
    "HS256 for a public key": Credential(
        lambda rooms: _public(rooms, key=SECRET, algorithm="HS256")
    ),
    "the public key as a secret": Credential(
        lambda rooms: forge(
            {"alg": "HS256"}, pem("RS256").encode(), tenant="public", aud="roomcast", rooms=rooms
        )
    ),
    "the public key's bytes as a secret": Credential(
        lambda rooms: forge(
            {"alg": "HS256"},
            b64encode(pem("RS256").encode()),
            tenant="public",
            aud="roomcast",
            rooms=rooms,
        )
    ),
    "alg none": Credential(lambda rooms: forge({"alg": "none"}, rooms=rooms)),
    "alg none, unsigned": Credential(
        lambda rooms: forge({"alg": "none"}, rooms=rooms).rpartition(".")[0] + "."
    ),
    "bad kid": Credential(lambda rooms: good(rooms, headers={"kid": "canary"})),
    "an audience where none is known": Credential(lambda rooms: good(rooms, aud="canary")),
    "another audience": Credential(lambda rooms: _public(rooms, aud="canary")),
    "no audience": Credential(lambda rooms: _public(rooms, aud=None)),
    "a revoked subject": Credential(
        lambda rooms: good(rooms, sub="revoked"), on_refresh="forbidden"
    ),
    "a revoked id": Credential(lambda rooms: good(rooms, jti="revoked")),
    "the operator's key in a query": Credential(lambda rooms: OPERATOR, place="query"),
}
NATIVE = ("socket", "command")
"""The kinds of surface that take a token in the first message."""
CODES = {"unauthorized": "4501", "token_expired": "4004", "forbidden": "4502"}
"""How a connection ends whose first message is refused."""
TICKETS = ("socket", "command", "vosk")
"""The kinds of surface that take a ticket."""
REVOKED = (("subject", "revoked"), ("token", "revoked"))
"""What is revoked beforehand."""


def expected(surface: Surface, rooms: Rooms) -> str:
    """Say what a good token of the tenant with one entry of rights is answered."""
    (entry,) = rooms
    everywhere = entry["pattern"] == "*"
    needed = surface.needs is None or surface.needs in entry["can"]
    if needed and (everywhere or surface.needs is None or surface.where == "any room"):
        return surface.allowed

    return refusal(surface, "forbidden")


def expected_with_ticket(surface: Surface, rooms: Rooms) -> str:
    """Say what a ticket with one entry of rights is answered where it has not been used."""
    if surface.kind in TICKETS:
        return expected(surface, rooms)

    return refusal(surface, "unauthorized")


def expected_of_message(surface: Surface, rooms: Rooms) -> str:
    """Say what a good token in the first message is answered."""
    answer = expected(surface, rooms)
    return CODES["forbidden"] if answer.startswith("403") else answer


def expected_of_operator(surface: Surface, named: bool) -> str:
    """Say what the operator's key is answered, with or without the name of the tenant."""
    if surface.kind != "http":
        return turned_away(surface, Credential(lambda rooms: OPERATOR))

    return surface.allowed if named or surface.needs == "operator" else "400 bad_message"


def refusal(surface: Surface, code: str) -> str:
    """Say how a surface refuses with a code."""
    match surface.kind:
        case "command" | "refresh":
            return code
        case "revai":
            return "4001"
        case "deepgram":
            return f"{STATUS[code]} {code.upper()}"
        case _:
            return f"{STATUS[code]} {code}"


def found_by_another(surface: Surface) -> str:
    """Say what a token of another tenant that has every right is answered."""
    if surface.needs == "operator":
        return refusal(surface, "forbidden")

    return surface.foreign or surface.allowed


def turned_away(surface: Surface, credential: Credential) -> str:
    """Say how who comes with a bad credential is refused; no command is even heard."""
    code = credential.outcome
    if surface.kind == "refresh":
        return credential.on_refresh or code

    return f"{STATUS[code]} {code}" if surface.kind == "command" else refusal(surface, code)
