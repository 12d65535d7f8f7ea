"""Who asks the server API: somebody with a tenant's token, or the operator for a tenant."""

from __future__ import annotations

from fastapi import Request

from actors.errors import Refused
from actors.principal import Principal
from server.auth import credentials_of
from server.node import Node
from server.requests import Body, read_body
from server.turns import give_way

OPERATOR = "operator"
"""The name of who comes with the operator's key."""
NOBODY_ELSE = "this needs the operator's key"
UNNAMED = "the operator says for which tenant: ?tenant=NAME, once"
NO_TENANT = "there is no such tenant"
FOREIGN = "the token is not one of this tenant"


async def caller_of(node: Node, request: Request) -> Principal:
    """Say who asks, and for which tenant, as fast as that tenant may; the operator never waits.

    Raises Refused: a token of one tenant is told nothing of another.
    """
    await give_way()
    named = set(request.query_params.getlist("tenant")) if request.scope["query_string"] else set()
    if node.operates(request.scope):
        return _operator_for(node, request, named)

    principal = node.authenticate(request.scope)
    if not named <= {principal.tenant}:
        raise Refused("forbidden", FOREIGN, "tenant")

    await node.pace(principal.tenant)
    await give_way()
    node.confirm(principal)
    return principal


async def body_of(node: Node, request: Request, principal: Principal, kind: type[Body]) -> Body:
    """Read the body of who was let in, which may take its time, and see that they still would be.

    Raises Refused.
    """
    body = await read_body(request, node.settings.limits.text_bytes, kind)
    node.confirm(principal)
    return body


def require_operator(node: Node, request: Request) -> None:
    """Raise Refused unless the operator asks; whose token is no good is told that first."""
    if not node.operates(request.scope):
        node.authenticate(request.scope)
        raise Refused("forbidden", NOBODY_ELSE)


def _operator_for(node: Node, request: Request, named: set[str]) -> Principal:
    if len(named) != 1:
        raise Refused("bad_message", UNNAMED, "tenant")

    (tenant,) = named
    if not (node.gate.serves(tenant) or tenant in node.lingering()):
        raise Refused("not_found", NO_TENANT, "tenant")

    node.gate.check_origin(tenant, credentials_of(request.scope).origin)
    return Principal(tenant, name=OPERATOR)
