"""Where tickets are made: a backend asks for one, and gives it to a browser."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response
from msgspec import UNSET, structs

from actors.errors import Refused
from actors.principal import Principal
from actors.selection import A_COMMAND
from server.callers import body_of, caller_of
from server.documents import Ticket, TicketOrder
from server.node import Node
from server.openapi import described
from server.problems import reply


def add_tickets(app: FastAPI, node: Node) -> None:
    """Add POST /v1/tickets."""
    clock = node.manager.clock

    @app.post(
        "/v1/tickets",
        operation_id="ticket",
        **described(Ticket, 413, 503, body=TicketOrder),
    )
    async def ticket(request: Request) -> Response:
        """Make a ticket for one connection: `?ticket=` of a socket takes it once."""
        maker = await caller_of(node, request)
        maker.require_somewhere("admin")
        order = await body_of(node, request, maker, TicketOrder)
        await node.pace(maker.tenant, len(order.rooms) * len(maker.grants) / A_COMMAND)
        node.confirm(maker)
        principal, now = holder_of(order, maker), clock.wall()
        if node.manager.access.revoked(principal):
            raise Refused("forbidden", "this subject is revoked", "sub")

        made = node.tickets.issue(principal, order.ttl, now)
        return reply(Ticket(ticket=made, expires=round(now + order.ttl, 3)))


def holder_of(order: TicketOrder, maker: Principal) -> Principal:
    """Return who comes with a ticket; it can do no more and stays no longer than who made it.

    Raises Refused("forbidden") for a right that the maker has not, or rooms not administered by it.
    """
    grants = tuple(room.grant for room in order.rooms)
    for grant in grants:
        maker.require_grant(grant, "admin")

    return structs.replace(
        maker,
        subject=maker.subject if order.sub is UNSET else order.sub,
        name=maker.name if order.name is UNSET else order.name,
        grants=grants,
        maker=maker.subject,
    )
