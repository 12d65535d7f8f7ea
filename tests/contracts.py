"""What everything behind a port must do, as checks that run over the fake and over the real one.

Engines have theirs in `engine_contract`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import pytest

from actors.connection import ConnectionActor
from actors.errors import NORMAL, RESTART, Refused
from actors.lifecycle import State
from actors.log import Position, Repeated
from actors.messages import Ack, AnyEvent, Closing, Message
from actors.ports import Backplane, Transport
from actors.wire import Frame

WITHIN = 5.0
"""Seconds that anything here may take."""


class Heard:
    """What a backplane delivered, and a way to wait for more."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, Frame]] = []
        self._more = anyio.Event()

    def deliver(self, key: str, frame: Frame) -> None:
        """Take an event, as a node does."""
        self.frames.append((key, frame))
        self._more.set()

    async def wait(self, count: int) -> list[tuple[str, Frame]]:
        """Wait for so many events in all, and return them."""
        with anyio.fail_after(WITHIN):
            while len(self.frames) < count:
                self._more = anyio.Event()
                await self._more.wait()

        return self.frames

    @property
    def data(self) -> list[object]:
        """What the messages among them carry."""
        return [frame.event.data for _, frame in self.frames if isinstance(frame.event, Message)]


def say(data: object) -> Message:
    """Make a message that has no place in a room yet."""
    return Message(room="a", data=data, sender="me", at=1.0)


async def offsets_are_contiguous(plane: Backplane, heard: Heard) -> None:
    """Events of a room are numbered from 1 within one epoch and arrive in this order."""
    await plane.subscribe("t/a")
    places = [await plane.publish("t/a", say(count)) for count in range(5)]
    frames = [frame for _, frame in await heard.wait(5)]
    assert [place.offset for place in places] == [1, 2, 3, 4, 5]
    assert len({place.epoch for place in places}) == 1
    assert [Position(frame.epoch, frame.offset) for frame in frames] == places
    assert heard.data == [0, 1, 2, 3, 4]


async def only_subscribed_rooms_arrive(plane: Backplane, heard: Heard) -> None:
    """A room is heard from `subscribe` to `unsubscribe`, and no other with it."""
    await plane.publish("t/a", say("early"))
    await plane.subscribe("t/a")
    await plane.subscribe("t/a")
    await plane.subscribe("t/end")
    await plane.publish("t/a", say("heard"))
    await plane.publish("u/a", say("another tenant's"))
    await heard.wait(1)
    await plane.unsubscribe("t/a")
    await plane.unsubscribe("t/a")
    await plane.publish("t/a", say("late"))
    await plane.publish("t/end", say("end"))
    await heard.wait(2)
    assert heard.data == ["heard", "end"]


async def partials_are_not_kept(plane: Backplane, heard: Heard) -> None:
    """What is relayed arrives, takes no offset and is not recovered."""
    await plane.subscribe("t/a")
    await plane.relay("t/a", say("hint"))
    place = await plane.publish("t/a", say("kept"))
    frames = await heard.wait(2)
    assert [frame.offset for _, frame in frames] == [0, 1]
    assert (place.offset, heard.data) == (1, ["hint", "kept"])
    assert len((await plane.recover("t/a", None, 10)).frames) == 1


async def a_room_that_nobody_was_in_has_no_top(plane: Backplane, heard: Heard) -> None:
    """The newest position is told of a room that there is, and asking makes none."""
    assert await plane.top("t/a") is None
    assert await plane.rooms("t") == []
    places = [await plane.publish("t/a", say(count)) for count in range(2)]
    assert await plane.top("t/a") == places[-1]
    assert await plane.top("u/a") is None


async def a_key_counts_once(plane: Backplane, heard: Heard) -> None:
    """What is published again under its key is not, and gets its first place; others are free."""
    await plane.subscribe("t/a")
    assert await plane.repeats("t/a", "k") is None
    first = await plane.publish_once("t/a", say("first"), "k")
    assert await plane.repeats("t/a", "k") == Repeated(first.epoch, first.offset)
    again = await plane.publish_once("t/a", say("again"), "k")
    assert (type(first), again) == (Position, Repeated(first.epoch, first.offset))
    for key, once in (("t/a", "other"), ("t/b", "k"), ("u/a", "k")):
        assert await plane.repeats(key, once) is None
        assert type(await plane.publish_once(key, say(once), once)) is Position

    await heard.wait(2)
    assert heard.data == ["first", "other"]


async def recovery_is_complete(plane: Backplane, heard: Heard) -> None:
    """Everything after a position comes back in order, or the newest events, or a verdict."""
    places = [await plane.publish("t/a", say(count)) for count in range(6)]
    after = await plane.recover("t/a", places[2], 0)
    assert [frame.offset for frame in after.frames] == [4, 5, 6]
    assert (after.top, after.missing) == (places[-1], None)
    newest = await plane.recover("t/a", None, 2)
    assert [frame.offset for frame in newest.frames] == [5, 6]
    changed = await plane.recover("t/a", Position("another", 2), 0)
    assert changed.missing is not None
    assert (changed.missing.reason, list(changed.frames)) == ("epoch_changed", [])
    nothing = await plane.recover("t/nobody-was-here", None, 5)
    assert (nothing.top.offset, list(nothing.frames)) == (0, [])


async def tenants_see_their_own_rooms(plane: Backplane, heard: Heard) -> None:
    """`rooms` lists those of one tenant that have a listener or a history."""
    await plane.publish("t/b", say(1))
    await plane.subscribe("t/a")
    await plane.publish("tt/c", say(1))
    assert sorted(await plane.rooms("t")) == ["t/a", "t/b"]
    assert await plane.rooms("nobody") == []
    counted = await plane.remembered("t")
    assert (counted.rooms, counted.events, counted.bytes > 0) == (2, 1, True)
    assert (await plane.remembered("nobody")).rooms == 0


async def a_refused_event_uses_no_offset(plane: Backplane, heard: Heard) -> None:
    """Data without a JSON form is refused, and the numbering does not show it."""
    first = await plane.publish("t/a", say(1))
    with pytest.raises(Refused) as refusal:
        await plane.publish("t/a", say({(1, 2): "no such key in JSON"}))

    assert refusal.value.code == "bad_message"
    assert await plane.publish("t/a", say(2)) == Position(first.epoch, 2)


BackplaneCheck = Callable[[Backplane, Heard], Awaitable[None]]
BACKPLANE: tuple[BackplaneCheck, ...] = (
    offsets_are_contiguous,
    only_subscribed_rooms_arrive,
    partials_are_not_kept,
    a_room_that_nobody_was_in_has_no_top,
    a_key_counts_once,
    recovery_is_complete,
    tenants_see_their_own_rooms,
    a_refused_event_uses_no_offset,
)


async def check_backplane(plane: Backplane, check: BackplaneCheck) -> None:
    """Run a backplane without rooms through one of the checks above."""
    heard = Heard()
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plane.run, heard.deliver, ready.set)
        await ready.wait()
        await check(plane, heard)
        tasks.cancel_scope.cancel()


class HungUp(Exception):
    """The far end has read everything, and this is the close code that it saw."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Pair(Protocol):
    """A connection of a running node, held at both ends."""

    @property
    def actor(self) -> ConnectionActor:
        """The node's end."""

    @property
    def transport(self) -> Transport:
        """What the actor writes to."""

    async def read(self) -> AnyEvent:
        """Read the next event at the far end, `hello` being the first. Raises HungUp."""

    async def send(self, data: str) -> None:
        """Send from the far end."""

    def stall(self) -> None:
        """Let the far end stop reading."""

    def resume(self) -> None:
        """Let the far end read again."""

    async def vanish(self) -> None:
        """Cut the line at the far end."""

    async def forgotten(self) -> None:
        """Wait until the node knows nothing of the connection any more."""


async def _read_all(pair: Pair) -> tuple[list[AnyEvent], int]:
    got: list[AnyEvent] = []
    with anyio.fail_after(WITHIN):
        try:
            while True:
                got.append(await pair.read())
        except HungUp as end:
            return got, end.code


async def commands_are_answered_in_order(pair: Pair) -> None:
    """What is sent at one end is answered at the other, in order."""
    await pair.read()
    for count in range(5):
        await pair.send(f'{{"type":"ping","id":{count}}}')

    answers = [await pair.read() for _ in range(5)]
    assert [each.id for each in answers if isinstance(each, Ack)] == [0, 1, 2, 3, 4]


async def a_stalled_reader_gets_everything_later(pair: Pair) -> None:
    """What could not be written waits, and leaves in order."""
    await pair.read()
    pair.stall()
    for count in range(200):
        pair.actor.tell(Ack(id=count, at=1.0))

    pair.resume()
    answers = [await pair.read() for _ in range(200)]
    assert [each.id for each in answers if isinstance(each, Ack)] == list(range(200))


async def closing_delivers_what_was_queued(pair: Pair) -> None:
    """The far end reads what was queued, then `closing`, then the code; the first close wins."""
    await pair.read()
    pair.stall()
    for count in range(50):
        pair.actor.tell(Ack(id=count, at=1.0))

    pair.actor.close(RESTART)
    pair.actor.close(NORMAL)
    assert not pair.transport.writable
    pair.resume()
    got, code = await _read_all(pair)
    last = got.pop()
    assert [each.id for each in got if isinstance(each, Ack)] == list(range(50))
    assert isinstance(last, Closing)
    assert (last.code, code) == (1012, 1012)
    await pair.forgotten()


async def a_vanished_peer_is_forgotten(pair: Pair) -> None:
    """A cut line ends the actor, and closing or cutting it again changes nothing."""
    await pair.read()
    await pair.vanish()
    await pair.forgotten()
    assert pair.actor.lifecycle.state is State.DISCONNECTED
    pair.transport.close(NORMAL)
    pair.transport.abort()
    pair.transport.abort()
    assert not pair.transport.writable


async def a_stalled_reader_can_be_cut(pair: Pair) -> None:
    """`abort` ends a connection that does not take its close frame."""
    await pair.read()
    pair.stall()
    pair.actor.close(RESTART)
    pair.transport.abort()
    await pair.forgotten()
    assert pair.actor.lifecycle.reason == RESTART


TransportCheck = Callable[[Pair], Awaitable[None]]
TRANSPORT: tuple[TransportCheck, ...] = (
    commands_are_answered_in_order,
    a_stalled_reader_gets_everything_later,
    closing_delivers_what_was_queued,
    a_vanished_peer_is_forgotten,
    a_stalled_reader_can_be_cut,
)


async def check_transport(pair: Pair, check: TransportCheck) -> None:
    """Run an open connection through one of the checks above, in bounded time."""
    with anyio.fail_after(10 * WITHIN):
        await check(pair)
