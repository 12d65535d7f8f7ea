"""The OpenAPI document says what there is, and the server does what it says."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import Any

import pytest
import schemathesis
from anyio import to_thread
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as profile
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.app import create_app
from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from tests.hosted import hosted
from tests.server.api import settings_of, token_of
from tests.tokens import OPERATOR

TRIES = 8
"""Requests of each operation."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PROBES = {"livez", "readyz", "healthz", "version", "metrics"}
TENANTS = {
    "publish": {200, 400, 401, 403, 404, 413, 429, 503},
    "broadcast": {200, 400, 401, 403, 404, 413, 429, 503},
    "rooms": {200, 400, 401, 403, 404},
    "room": {200, 400, 401, 403, 404},
    "presence": {200, 400, 401, 403, 404},
    "unsubscribe": {200, 400, 401, 403, 404, 413},
    "connections": {200, 400, 401, 403, 404},
    "disconnect": {204, 400, 401, 403, 404},
    "revoke": {200, 400, 401, 403, 404, 413, 422},
    "usage": {200, 400, 401, 403, 404},
    "ticket": {200, 400, 401, 403, 404, 413, 503},
    "tenants": {200, 400, 401, 403},
}
"""Operations that take a token, and their statuses beside 429, which too many wrong tokens earn."""
OPERATORS = {"tenants"}
"""Those that take the operator's key alone."""


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


def test_every_operation_names_its_statuses() -> None:
    document = create_app(settings_of()).openapi()
    operations: dict[str, dict[str, Any]] = {
        each["operationId"]: each for path in document["paths"].values() for each in path.values()
    }
    assert operations.keys() == {*TENANTS, *PROBES}
    for name, statuses in TENANTS.items():
        described = operations[name]
        assert set(map(int, described["responses"])) == statuses | {429}, name
        ways = ["operator"] if name in OPERATORS else ["bearer", "operator"]
        assert described["security"] == [{way: []} for way in ways]


@pytest.mark.anyio
async def test_nothing_is_answered_that_is_not_described() -> None:
    app = create_app(settings_of())
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        for token, tenant in (
            (token_of(), None),
            (OPERATOR, "acme"),
            (OPERATOR, None),
            (None, None),
        ):
            await to_thread.run_sync(explore, f"http://127.0.0.1:{port}", token, tenant)


def explore(address: str, token: str | None, tenant: str | None) -> None:
    """Ask every operation what fits its description, and what does not, of a tenant or of any."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    for each, mode in product(schema.get_all_operations(), modes):
        operation = each.ok()

        @profile(
            max_examples=TRIES if token else 1,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            if tenant is not None:
                case.query = {**(case.query or {}), "tenant": tenant}

            case.call_and_validate(headers=headers, checks=CHECKS)

        with suppress(Unsatisfiable):  # what takes nothing takes nothing wrong
            ask()
