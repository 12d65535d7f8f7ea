"""Both adapters over a real uvicorn, held to the contract of every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from actors.connection import ConnectionActor
from actors.messages import AnyEvent
from actors.ports import Transport
from actors.wire import SUBPROTOCOLS
from server.app import create_app
from server.engines.configured import Echo, Engines
from server.lean import LeanTransport
from server.node import Node
from server.protocol import LeanWebSocket
from server.settings import Settings
from server.transport import AsgiTransport
from server.websocket import HardenedWebSocket
from tests.contracts import TRANSPORT, HungUp, TransportCheck, check_transport
from tests.hosted import hosted

pytestmark = pytest.mark.anyio

SETTINGS = Settings(dev=True, engines=Engines(enabled=("echo",), echo=Echo()))


@pytest.fixture
def anyio_backend() -> str:
    """Run where uvicorn runs, in real time."""
    return "asyncio"


class SocketPair:
    """A connection over a real socket."""

    def __init__(self, node: Node, actor: ConnectionActor, client: ClientConnection) -> None:
        self._node, self._client, self.actor = node, client, actor
        self.transport = actor.transport

    async def read(self) -> AnyEvent:
        """Read the next event. Raises HungUp."""
        try:
            data = await self._client.recv()
        except ConnectionClosed as closed:
            raise HungUp(closed.rcvd.code if closed.rcvd else 1006) from None

        if isinstance(data, str):
            event: AnyEvent = msgspec.json.decode(data, type=AnyEvent)
        else:
            event = msgspec.msgpack.decode(data, type=AnyEvent)

        return event

    async def send(self, data: str) -> None:
        """Send from the far end."""
        await self._client.send(data)

    def stall(self) -> None:
        """Stop reading; a client that is not asked for messages soon leaves its socket unread."""

    def resume(self) -> None:
        """Read again, whenever `read` is called."""

    async def vanish(self) -> None:
        """Cut the line at the far end."""
        self._client.transport.abort()

    async def forgotten(self) -> None:
        """Wait until the node knows nothing of the connection any more."""
        manager = self._node.manager
        with anyio.fail_after(5):
            await manager.population.until(lambda: self.actor not in manager.actors)


@asynccontextmanager
async def connected(
    websocket_class: object, adapter: type[Transport], protocol: str
) -> AsyncIterator[SocketPair]:
    """Serve an app and connect to it."""
    app = create_app(SETTINGS)
    node: Node = app.state.node
    async with hosted(app, ws=websocket_class) as port:
        client = await connect(
            f"ws://127.0.0.1:{port}/v1/connect",
            subprotocols=[Subprotocol(protocol)],
            compression=None,
            max_queue=1,
        )
        async with client:
            (actor,) = node.manager.actors
            assert type(actor.transport) is adapter
            yield SocketPair(node, actor, client)


@pytest.mark.parametrize(
    ("websocket_class", "adapter"),
    [
        (LeanWebSocket, LeanTransport),
        (HardenedWebSocket, AsgiTransport),
        ("websockets-sansio", AsgiTransport),
    ],
)
@pytest.mark.parametrize("protocol", SUBPROTOCOLS)
@pytest.mark.parametrize("check", TRANSPORT)
async def test_it_keeps_the_contract_of_a_transport(
    check: TransportCheck, protocol: str, websocket_class: object, adapter: type[Transport]
) -> None:
    async with connected(websocket_class, adapter, protocol) as pair:
        await check_transport(pair, check)
