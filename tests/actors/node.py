"""A node in virtual time, and the far ends of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from actors.connection import ConnectionActor
from actors.limits import Limits
from actors.manager import ConnectionManager
from actors.microphone import Kind, Principal
from actors.ports import Backplane
from actors.wire import Codec
from server.backplanes.memory import MemoryBackplane
from tests.autojump import settle
from tests.fakes import FakeClock, FakeEngine, FakeObserver, FakeTransport


class Node:
    """A running manager with its fakes within reach."""

    def __init__(self, limits: Limits, backplane: Backplane | None) -> None:
        self.clock, self.observer, self.engine = FakeClock(), FakeObserver(), FakeEngine()
        self.backplane = backplane or MemoryBackplane(limits.history, limits.rooms, self.clock)
        self.manager = ConnectionManager(
            limits, self.backplane, {"fake": self.engine}, self.clock, self.observer
        )

    def connect(
        self, kind: Kind = "connect", tenant: str = "dev", codec: Codec = "json"
    ) -> tuple[ConnectionActor, FakeTransport]:
        """Open a connection and return both of its ends."""
        transport = FakeTransport(codec)
        actor = self.manager.connect(kind, Principal(tenant), transport)
        transport.actor = actor
        return actor, transport

    async def join(self, room: str, **options: str) -> tuple[ConnectionActor, FakeTransport]:
        """Open a connection that has joined a room."""
        actor, transport = self.connect()
        extra = "".join(f',"{name}":{value}' for name, value in options.items())
        await actor.receive(f'{{"type":"join","id":"j","room":"{room}"{extra}}}')
        return actor, transport

    async def publish(self, room: str, data: object, tenant: str = "dev") -> None:
        """Publish from nowhere in particular."""
        await self.manager.send_message(Principal(tenant), room, data)


@asynccontextmanager
async def running(
    limits: Limits | None = None, backplane: Backplane | None = None
) -> AsyncIterator[Node]:
    """Run a node for the length of a test."""
    node = Node(limits or Limits(), backplane)
    async with anyio.create_task_group() as tasks:
        started = anyio.Event()
        tasks.start_soon(node.manager.run, started.set)
        await started.wait()
        await settle()
        yield node
        tasks.cancel_scope.cancel()
