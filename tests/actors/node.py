"""A node in virtual time, and the far ends of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from actors.catalog import Catalog
from actors.connection import ConnectionActor
from actors.limits import Limits
from actors.manager import ConnectionManager
from actors.messages import Message, Transcript
from actors.microphone import Kind
from actors.ports import Backplane
from actors.principal import Principal
from actors.wire import Codec, Frame
from server.backplanes.memory import MemoryBackplane
from tests.autojump import settle
from tests.fakes import (
    FakeAuthority,
    FakeClock,
    FakeEngine,
    FakeObserver,
    FakeTransport,
    FakeUpstream,
)

SECOND = 32_000
"""Bytes of one second of audio at the rate that `start` has by default."""


class Node:
    """A running manager with its fakes within reach."""

    def __init__(self, limits: Limits, backplane: Backplane | None) -> None:
        self.clock, self.observer, self.engine = FakeClock(), FakeObserver(), FakeEngine()
        if backplane is None:
            backplane = MemoryBackplane(limits.history, limits.rooms, self.clock)

        self.backplane = backplane
        self.manager = ConnectionManager(
            limits, self.backplane, Catalog({"fake": self.engine}), self.clock, self.observer
        )
        self.manager.access.authority = self.authority = FakeAuthority()

    def connect(
        self, kind: Kind = "connect", tenant: str = "dev", codec: Codec = "json"
    ) -> tuple[ConnectionActor, FakeTransport]:
        """Open a connection and return both of its ends."""
        return self.open(Principal(tenant), kind, codec)

    def open(
        self, principal: Principal, kind: Kind = "connect", codec: Codec = "json"
    ) -> tuple[ConnectionActor, FakeTransport]:
        """Open a connection of somebody in particular."""
        transport = FakeTransport(codec)
        actor = self.manager.connect(kind, principal, transport)
        transport.actor = actor
        transport.resume()
        return actor, transport

    async def join(
        self, room: str, tenant: str = "dev", **options: Any
    ) -> tuple[ConnectionActor, FakeTransport]:
        """Open a connection that has joined a room."""
        actor, transport = self.connect(tenant=tenant)
        await order(actor, "join", id="j", room=room, **options)
        return actor, transport

    async def speak(
        self, room: str = "a", kind: Kind = "connect", **options: Any
    ) -> tuple[ConnectionActor, FakeTransport, FakeUpstream]:
        """Open a connection that has started a speech session, and the engine's side of it."""
        actor, transport = self.connect(kind)
        await order(actor, "start", id="s", room=room, **options)
        await settle()
        return actor, transport, self.engine.streams[-1]

    async def publish(self, room: str, data: object, tenant: str = "dev") -> None:
        """Publish from nowhere in particular."""
        await self.manager.send_message(Principal(tenant), room, data)


async def order(actor: ConnectionActor, kind: str, **fields: Any) -> None:
    """Send a command as a client would."""
    await actor.receive(msgspec.json.encode({"type": kind, **fields}).decode())


def data_of(transport: FakeTransport, room: str | None = None) -> list[object]:
    """Return what was published to the far end, in the order of arrival."""
    return [each.data for each in transport.of(Message) if room in (None, each.room)]


def message(offset: int, data: object = None, epoch: str = "e") -> Frame:
    """Make a frame of a room's history."""
    return Frame(
        Message(room="a", data=data, sender="", at=0.0, offset=offset or msgspec.UNSET, epoch=epoch)
    )


def transcript(segment: str, final: bool, text: str = "", **position: int | str) -> Frame:
    """Make a frame of a transcript."""
    table = {"room": "a", "segment": segment, "revision": 0, "final": final, "text": text}
    more = {"start": 0, "end": 0, "speaker": {"id": "", "name": ""}, "language": "en", "at": 0}
    return Frame(msgspec.convert({**table, **more, **position}, Transcript))


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
