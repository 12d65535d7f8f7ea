"""Runs every async test of the engine on both backends, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing
from hypothesis import settings

from tests.autojump import AutojumpLoop

settings.register_profile("roomcast", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("roomcast")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Give each test a backend with a clock of its own that jumps instead of waiting."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}

    return "asyncio", {"loop_factory": AutojumpLoop, "debug": True}
