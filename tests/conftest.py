"""The order of the tests, and how hard the properties are tried."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

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
settings.register_profile("fuzz", settings.get_profile("thorough"), max_examples=6000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "roomcast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the browser's tests last: Playwright keeps an event loop running in this thread."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
