"""The node: it spawns an actor for each connection, publishes, drains and counts."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from actors.access import Access
from actors.catalog import Catalog
from actors.census import count_channels, count_engine
from actors.commands import Join, Leave, Publish, Refresh
from actors.connection import ConnectionActor
from actors.errors import RATE_LIMITED, RESTART, SLOW_CONSUMER, Close, Refused
from actors.fanout import Fanout
from actors.intake import Tallies
from actors.limits import Limits
from actors.log import Position
from actors.mailbox import Tally
from actors.membership import Membership
from actors.messages import Ack, Transcript
from actors.meter import Meters
from actors.microphone import Kind
from actors.population import Population
from actors.ports import Backplane, Clock, Observer, Transport, Work
from actors.principal import Principal
from actors.publisher import Publisher
from actors.revocation import Revocations
from actors.speech import SpeechSession
from actors.statistics import NodeStatistics
from actors.upkeep import PROBE, Probe, Upkeep
from actors.wire import Frame


class ConnectionManager:
    """The connections of this node, and the hub through which they reach rooms and engines."""

    def __init__(
        self,
        limits: Limits,
        backplane: Backplane,
        catalog: Catalog,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.limits, self.backplane, self.catalog = limits, backplane, catalog
        self.limits_of: Callable[[str], Limits] = lambda tenant: limits
        self.clock, self.observer = clock, observer
        self.meters = Meters(clock.monotonic)
        self.fanout = Fanout(clock, self.meters, limits.presence)
        self.membership = Membership(self.fanout, backplane, limits, clock)
        self.upkeep = Upkeep(limits, backplane, clock, self.fanout)
        self.probe = Probe(backplane, clock)
        self.backlogged = self.upkeep.backlogged
        self.population = Population()
        self.actors = self.population.actors
        self.access = Access(
            self.population, self.membership, self.upkeep, clock, Revocations(limits.revocations)
        )
        self.egress, self.audio = Tally(), Tallies()
        self.publisher = Publisher(backplane, self.meters, clock)
        self.publishes = {"final": 0, "partial": 0}
        self.audio_seconds: defaultdict[str, float] = defaultdict(float)
        self.slow_consumers = 0
        self.draining = False
        self._tasks: TaskGroup | None = None

    @property
    def ready(self) -> bool:
        """Whether connections are welcome: a probe came back lately, and no drain has begun."""
        return not self.draining and self.probe.fresh

    async def run(self, started: Callable[[], None]) -> None:
        """Carry the node until cancelled; call `started` once it serves."""
        begun = anyio.Event()
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self.backplane.run, self._deliver, begun.set)
                await begun.wait()
                upkeep = self.upkeep
                for part in (self.fanout, self.membership, self.probe, upkeep, upkeep.endings):
                    self._tasks.start_soon(part.run)

                started()
        finally:
            self._tasks = None

    @property
    def resume_grace(self) -> float:
        """Seconds for which the session of a lost connection can be resumed."""
        return self.upkeep.resume_grace

    def refuse_while_draining(self) -> None:
        """Take nobody in any more once a drain has begun. Raises Refused("draining")."""
        if self.draining:
            raise Refused("draining", "this node is restarting; come back in a moment")

    def admit(self, principal: Principal, address: str = "") -> None:
        """Say whether one more connection of somebody fits. Raises Refused."""
        self.refuse_while_draining()
        if len(self.actors) >= self.limits.connections:
            message = f"this node has its {self.limits.connections} connections"
            raise Refused("overload", message, "", "limits.connections", 1.0)

        self.meters.of(principal.tenant).admit(principal, address)

    def connect(
        self, kind: Kind, principal: Principal, transport: Transport, address: str = ""
    ) -> ConnectionActor:
        """Make the actor of an accepted connection, and say hello."""
        actor = ConnectionActor(self.new_id(), kind, principal, transport, self)
        return self.welcome(actor, address)

    def welcome(self, actor: ConnectionActor, address: str = "") -> ConnectionActor:
        """Take in the actor of an accepted connection, and say hello.

        Of those that were admitted at the same time some may be too many: they are closed.
        """
        self.population.add(actor)
        self.observer.connected(actor.kind)
        actor.lifecycle.accepted()
        actor.address = address
        over = self.meters.of(actor.principal.tenant).enter(actor.principal, address)
        self.access.greet(actor)
        if over is not None:
            actor.close(RATE_LIMITED.because(over.message, over.retry_after))

        return actor

    async def send_message(
        self, principal: Principal, room: str, data: object, once: str = ""
    ) -> Position:
        """Publish a value to a room of the tenant and return its position. Raises Refused."""
        return await self.publisher.send(principal, room, data, once)

    async def broadcast(self, principal: Principal, data: object, once: str = "") -> list[Position]:
        """Publish a value to all rooms that a grant covers. Raises Refused."""
        return await self.publisher.broadcast(principal, data, once)

    async def publish_final(self, key: str, event: Transcript) -> Position:
        """Store and deliver the final of a segment; return its place in the history."""
        position = await self.backplane.publish(key, event)
        self.publishes["final"] += 1
        return position

    async def publish_partial(self, key: str, event: Transcript) -> None:
        """Deliver a partial, which nobody keeps."""
        await self.backplane.relay(key, event)
        self.publishes["partial"] += 1

    async def drain(self, window: float, within: float) -> None:
        """End every connection in good order: speech first, so that its finals are heard.

        Speech gets half of `within` seconds at most. Closings are spread over at most `window`
        seconds; after `within` seconds the rest is cut.
        """
        self.draining = True
        with anyio.move_on_after(within):
            with anyio.move_on_after(within / 2):
                for session in list(self.upkeep.speaking.values()):
                    session.abandon(self.limits.upstream.end_within)

                await self.population.until(lambda: not self.upkeep.speaking)

            await self.population.close(RESTART.because("this node is restarting"), window)
            await self.population.until(lambda: not self.actors)

        self.population.cut()

    def statistics(self) -> NodeStatistics:
        """Count everything, at one moment of the event loop."""
        return NodeStatistics(
            connections=self.population.count(),
            rooms=len(self.fanout.rooms),
            subscriptions=self.fanout.rooms.size,
            history_events=self.backplane.stock.events,
            history_bytes=self.backplane.stock.bytes,
            history_evicted=self.backplane.stock.evicted,
            channels=count_channels(self.upkeep, self.limits, self.egress, self.audio),
            engines={
                name: count_engine(
                    each, self.upkeep, self.audio_seconds[name], self.audio.losses[name]
                )
                for name, each in self.catalog.engines.items()
            },
            publishes={"message": self.publisher.messages, **self.publishes},
            published_bytes=self.publisher.bytes,
            deliveries=self.fanout.deliveries,
            delivered_bytes=self.fanout.delivered_bytes,
            slow_consumers=self.slow_consumers,
            unheard_bytes=self.audio.unheard_bytes,
            resumable=sum(each.holder is None for each in self.upkeep.speaking.values()),
            ready=self.ready,
            draining=self.draining,
            probe_age=self.probe.age,
        )

    async def join(self, actor: ConnectionActor, command: Join) -> None:
        """Add a connection to a room and replay what it missed. Raises Refused."""
        await self.membership.join(actor, command)

    async def leave(self, actor: ConnectionActor, command: Leave) -> None:
        """Take a connection out of a room. Raises Refused."""
        await self.membership.leave(actor, actor.principal.key(command.room))
        if command.id is not None:
            actor.tell(Ack(id=command.id, at=self.clock.wall(), room=command.room))

    def refresh(self, actor: ConnectionActor, command: Refresh) -> None:
        """Go on with another token of the same subject. Raises Refused."""
        self.access.refresh(actor, command)

    def revoke(self, tenant: str, **named: str) -> int:
        """Close what is live of a tenant's subject, token, key or connection. Raises Refused."""
        return self.access.revoke(tenant, **named)

    async def publish(self, actor: ConnectionActor, command: Publish) -> None:
        """Publish for a connection, and acknowledge it if an id was given. Raises Refused."""
        position = await self.send_message(actor.principal, command.room, command.data)
        if command.id is not None:
            at, epoch, offset = self.clock.wall(), position.epoch, position.offset
            actor.tell(Ack(id=command.id, at=at, room=command.room, epoch=epoch, offset=offset))

    async def reserve(self, key: str) -> None:
        """See that a session may publish to a room. Raises Refused."""
        self.refuse_while_draining()
        await self.backplane.recover(key, None, 0)
        self.meters.of_key(key).check_speaker(key, self.clock.monotonic())

    def check_speaker(self, principal: Principal, room: str) -> None:
        """Say whether one more session of a tenant fits. Raises Refused("quota_exceeded")."""
        meter = self.meters.of(principal.tenant)
        meter.check_speaker(principal.key(room), self.clock.monotonic())

    def resumable(self, session: str, key: str, owner: str) -> SpeechSession:
        """Return a running session of this room and owner. Raises Refused("unknown_session")."""
        return self.upkeep.resumable(session, key, owner)

    def carry(self, session: SpeechSession, run: Work) -> None:
        """Run a session in a task of the node."""
        name, key = session.subject.session, session.subject.key
        meter, presence = self.meters.of_key(key), self.fanout.presence
        meter.begin(session, key)
        presence.began(session.subject.speaker, key)
        self.upkeep.speaking[name] = session

        async def carried() -> None:
            try:
                await run()
            finally:
                del self.upkeep.speaking[name]
                meter.end(session, key, self.clock.monotonic())
                presence.ended(session.subject.speaker, key)
                self.audio_seconds[session.engine.name] += session.seconds
                self.population.changed()

        if self._tasks is None:
            raise RuntimeError("the manager is not running")

        self._tasks.start_soon(carried)

    def flush(self) -> None:
        """Deliver at once what waits for the end of the tick."""
        self.fanout.flush()

    def closing(self, actor: ConnectionActor, close: Close) -> None:
        """Take an ending connection out of every room; it may flush for a while."""
        self.upkeep.leaving.add(actor)
        self.access.forget(actor)
        self.slow_consumers += close.code == SLOW_CONSUMER.code
        self.membership.vacate(self.fanout.leave_all(actor))

    def forget(self, actor: ConnectionActor, close: Close) -> None:
        """The socket is gone: nothing of the connection stays."""
        if actor not in self.actors:
            return

        self.population.discard(actor)
        self.meters.of(actor.principal.tenant).leave(actor.principal, actor.address)
        self.upkeep.leaving.discard(actor)
        self.backlogged.discard(actor)
        self.observer.disconnected(actor.kind, close, self.clock.monotonic() - actor.began)
        self.population.changed()

    def new_id(self) -> str:
        """Make an identifier of 12 characters that nobody can guess."""
        return secrets.token_urlsafe(9)

    def reconnect_ms(self) -> int:
        """Spread those who come back: a second, or so that a third of the arrivals stay free."""
        return max(1000, 1500 * len(self.actors) // (self.limits.arrivals.per_node or 1500))

    def _deliver(self, key: str, frame: Frame) -> None:
        if key == PROBE:
            self.probe.heard()
        else:
            self.fanout.deliver(key, frame)
