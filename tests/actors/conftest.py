"""Runs every async test of the engine on both backends, in virtual time."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.autojump import virtual_time

# The only fixture of a property test is the backend, which its examples may share.
settings.register_profile(
    "roomcast",
    derandomize=True,
    deadline=None,
    max_examples=60,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "thorough", settings.get_profile("roomcast"), derandomize=False, max_examples=3000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "roomcast"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Give each test a backend with a clock of its own that jumps instead of waiting."""
    return virtual_time(request.param)
