"""What a tenant has used, and what it may use; and all of that for the operator."""

from __future__ import annotations

from heapq import nsmallest

from fastapi import FastAPI, Request
from fastapi.responses import Response
from msgspec import UNSET

from server.callers import caller_of, require_operator
from server.documents import PageQuery, TenantPage, Used
from server.node import Node
from server.openapi import PAGE, described, described_for_operator
from server.problems import reply
from server.requests import read_query


def add_usage(app: FastAPI, node: Node) -> None:
    """Add GET /v1/usage and GET /v1/tenants."""
    manager, since = node.manager, node.manager.clock.wall()

    async def used(tenant: str) -> Used:
        meter = manager.meters.look(tenant)
        usage, quotas = meter.usage(manager.clock.monotonic()), meter.quotas
        history = await manager.backplane.remembered(tenant)
        return Used(tenant=tenant, since=since, usage=usage, history=history, quotas=quotas)

    @app.get("/v1/usage", operation_id="usage", **described(Used))
    async def usage(request: Request) -> Response:
        """Count what the tenant uses of this node, beside its quotas."""
        principal = await caller_of(node, request)
        principal.require_somewhere("admin")
        return reply(await used(principal.tenant))

    @app.get(
        "/v1/tenants", operation_id="tenants", **described_for_operator(TenantPage, parameters=PAGE)
    )
    async def tenants(request: Request) -> Response:
        """List the tenants by name, with what each uses."""
        require_operator(node, request)
        page = read_query(request, PageQuery)
        names = {*node.gate.names, *node.lingering()}
        later = (name for name in names if name > page.after)
        wanted = nsmallest(page.limit + 1, later)
        listed = wanted[: page.limit]
        more = len(wanted) > page.limit
        following = listed[-1] if more else UNSET
        return reply(TenantPage(tenants=[await used(name) for name in listed], next=following))
