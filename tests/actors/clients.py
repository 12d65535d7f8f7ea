"""A client as a listener should be written, which checks all that it is told."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import TaskGroup

from actors.connection import ConnectionActor
from actors.messages import Ack, AnyEvent, Error, Gap, Joined, Message, Transcript
from tests.actors.node import Node, order
from tests.fakes import FakeTransport


class Seen:
    """What a client knows of one room within one epoch."""

    def __init__(self, epoch: str, base: int) -> None:
        self.epoch, self.base = epoch, base
        self.data: dict[int, object] = {}
        self.lost: set[int] = set()
        self.newest = base

    @property
    def at(self) -> int:
        """Offset up to which everything has been seen or is known to be lost."""
        offset = self.base
        while offset + 1 in self.data or offset + 1 in self.lost:
            offset += 1

        return offset

    def take(self, offset: int, data: object) -> None:
        """Note an event: each offset comes once, and they come in order."""
        if not self.data and offset <= self.base:
            self.base = self.newest = offset - 1  # it happened while this client was joining

        assert offset > self.newest, f"{offset} after {self.newest}"
        assert offset not in self.lost
        self.newest = offset
        self.data[offset] = data

    def lose(self, first: int, last: int) -> None:
        """Note a gap: it takes back nothing that has come."""
        lost = set(range(first, last + 1))
        assert not lost & set(self.data)
        self.base = min(self.base, first - 1)
        self.lost |= lost


class Listener:
    """Joins and leaves, comes back when it was cut off, and resumes where it was."""

    def __init__(self, node: Node, tenant: str, strict: bool) -> None:
        """Be `strict` where partials are known to come in step with their finals."""
        self._node, self.tenant, self._strict = node, tenant, strict
        self.wanted: set[str] = set()
        self.seen: dict[str, Seen] = {}
        self._open()

    def _open(self) -> None:
        self.actor: ConnectionActor
        self.far: FakeTransport
        self.actor, self.far = self._node.connect(tenant=self.tenant)
        self._read = 0
        self._inside: set[str] = set()
        self._ended: set[str] = set()
        self._tx, self._rx = anyio.create_memory_object_stream[dict[str, Any]](100)
        self._reading = anyio.CancelScope()

    def begin(self, tasks: TaskGroup) -> None:
        """Let the node read what this client sends."""
        tasks.start_soon(self._be_read, self.actor, self._reading)

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002
        """Send a command, which is read after those before it."""
        self._tx.send_nowait({"kind": type, **fields})

    def join(self, room: str) -> None:
        """Join a room, from where this client was in it."""
        self.wanted.add(room)
        seen = self.seen.get(room)
        resume = {} if seen is None else {"since": f"{seen.epoch}:{seen.at}"}
        self.send("join", room=room, **resume)

    def leave(self, room: str) -> None:
        """Leave a room for good."""
        self.wanted.discard(room)
        self.send("leave", room=room, id=f"left {room}")

    def come_back(self, tasks: TaskGroup) -> None:
        """Open another connection, and resume every room."""
        self.read()
        self.hang_up()
        self.seen = {room: seen for room, seen in self.seen.items() if room in self.wanted}
        self._open()
        self.begin(tasks)
        for room in sorted(self.wanted):
            self.join(room)

    def hang_up(self) -> None:
        """Disappear."""
        self._reading.cancel()
        self._tx.close()
        self._rx.close()
        self.far.vanish()

    @property
    def quiet(self) -> bool:
        """Whether it is connected and has read everything there is."""
        unread = self._rx.statistics().current_buffer_used + len(self.far.got) - self._read
        return self.actor.open and not unread

    def read(self) -> None:
        """Look at everything that has come."""
        while self._read < len(self.far.got):
            self._look(self.far.got[self._read])
            self._read += 1

        reason = self.actor.lifecycle.reason
        assert reason is None or reason.retry, reason

    def _look(self, event: AnyEvent) -> None:
        match event:
            case Joined():
                self._joined(event)
            case Gap():
                self.seen[event.room].lose(event.first, event.last)
            case Message(offset=int(offset)):
                self._take(event.room, offset, event.data)
            case Transcript(offset=int(offset)):
                self._take(event.room, offset, event.text)
                self._ended.add(event.segment)
            case Transcript():
                assert event.room in self._inside
                assert not (self._strict and event.segment in self._ended)
            case Ack(id=id) if str(id).startswith("left"):
                room = str(event.room)
                self._inside.discard(room)
                self.seen.pop(room, None)
            case Error():
                assert event.code == "not_joined", event

    def _joined(self, event: Joined) -> None:
        self._inside.add(event.room)
        seen = self.seen.get(event.room)
        if seen is None:
            self.seen[event.room] = Seen(event.epoch, event.offset)
        elif seen.epoch != event.epoch:
            self.seen[event.room] = Seen(event.epoch, 0)

    def _take(self, room: str, offset: int, data: object) -> None:
        assert room in self._inside
        self.seen[room].take(offset, data)

    async def _be_read(self, actor: ConnectionActor, reading: anyio.CancelScope) -> None:
        rx = self._rx
        with reading:
            async for command in rx:
                await order(actor, **command)
