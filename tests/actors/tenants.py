"""Two tenants on one node, who try each other's names; and what each of them sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from random import Random

import anyio
import msgspec

from actors.connection import ConnectionActor
from actors.errors import Refused
from actors.messages import Ack, Hello, Joined
from actors.principal import CAPABILITIES, Grant, Principal
from actors.roles import stem_of
from actors.statistics import NodeStatistics
from server.directory import Directory
from server.documents import PageQuery
from tests.actors.node import Node, order, running
from tests.autojump import settle
from tests.fakes import FakeTransport

NAMES = ("acme", "globex")
ROOMS = ("a", "a", "b", "acme", "globex")
SUBJECTS = ("ann", "bob")
"""Who is behind the two connections of a tenant; each tenant has people of these names."""
KINDS = {"all": "*", "some": "a*"}
LASTS = 60.0
"""Seconds for which a token is good."""
NOBODY = "nobody-knows"
"""What stands for a name of the other tenant as long as it has none."""
PAUSES = (0.501, 2.137, 10.211, 40.373)
"""Seconds that are never those of the sweep: who comes first at one moment is nobody's doing."""
_TIMES = re.compile(r'(?<=[ae][ts]":)1[0-9]{9}[0-9.]*')
_PROGRESS = re.compile(r'"received":[0-9]+,"lag":[0-9.e-]+')
"""Audio that came before the engine was ready: of two tasks at one moment either may be first."""
VERBS = {
    "join": 6,
    "publish": 6,
    "start": 4,
    "audio": 4,
    "leave": 2,
    "refresh": 2,
    "stop": 1,
    "vanish": 2,
    "revoke": 1,
    "broadcast": 1,
    "unsubscribe": 2,
    "wait": 2,
}


class Step(msgspec.Struct, frozen=True):
    """One line of a script; which fields count depends on the verb."""

    who: str
    verb: str
    end: int
    room: str
    theirs: bool
    """Whether the name that is used is one of the other tenant."""
    which: float
    """Where that name stands among those that are known, from 0 to 1; negative for none."""
    offset: int


def write(seed: int, length: int) -> list[Step]:
    """Make up a script."""
    chance = Random(seed)
    return [
        Step(
            who=chance.choice(NAMES),
            verb=chance.choices([*VERBS], [*VERBS.values()])[0],
            end=chance.randrange(2),
            room=chance.choice(ROOMS),
            theirs=chance.random() < 0.6,
            which=chance.uniform(-0.5, 1),
            offset=chance.randrange(4),
        )
        for _ in range(length)
    ]


def issue(node: Node) -> None:
    """Issue tokens to the people of every tenant, for all rooms and for some."""
    expires = node.clock.wall() + LASTS
    for tenant, subject, (kind, pattern) in product(NAMES, SUBJECTS, KINDS.items()):
        grants = (Grant(pattern, CAPABILITIES),)
        principal = Principal(tenant, subject, "", subject, expires, grants)
        node.authority.tokens[f"{tenant} {subject} {kind}"] = principal


class Tenant:
    """The connections of one tenant, and every name that it has come to know."""

    def __init__(self, node: Node, name: str) -> None:
        self.name, self._node = name, node
        self._directory = Directory(node.manager)
        self.known: dict[str, list[str]] = {"connection": [], "session": [], "epoch": []}
        self.far: list[FakeTransport] = []
        self.answers: list[object] = []
        self._ends: list[tuple[ConnectionActor, FakeTransport]] = []
        self._read: dict[int, int] = {}
        self._published, self._began = 0, node.clock.wall()
        self._ends = [self._open(end) for end in range(len(SUBJECTS))]

    @property
    def names(self) -> list[str]:
        """Everything that only this tenant should know."""
        return [each for kind in self.known.values() for each in kind]

    async def act(self, step: Step, other: Tenant | None) -> None:
        """Carry out a line; `other` is whose names it may use."""
        if not self._ends[step.end][0].open:
            self._ends[step.end] = self._open(step.end)

        actor, far = self._ends[step.end]
        owner = other if step.theirs else self
        match step.verb:
            case "join":
                epoch = _pick(owner, "epoch", step)
                since = {"since": f"{epoch}:{step.offset}"} if epoch else {"history": step.offset}
                wanted = {"presence": step.offset % 2 > 0, **since}
                await order(actor, "join", id="j", room=step.room, **wanted)
            case "leave":
                await order(actor, "leave", id="l", room=step.room)
            case "publish":
                await order(actor, "publish", id="p", room=step.room, data=self._data())
            case "start":
                session = _pick(owner, "session", step)
                await order(actor, "start", id="s", room=step.room, resume=session)
            case "audio":
                await actor.receive(b"\0" * 640)
            case "stop":
                await order(actor, "stop", id="e")
            case "refresh":
                name = self.name if owner is self else next(n for n in NAMES if n != self.name)
                token = f"{name} {SUBJECTS[step.end]} {[*KINDS][step.offset % 2]}"
                await order(actor, "refresh", id="r", token=token)
            case "vanish":
                far.vanish()
            case "revoke":
                self._revoke(_pick(owner, "connection", step))
            case "unsubscribe":
                self._unsubscribe(step.room, _pick(owner, "connection", step))
            case "broadcast":
                places = await self._node.manager.broadcast(actor.principal, self._data())
                self.answers.append(len(places))

        await settle()
        self.learn()

    def learn(self) -> None:
        """Note the names in what has come."""
        for at, far in enumerate(self.far):
            events = far.got[self._read.get(at, 0) :]
            self._read[at] = len(far.got)
            for event in events:
                for kind, holder in (
                    ("connection", Hello),
                    ("session", Ack),
                    ("epoch", Ack),
                    ("epoch", Joined),
                ):
                    name = getattr(event, kind, None) if isinstance(event, holder) else None
                    if isinstance(name, str) and name not in self.known[kind]:
                        self.known[kind].append(name)

    async def view(self) -> str:
        """Return all that this tenant can see, its names replaced by their order."""
        plane, rooms = self._node.backplane, sorted(await self._node.backplane.rooms(self.name))
        histories = [await plane.recover(key, None, 100) for key in rooms]
        seen = [
            *([*far.got, str(far.closed)] for far in self.far),
            self.answers,
            rooms,
            await self._listings(),
            *(
                [each.top, *(msgspec.Raw(frame.json) for frame in each.frames)]
                for each in histories
            ),
        ]
        text = msgspec.json.encode(seen).decode()
        stems = map(stem_of, self.known["session"])
        names = {*self.names, *stems, *(each.top.epoch for each in histories)}
        for number, name in enumerate(sorted(names, key=text.find)):
            text = text.replace(name, f"<{number}>")

        text = _PROGRESS.sub("", text)
        return _TIMES.sub(lambda time: f"{float(time[0]) - self._began:.3f}", text)

    def _open(self, end: int) -> tuple[ConnectionActor, FakeTransport]:
        principal = self._node.authority.tokens[f"{self.name} {SUBJECTS[end]} all"]
        actor, far = self._node.open(principal)
        self.far.append(far)
        return actor, far

    def _revoke(self, connection: str) -> None:
        """Close a connection by its id, or all of Bob's for good."""
        names = {"connection": connection} if connection else {"subject": "bob"}
        self.answers.append(self._node.manager.revoke(self.name, **names))

    def _unsubscribe(self, room: str, connection: str) -> None:
        """Take a connection out of a room by its id, or all of Bob's."""
        whom = (connection, "" if connection else "bob")
        try:
            self.answers.append(self._directory.unsubscribe(Principal(self.name), room, *whom))
        except Refused as refused:
            self.answers.append(refused.message)

    async def _listings(self) -> list[object]:
        """Return what the listings show, in pages of two, and connections by their age."""
        admin, directory = Principal(self.name), self._directory
        rooms: list[object] = [await directory.rooms(admin, PageQuery())]
        rooms += [directory.presence(admin, room, PageQuery()) for room in sorted({*ROOMS})]
        pages = [directory.connections(admin, PageQuery(limit=2))]
        while pages[-1].next:
            pages.append(directory.connections(admin, PageQuery(pages[-1].next, 2)))

        known = self.known["connection"]
        listed = [each for page in pages for each in page.connections]
        listed.sort(key=lambda each: known.index(each.id))
        ages = [
            msgspec.structs.replace(each, since=round(each.since - self._began, 3))
            for each in listed
        ]
        return [rooms, ages]

    def _data(self) -> str:
        self._published += 1
        return f"{self.name} says {self._published}"


def _pick(owner: Tenant | None, kind: str, step: Step) -> str:
    if step.which < 0:
        return ""

    known = owner.known[kind] if owner is not None else []
    return known[int(step.which * (len(known) - 1))] if known else NOBODY


async def play(script: list[Step], cast: Iterable[str]) -> tuple[list[str], NodeStatistics]:
    """Play a script with those of the cast alone; return what each saw, and the node's counts.

    Time passes as if the others were there.
    """
    async with running() as node:
        node.engine.obliging, node.engine.max_streams = True, 1000
        issue(node)
        tenants = {name: Tenant(node, name) for name in cast}
        for tenant in tenants.values():
            tenant.learn()

        for step in script:
            if step.verb == "wait":
                await anyio.sleep(PAUSES[step.offset])
            elif step.who in tenants:
                other = next((each for name, each in tenants.items() if name != step.who), None)
                await tenants[step.who].act(step, other)

        await settle()
        for tenant in tenants.values():
            tenant.learn()

        views = [await tenant.view() for tenant in tenants.values()]
        names = [set(tenant.names) for tenant in tenants.values()]
        assert len(set().union(*names)) == sum(map(len, names))
        return views, node.manager.statistics()
