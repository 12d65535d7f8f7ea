"""The connections of a node: who is here, and how all of them leave."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, KeysView, Mapping

import anyio

from actors.connection import ConnectionActor
from actors.errors import Close

log = logging.getLogger("roomcast.connection")

PAUSE = 0.005
"""Seconds between two endings of many, at most."""

AT_ONCE = 4
"""Endings of many in one turn of the loop: each takes 50 us, for which everybody else waits."""

_NOBODY: Mapping[str, ConnectionActor] = {}


class Population:
    """Every connection, those that are still flushing among them."""

    def __init__(self) -> None:
        self.actors: set[ConnectionActor] = set()
        self._tenants: dict[str, dict[str, ConnectionActor]] = {}
        """The same by tenant and by id; a tenant without any leaves no trace."""
        self._changed = anyio.Event()

    def add(self, actor: ConnectionActor) -> None:
        """Count a connection among those of its tenant."""
        self.actors.add(actor)
        self._tenants.setdefault(actor.principal.tenant, {})[actor.id] = actor

    def discard(self, actor: ConnectionActor) -> None:
        """Forget a connection that was added."""
        tenant = actor.principal.tenant
        self.actors.discard(actor)
        del self._tenants[tenant][actor.id]
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    @property
    def tenants(self) -> KeysView[str]:
        """The tenants that have a connection; do not keep it."""
        return self._tenants.keys()

    def of(self, tenant: str) -> Mapping[str, ConnectionActor]:
        """Return the connections of a tenant by id; do not keep it."""
        return self._tenants.get(tenant, _NOBODY)

    def changed(self) -> None:
        """Wake those who wait: a connection or a session has ended."""
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until this holds; asked again whenever a connection or a session has ended."""
        while not done():
            if self._changed.is_set():
                self._changed = anyio.Event()

            await self._changed.wait()

    async def close(self, close: Close, window: float) -> None:
        """End every connection in good order, spread over at most `window` seconds."""
        actors = list(self.actors)
        pause = min(PAUSE, window / max(1, len(actors)))
        for actor in actors:
            if actor in self.actors:
                actor.close(close)
                await anyio.sleep(pause)

    def cut(self) -> None:
        """Cut every connection that is left."""
        for actor in list(self.actors):
            actor.transport.abort()

    def count(self) -> dict[tuple[str, str], int]:
        """Count the connections by state and kind."""
        return dict(
            Counter((("connected" if each.open else "draining"), each.kind) for each in self.actors)
        )


class Endings:
    """Ends many connections, a few in each turn: it holds each that is left once."""

    def __init__(self) -> None:
        self._left: deque[ConnectionActor] = deque()
        self._told = anyio.Event()

    def end(self, endings: Iterable[tuple[ConnectionActor, Close]]) -> None:
        """Obey none of them any more; the first few depart at once, the others soon."""
        condemned = [actor for actor, close in endings if actor.condemn(close)]
        for actor in condemned[:AT_ONCE]:
            _let_depart(actor)

        self._left += condemned[AT_ONCE:]
        if self._left:
            self._told.set()

    async def run(self) -> None:
        """Let depart who is left, until cancelled."""
        while True:
            await self._told.wait()
            self._told = anyio.Event()
            while self._left:
                for _ in range(min(AT_ONCE, len(self._left))):
                    _let_depart(self._left.popleft())

                await anyio.lowlevel.checkpoint()


def _let_depart(actor: ConnectionActor) -> None:
    try:
        actor.depart()
    except Exception:  # it must not be the end of the node
        log.exception("connection %s: its end failed", actor.id)
