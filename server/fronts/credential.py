"""Where clients of other vendors put their token, which is never shown: in no log and no repr."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from starlette.websockets import WebSocket

from actors.errors import Refused

Place = Literal["header", "subprotocol", "query"]
SCHEMES = ("token", "bearer")


class Credential:
    """A token, and the subprotocol that the answer has to name because the token came beside it."""

    __slots__ = ("subprotocol", "token")

    def __init__(self, token: str, subprotocol: str | None = None) -> None:
        self.token, self.subprotocol = token, subprotocol

    def __repr__(self) -> str:
        """Keep the secret."""
        return "Credential(...)"


def credential(websocket: WebSocket, *places: Place) -> Credential:
    """Find the token in the first of these places that has one. Raises Refused("unauthorized").

    `header` is `Authorization: Token X` or `Bearer X`, `subprotocol` the pair `token, X` or
    `bearer, X`, `query` the parameter `access_token`.
    """
    for place in places:
        found = _FINDERS[place](websocket)
        if found is not None and found.token:
            return found

    raise Refused("unauthorized", f"there is no token in the {' or the '.join(places)}")


def _in_header(websocket: WebSocket) -> Credential | None:
    scheme, _, token = websocket.headers.get("authorization", "").strip().partition(" ")
    return Credential(token.strip()) if scheme.lower() in SCHEMES else None


def _in_subprotocol(websocket: WebSocket) -> Credential | None:
    offered = websocket.scope["subprotocols"]
    for scheme, token in pairwise(offered):
        if scheme in SCHEMES:
            return Credential(token, scheme)

    return None


def _in_query(websocket: WebSocket) -> Credential | None:
    return Credential(websocket.query_params.get("access_token", ""))


_FINDERS = {"header": _in_header, "subprotocol": _in_subprotocol, "query": _in_query}
