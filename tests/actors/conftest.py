"""Runs every async test of the engine on both backends, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.autojump import virtual_time


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Give each test a backend with a clock of its own that jumps instead of waiting."""
    return virtual_time(request.param)
