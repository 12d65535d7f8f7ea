"""An app that its test file makes, where it is served, and who asks its server API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI

from server.http import HardenedHttp
from server.protocol import LeanWebSocket
from tests.hosted import hosted
from tests.server.api import Caller


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """Where the app is served, without a scheme."""
    async with hosted(app, http=HardenedHttp, ws=LeanWebSocket) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def caller(address: str) -> AsyncIterator[Callable[[str | None], Caller]]:
    """Make somebody who asks with a token, or with a key."""
    async with httpx2.AsyncClient() as http:
        yield lambda token: Caller(http, address, token)
