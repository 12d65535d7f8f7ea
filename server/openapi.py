"""The OpenAPI document: every surface with its query, its body, its answer and its refusals."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from actors.messages import ROOM_PATTERN
from server.documents import DOCUMENTS, Problem

REFERENCE = "#/components/schemas/{name}"
REFUSALS = {
    400: "The request has a wrong form.",
    401: "No token, or one that is not accepted.",
    403: "The token does not give this right.",
    404: "There is no such thing in the tenant, or no such tenant.",
    413: "The body is too big.",
    422: "A limit of the tenant is reached.",
    429: "Too much or too fast: for the node, the tenant, or the address; come back.",
    503: "Not now; come back.",
}
RETRY = {
    "headers": {
        "Retry-After": {
            "description": "Seconds after which to try again, where that is known.",
            "schema": {"type": "integer", "minimum": 1},
        }
    }
}
PAGE: list[dict[str, Any]] = [
    {"name": "after", "in": "query", "schema": {"type": "string", "maxLength": 128}},
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    },
]
TENANT: list[dict[str, Any]] = [
    {
        "name": "tenant",
        "in": "query",
        "description": "Whom it is about: needed with the operator's key, and with no other token.",
        "schema": {"type": "string"},
    }
]
KEY: list[dict[str, Any]] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    }
]
ROOM: list[dict[str, Any]] = [
    {
        "name": "room",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": ROOM_PATTERN.removesuffix(r"(?!\n)")},
    }
]


def refusals(*statuses: int) -> dict[int | str, Any]:
    """Return what FastAPI is told of the refusals of a route, by status."""
    return {
        status: {
            "description": REFUSALS[status],
            "content": {"application/problem+json": {"schema": _reference(Problem)}},
            **(RETRY if status in (429, 503) else {}),
        }
        for status in sorted(statuses)
    }


def described(
    answer: type[msgspec.Struct] | None,
    *statuses: int,
    body: type[msgspec.Struct] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what FastAPI is told of a route of one tenant, with its refusals beside the usual."""
    extra: dict[str, Any] = {
        "security": [{"bearer": []}, {"operator": []}],
        "parameters": [*(parameters or []), *TENANT],
    }
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _json(body)}

    responses = refusals(*{400, 401, 403, 404, 429, *statuses})
    if answer is not None:
        responses[200] = {"description": _first_line(answer), "content": _json(answer)}

    return {"responses": responses, "openapi_extra": extra}


def described_for_operator(
    answer: type[msgspec.Struct], parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what FastAPI is told of a route of no tenant, which takes the operator's key alone."""
    extra = {"security": [{"operator": []}], "parameters": parameters}
    answers = {200: {"description": _first_line(answer), "content": _json(answer)}}
    return {"responses": refusals(400, 401, 403, 429) | answers, "openapi_extra": extra}


def add_openapi(app: FastAPI) -> None:
    """Add to FastAPI's document what our structs look like, and how a token comes."""
    generate = app.openapi
    _, schemas = msgspec.json.schema_components(DOCUMENTS, ref_template=REFERENCE)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            components = generate().setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas)
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "operator": {"type": "http", "scheme": "bearer"},
            }

        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _json(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(kind)}}


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def _first_line(kind: type[msgspec.Struct]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
