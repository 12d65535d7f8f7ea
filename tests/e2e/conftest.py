"""A server for the tests of a module, and another for a test that wants its own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.protocols import PROTOCOLS
from tests.servers import Server, serving

Serve = Callable[..., Server]
LEAN = pytest.mark.parametrize("protocol", ["lean"], scope="module")
"""For tests of what lies behind the protocol: one of them is enough."""


@pytest.fixture
def anyio_backend() -> str:
    """Run the clients of a real server on asyncio, in real time."""
    return "asyncio"


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """How the servers of a test speak WebSocket: every test runs over each protocol."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default settings, shared by the tests of a module."""
    with serving(tmp_path_factory.mktemp("server") / "log", **PROTOCOLS[protocol]) as running:
        yield running


@pytest.fixture
def serve(protocol: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with settings of one's own, as in `serve(limits__text_bytes=1000)`."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            serving(tmp_path / "log", **PROTOCOLS[protocol], **settings)
        )
