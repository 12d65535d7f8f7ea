"""Who is here, and how all of them leave; the drain itself is tested with the node."""

from __future__ import annotations

import anyio
import pytest

from actors.errors import RESTART, Close
from actors.principal import Principal
from tests.actors.node import running
from tests.fakes import FakeTransport

pytestmark = pytest.mark.anyio


async def test_what_is_left_of_a_node_can_be_cut() -> None:
    async with running() as node:
        _, far = node.connect()
        node.manager.population.cut()
        assert far.aborted
        assert node.manager.statistics().connections == {}


async def test_connections_are_counted_by_state_and_kind() -> None:
    async with running() as node:
        node.connect("listen")
        node.connect("listen")
        actor, far = node.connect("speak")
        far.stall()
        actor.close(RESTART)
        assert node.manager.population.count() == {
            ("connected", "listen"): 2,
            ("draining", "speak"): 1,
        }


async def test_who_waits_is_asked_again_whenever_somebody_has_left() -> None:
    async with running() as node:
        ends = [node.connect()[1] for _ in range(3)]
        seen: list[int] = []

        def gone() -> bool:
            seen.append(len(node.manager.actors))
            return not node.manager.actors

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.manager.population.until, gone)
            for far in ends:
                await anyio.sleep(1)
                far.vanish()

        assert seen == [3, 2, 1, 0]


async def test_the_connections_of_a_tenant_are_found_by_id_until_they_are_gone() -> None:
    async with running() as node:
        population = node.manager.population
        one, far = node.connect(tenant="t")
        two, _ = node.connect(tenant="t")
        other, _ = node.connect(tenant="u")
        assert population.of("t") == {one.id: one, two.id: two}
        assert population.of("u") == {other.id: other}
        assert population.tenants == {"t", "u"}
        far.stall()
        one.close(RESTART)
        assert one.id in population.of("t")
        far.vanish()
        far.vanish()
        assert population.of("t") == {two.id: two}
        two.transport.abort()
        assert population.of("t") == population.of("nobody") == {}
        assert population.tenants == {"u"}


class Broken(FakeTransport):
    """A socket that cannot be closed."""

    def close(self, close: Close) -> None:
        """Fail."""
        raise RuntimeError("the handler is closed")


async def test_a_connection_whose_end_fails_is_not_the_end_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        broken = node.manager.connect("connect", Principal("t"), Broken())
        other, far = node.connect(tenant="t")
        node.manager.upkeep.endings.end([(broken, RESTART), (other, RESTART)])
        assert far.closed is not None
        assert not broken.open

    (record,) = caplog.records
    assert record.getMessage() == f"connection {broken.id}: its end failed"
    assert record.exc_info is not None
