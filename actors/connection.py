"""The actor of one connection: its state, its mailbox, and what its commands do.

An idle actor is data: no task, no timer, no buffer. What waits (a join on a remote backplane, a
full ingress) waits in the call of whoever reads the socket.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Protocol

from actors.commands import AnyCommand, Flush, Join, Leave, Ping, Publish, Refresh, Start, Stop
from actors.errors import GONE, INTERNAL, NORMAL, Close, Refused, SessionEnd, ending
from actors.lifecycle import Lifecycle
from actors.mailbox import Mailbox, Tally
from actors.messages import Ack, AnyEvent
from actors.meter import Meters
from actors.microphone import Kind, Microphone, Studio
from actors.ports import Transport
from actors.principal import Principal
from actors.refusals import Patience, check_size, error_of, goodbye
from actors.wire import Burst, Frame, decode, holds_audio

log = logging.getLogger("roomcast.connection")


class Hub(Studio, Protocol):
    """What an actor needs of the node that it lives on."""

    meters: Meters
    egress: Tally
    backlogged: set[ConnectionActor]

    async def join(self, actor: ConnectionActor, command: Join) -> None:
        """Add the actor to a room and replay what it missed. Raises Refused."""

    async def leave(self, actor: ConnectionActor, command: Leave) -> None:
        """Take the actor out of a room. Raises Refused."""

    async def publish(self, actor: ConnectionActor, command: Publish) -> None:
        """Publish a value, and acknowledge it if an id was given. Raises Refused."""

    def refresh(self, actor: ConnectionActor, command: Refresh) -> None:
        """Go on with another token of the same subject. Raises Refused."""

    def flush(self) -> None:
        """Deliver at once what waits for the end of the tick."""

    def closing(self, actor: ConnectionActor, close: Close) -> None:
        """Take an ending actor out of every room."""

    def forget(self, actor: ConnectionActor, close: Close) -> None:
        """The socket is gone: nothing of the actor stays."""

    def reconnect_ms(self) -> int:
        """Return how far closed clients should spread their coming back, in milliseconds."""


class ConnectionActor:
    """One connection. `receive` and `deliver` are its two doors; `close` is its one ending."""

    __slots__ = (
        "_departed",
        "_hub",
        "_patience",
        "address",
        "began",
        "egress",
        "ended",
        "id",
        "kind",
        "lifecycle",
        "microphone",
        "principal",
        "transport",
    )

    def __init__(
        self, name: str, kind: Kind, principal: Principal, transport: Transport, hub: Hub
    ) -> None:
        self.id, self.kind, self.principal = name, kind, principal
        self.transport, self._hub = transport, hub
        self.lifecycle = Lifecycle()
        self.address = ""
        """Where it comes from, as far as that is known."""
        self.egress = Mailbox(hub.limits.egress, transport.codec, hub.egress)
        self.began = hub.clock.monotonic()
        """Monotonic seconds at which the connection began."""
        self.ended = 0.0
        """Monotonic seconds at which it was closed; its socket may still flush."""
        self.microphone: Microphone | None = None
        self._patience: Patience | None = None
        self._departed = False

    @property
    def open(self) -> bool:
        """Whether commands are obeyed and events delivered."""
        return self.lifecycle.connected

    async def begin(self, command: AnyCommand) -> None:
        """Carry out the command that the address implies; its refusal ends the connection."""
        if self.open:
            await self._attempt(self._begin(command))

    async def receive(self, data: str | bytes) -> None:
        """Act on one WebSocket message; waits while ingress is full, so stop reading meanwhile."""
        if self.open:
            await self._attempt(self._act(data))

    async def obey(self, command: AnyCommand) -> None:
        """Act on a command that was read before; waits as `receive` does."""
        if self.open:
            await self._attempt(self._obey(command))

    def receive_nowait(self, data: str | bytes) -> bool:
        """Act on a message if that needs no waiting; False says that it needs `receive`."""
        if not self.lifecycle.connected:
            return True

        microphone = self.microphone
        return (
            microphone is not None
            and isinstance(data, bytes)
            and self.transport.codec == "json"
            and len(data) <= self._hub.limits.audio_bytes
            and microphone.hear_nowait(data)
        )

    def deliver(self, burst: Burst, now: float) -> None:
        """Hand frames to the socket, or to the mailbox if it is busy. Raises SlowConsumer."""
        transport = self.transport
        if transport.writable and not self.egress.waiting:
            transport.write(burst)
            return

        for frame in burst.frames:
            self.egress.send_nowait(frame, now)

        if self.egress:
            self._hub.backlogged.add(self)

    def tell(self, event: AnyEvent) -> None:
        """Send an event to this connection alone."""
        self.send(Burst([Frame(event)]))

    def send(self, burst: Burst) -> None:
        """Send frames to this connection alone; if it is too slow for them, that is its end."""
        try:
            self.deliver(burst, self._hub.clock.monotonic())
        except SessionEnd as end:
            self.close(end.close)

    def refuse(self, refusal: Refused) -> None:
        """Answer a command with an error; one error too many ends the connection."""
        limits, now = self._hub.limits, self._hub.clock.monotonic()
        self._hub.observer.refused(refusal.code)
        self.tell(error_of(refusal))
        if self._patience is None:
            self._patience = Patience(limits, now)

        if close := self._patience.spend(refusal, now):
            self.close(close)

    def close(self, close: Close) -> None:
        """End the connection: status first, flush second, socket third. The first reason wins."""
        self.condemn(close)
        self.depart()

    def condemn(self, close: Close) -> bool:
        """Obey nothing any more, and end the speech; `depart` does the rest. The first wins."""
        if self.open and close.flush:
            self._hub.flush()

        if not self.lifecycle.closed(close):
            return False

        self.ended = self._hub.clock.monotonic()
        if self.microphone is not None:
            self.microphone.leave(close)

        return True

    def depart(self) -> None:
        """Leave the rooms, say goodbye and end the socket, for the reason given. Idempotent."""
        close = self.lifecycle.reason
        if close is None or self._departed:
            return

        self._departed = True
        self._hub.closing(self, close)
        if close.flush:
            self.tell(goodbye(close, self._hub.reconnect_ms()))
        else:
            self.egress.clear()

        self.egress.close()
        self.transport.close(self.farewell(close))

    def farewell(self, close: Close) -> Close:
        """Return the ending as the peer is to see it; a client of another protocol has its own."""
        return close

    def gone(self, code: int) -> None:
        """The socket is gone, with this close code of the peer or 1006: nothing can be sent."""
        self.close((NORMAL if code in (1000, 1001, 1005) else GONE).silent)
        self.egress.clear()
        self._hub.forget(self, self.lifecycle.reason or GONE)

    async def _attempt(self, work: Coroutine[None, None, None]) -> None:
        """Await work and turn whatever it raises into a reply or into the end."""
        try:
            await work
        except Refused as refusal:
            self.refuse(refusal)
        except SessionEnd as end:
            self.close(end.close)
        except Exception:
            log.exception("connection %s: a command failed", self.id)
            self.close(INTERNAL)

    async def _begin(self, command: AnyCommand) -> None:
        try:
            if self._at_once() or await self._turn():
                await self._obey(command)
        except Refused as refusal:
            self.refuse(refusal)
            raise SessionEnd(ending(refusal)) from None

    async def _act(self, data: str | bytes) -> None:
        check_size(data, self._hub.limits)
        codec = self.transport.codec
        if not (holds_audio(data, codec) or self._at_once() or await self._turn()):
            return

        command = decode(data, codec)
        if isinstance(command, bytes):
            await self._speaking().hear(command)
        else:
            await self._obey(command)

    async def _obey(self, command: AnyCommand) -> None:
        """Carry out one command. Raises Refused, with the command's id, or SessionEnd."""
        try:
            match command:
                case Join():
                    await self._hub.join(self, command)
                case Leave():
                    await self._hub.leave(self, command)
                case Publish():
                    await self._hub.publish(self, command)
                case Start():
                    await self._speaking().start(command)
                case Stop():
                    self._speaking().stop(command)
                case Flush():
                    await self._speaking().flush(command)
                case Ping(id=id) if id is not None:
                    self.tell(Ack(id=id, at=self._hub.clock.wall()))
                case Refresh():
                    self._hub.refresh(self, command)
        except Refused as refusal:
            refusal.id = command.id
            raise

    def _at_once(self) -> bool:
        """Whether a command need not wait; no coroutine is made for those that need not."""
        hub = self._hub
        return hub.meters.of(self.principal.tenant).commands.take(1.0, hub.clock.monotonic())

    async def _turn(self) -> bool:
        """Wait while the tenant has had its quota of commands; return whether to go on then."""
        commands = self._hub.meters.of(self.principal.tenant).commands
        await commands.turn(self._hub.clock.monotonic, 1.0)
        return self.open

    def _speaking(self) -> Microphone:
        if self.microphone is None:
            self.microphone = Microphone(self, self._hub)

        return self.microphone
