"""The fakes keep the contracts of the ports, so that what is tested with them is true."""

from __future__ import annotations

import pytest

from actors.limits import History
from actors.messages import AnyEvent, AudioSpec
from actors.wire import Codec
from server.backplanes.memory import MemoryBackplane
from tests import contracts, engine_contract
from tests.actors.node import SECOND, Node, running
from tests.autojump import settle
from tests.fakes import DistantBackplane, FakeClock, FakeEngine, FrailBackplane

pytestmark = pytest.mark.anyio


class FakePair:
    """A connection over a fake transport."""

    def __init__(self, node: Node, codec: Codec) -> None:
        self._node, self._read = node, 0
        self.actor, self.transport = node.connect(codec=codec)

    async def read(self) -> AnyEvent:
        """Read what came next."""
        await settle()
        if self._read < len(self.transport.got):
            self._read += 1
            return self.transport.got[self._read - 1]

        assert self.transport.closed is not None, "nothing came"
        raise contracts.HungUp(self.transport.closed.code)

    async def send(self, data: str) -> None:
        """Send from the far end."""
        await self.actor.receive(data)

    def stall(self) -> None:
        """Let the far end stop reading."""
        self.transport.stall()

    def resume(self) -> None:
        """Let the far end read again."""
        self.transport.resume()

    async def vanish(self) -> None:
        """Cut the line at the far end."""
        self.transport.vanish()

    async def forgotten(self) -> None:
        """See that nothing is left."""
        await settle()
        assert self.actor not in self._node.manager.actors


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("check", contracts.TRANSPORT)
async def test_the_fake_transport_keeps_its_contract(
    check: contracts.TransportCheck, codec: Codec
) -> None:
    async with running() as node:
        await contracts.check_transport(FakePair(node, codec), check)


@pytest.mark.parametrize("check", contracts.BACKPLANE)
@pytest.mark.parametrize("kind", ["memory", "distant", "frail"])
async def test_every_backplane_keeps_its_contract(
    kind: str, check: contracts.BackplaneCheck
) -> None:
    history, clock = History(), FakeClock()
    planes = {
        "memory": MemoryBackplane(history, 100, clock),
        "distant": DistantBackplane(history, 100, clock, [0.1, 0.0, 0.3]),
        "frail": FrailBackplane(history, 100, clock),
    }
    await contracts.check_backplane(planes[kind], check)


@pytest.mark.parametrize("check", engine_contract.CHECKS)
async def test_the_fake_engine_keeps_its_contract(check: engine_contract.Check) -> None:
    engine = FakeEngine()
    engine.obliging = True
    await check(engine, AudioSpec(), bytes(SECOND))
