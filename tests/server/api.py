"""An app of two tenants, and what asks its server API."""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec

from server.settings import Settings
from tests.tokens import NEXT_OPERATOR, OPERATOR, OTHER_SECRET, mint, tenant

UNBOUNDED = {"arrivals": {"per_address": 0, "per_node": 0, "failures_per_address": 0}}
"""Limits under which tests may bring as many wrong tokens as they like."""
TABLE = {**tenant(), **tenant("other", OTHER_SECRET)}
KEYS = [OPERATOR, NEXT_OPERATOR]


def settings_of(**changes: Any) -> Settings:
    """Return settings with two tenants, an operator, and the echo engine alone."""
    usual = {"engines": {"enabled": ["echo"]}, "tenants": TABLE, "operator": {"keys": KEYS}}
    return msgspec.convert({**usual, "limits": UNBOUNDED, **changes}, Settings)


def token_of(tenant: str = "acme", **changes: Any) -> str:
    """Make a good token of a tenant."""
    keys: dict[str, Any] = {"key": OTHER_SECRET} if tenant == "other" else {}
    return mint(tenant=tenant, **keys, **changes)


def able(pattern: str, *capabilities: str) -> list[dict[str, Any]]:
    """Return the claim `rooms` with one entry."""
    return [{"pattern": pattern, "can": list(capabilities)}]


class Caller:
    """Who asks with one token."""

    def __init__(self, http: httpx2.AsyncClient, address: str, token: str | None) -> None:
        self._http, self._address = http, address
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx2.Response:
        """Send a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else msgspec.json.encode(body)
        url = f"http://{self._address}{path}"
        return await self._http.request(method, url, content=content, headers=self._headers | named)

    async def get(self, path: str) -> Any:
        """Return what is there."""
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        """Return the answer to a body that is taken."""
        answer = await self.ask("POST", path, body, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()
