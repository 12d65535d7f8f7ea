"""The engines behind a WebSocket, against doubles of their providers, on both kinds of loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.engines import link
from tests.doubles import Double, numbered
from tests.engine_contract import CHECKS, Check
from tests.remote_contract import REMOTE_CHECKS, SPEC, RemoteCheck, until
from tests.server.remotes import REMOTES, Remote

pytestmark = pytest.mark.anyio


BACKENDS = (*((each, True) for each in REMOTES), (REMOTES[0], False))
"""Engines, and whether they run on uvloop: all do, as the server does; one on the other loop."""


@pytest.fixture(params=BACKENDS, ids=lambda each: each[0].name + "-asyncio" * (not each[1]))
def backend(request: pytest.FixtureRequest) -> tuple[Remote, bool]:
    found: tuple[Remote, bool] = request.param
    return found


@pytest.fixture
def anyio_backend(backend: tuple[Remote, bool]) -> tuple[str, dict[str, Any]]:
    """Real time: the doubles know of no other."""
    return "asyncio", {"use_uvloop": backend[1]}


@pytest.fixture
def kind(backend: tuple[Remote, bool]) -> Remote:
    return backend[0]


@pytest.fixture
def double(kind: Remote) -> Iterator[Double]:
    with kind.double() as running:
        yield running


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract_of_engines(kind: Remote, double: Double, check: Check) -> None:
    engine = kind.make(double.url, double.secret)
    await check(engine, SPEC, numbered(1, 120))
    assert engine.streams == 0
    await until(double, lambda: not double.open)


@pytest.mark.parametrize("check", REMOTE_CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract_of_remote_engines(
    kind: Remote, double: Double, check: RemoteCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CLOSE_WITHIN", 0.2)
    await check(kind, double)
