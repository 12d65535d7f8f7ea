"""Who is in which room, as those who want to know are told: once a second, and only what changed.

People are counted, not connections: one comes with the first connection and goes with the last. A
speech session counts as one too, so that a speaker who is lost for a moment has not gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from actors.connection import ConnectionActor
from actors.errors import Refused
from actors.messages import Person, Presence, Speaker
from actors.principal import Principal
from actors.wire import Burst, Frame


class Attendance(msgspec.Struct, frozen=True):
    """Somebody in a room."""

    person: Person
    connections: int
    """Connections that have joined it."""
    sessions: int
    """Speech sessions in it."""


class Roll:
    """The people in one room, and how that differs from what was told last."""

    __slots__ = (
        "_before",
        "_counts",
        "_fresh",
        "_most",
        "_notes",
        "_people",
        "_room",
        "_stale",
        "_told",
        "watchers",
    )

    def __init__(self, room: str, most: int) -> None:
        self._room, self._most = room, most
        self._people: dict[str, Person] = {}
        self._counts: Counter[str] = Counter()
        self._before: dict[str, Person | None] = {}
        """Who has come or gone since, and who that was then: None for who was not there."""
        self._stale = False
        """Whether the changes alone do not say it: there were too many."""
        self._told = self._notes = 0
        self._fresh: dict[ConnectionActor, int] = {}
        """Who came in between two tellings, and how many changes there had been by then."""
        self.watchers: set[ConnectionActor] = set()

    def __len__(self) -> int:
        """People in the room."""
        return len(self._people)

    def enter(self, person: Person) -> bool:
        """Count somebody in; return whether that is to be told."""
        self._counts[person.id] += 1
        if person.id in self._people:
            return False

        self._people[person.id] = person
        return self._note(person.id, None)

    def leave(self, person: Person) -> bool:
        """Count somebody out; return whether that is to be told."""
        if self._counts[person.id] > 1:
            self._counts[person.id] -= 1
            return False

        del self._counts[person.id]
        return self._note(person.id, self._people.pop(person.id))

    def watch(self, actor: ConnectionActor) -> Presence:
        """Tell somebody from here on; return what there is to tell at once."""
        if not self.watchers:
            self._before, self._stale, self._told = {}, len(self) > self._most, len(self)

        if self._before or self._stale:
            self._fresh[actor] = self._notes

        self.watchers.add(actor)
        return self._everybody()

    def unwatch(self, actor: ConnectionActor) -> None:
        """Tell somebody no more, if it was told."""
        self.watchers.discard(actor)
        self._fresh.pop(actor, None)

    def news(self) -> list[tuple[Presence, list[ConnectionActor]]]:
        """Return what has changed since this was asked last, and who is to be told.

        What has changed is said of what was told to all. Who came since then has been told
        another thing, and is told everybody again if there was a change.
        """
        event = self._change()
        fresh, self._fresh = self._fresh, {}
        if event is not None and event.kind != "delta":
            return [(event, list(self.watchers))]

        unsure = [each for each, notes in fresh.items() if notes != self._notes]
        news = [(self._everybody(), unsure)] if unsure else []
        if event is not None:
            news.append((event, [each for each in self.watchers if each not in fresh]))

        return news

    def _change(self) -> Presence | None:
        before, self._before = self._before, {}
        stale, told, self._told = self._stale, self._told, len(self)
        self._stale = len(self) > self._most
        if self._stale and told == len(self):
            return None

        if self._stale or stale:
            return self._everybody()

        people = self._people
        joined = [people[each] for each, old in before.items() if not old and each in people]
        left = [old for each, old in before.items() if old and each not in people]
        return self._event("delta", joined, left) if joined or left else None

    def _note(self, name: str, old: Person | None) -> bool:
        """Remember a change, if there is anybody to be told of it."""
        if not self.watchers:
            return False

        self._notes += 1
        if len(self) > self._most or len(self._before) >= 2 * self._most:
            self._before, self._stale = {}, True
        elif not self._stale:
            self._before.setdefault(name, old)

        return True

    def _everybody(self) -> Presence:
        if len(self) > self._most:
            return self._event("count")

        return self._event("snapshot", list(self._people.values()))

    def _event(
        self,
        kind: Literal["snapshot", "delta", "count"],
        joined: Sequence[Person] = (),
        left: Sequence[Person] = (),
    ) -> Presence:
        return Presence(
            room=self._room, kind=kind, members=len(self), joined=tuple(joined), left=tuple(left)
        )


class Attendances:
    """The rolls of the rooms in which somebody has asked; the others cost nothing."""

    def __init__(self, members: Callable[[str], Iterable[ConnectionActor]], most: int) -> None:
        """Take what lists the members of a room, and of how many people each is told of."""
        self._members, self._most = members, most
        self._speaking: dict[str, Counter[Person]] = {}
        """Whose sessions are in a room, by key; as long as there are sessions."""
        self._rolls: dict[str, Roll] = {}
        self._changed: set[str] = set()
        self.kept: Callable[[str, str], bool] = lambda tenant, room: True
        """Says whether presence is kept in a room of a tenant."""

    def check(self, principal: Principal, room: str) -> None:
        """Raise Refused("forbidden") unless somebody may know who is in a room."""
        principal.require(room, "presence")
        if not self.kept(principal.tenant, room):
            setting = f"tenants.{principal.tenant}.presence"
            raise Refused("forbidden", "presence is not kept in this room", "room", setting)

    def watch(self, actor: ConnectionActor, key: str) -> Presence:
        """Tell a member of a room from here on; return what there is to tell at once."""
        roll = self._rolls.get(key)
        if roll is None:
            roll = self._rolls[key] = Roll(key.partition("/")[2], self._most)
            for each in self._members(key):
                roll.enter(_person_of(each))

            for person, sessions in self._speaking.get(key, {}).items():
                for _ in range(sessions):
                    roll.enter(person)

        return roll.watch(actor)

    def joined(self, actor: ConnectionActor, key: str) -> None:
        """A connection has become a member of a room."""
        if key in self._rolls:
            self._enter(key, _person_of(actor))

    def left(self, actor: ConnectionActor, key: str) -> None:
        """A connection is a member of a room no more."""
        roll = self._rolls.get(key)
        if roll is not None:
            roll.unwatch(actor)
            self._leave(key, _person_of(actor))

    def began(self, speaker: Speaker, key: str) -> None:
        """A speech session in a room has begun."""
        person = Person(speaker.id, speaker.name)
        self._speaking.setdefault(key, Counter())[person] += 1
        if key in self._rolls:
            self._enter(key, person)

    def ended(self, speaker: Speaker, key: str) -> None:
        """A speech session in a room has ended."""
        person, speaking = Person(speaker.id, speaker.name), self._speaking[key]
        speaking[person] -= 1
        if not speaking[person]:
            del speaking[person]

        if not speaking:
            del self._speaking[key]

        if key in self._rolls:
            self._leave(key, person)

    def tell(self) -> None:
        """Tell those who want to know what has changed."""
        changed, self._changed = self._changed, set()
        for key in changed:
            roll = self._rolls.get(key)
            for event, watchers in () if roll is None else roll.news():
                burst = Burst([Frame(event)])
                for each in watchers:
                    each.send(burst)

    def sessions(self, key: str) -> int:
        """Count the speech sessions in a room."""
        return sum(self._speaking.get(key, {}).values())

    def people(self, key: str) -> list[Attendance]:
        """List who is in a room, in no order."""
        people: dict[str, Person] = {}
        connections: Counter[str] = Counter()
        sessions: Counter[str] = Counter()
        for each in self._members(key):
            person = _person_of(each)
            people.setdefault(person.id, person)
            connections[person.id] += 1

        for person, count in self._speaking.get(key, {}).items():
            people.setdefault(person.id, person)
            sessions[person.id] += count

        return [Attendance(people[each], connections[each], sessions[each]) for each in people]

    def _enter(self, key: str, person: Person) -> None:
        if self._rolls[key].enter(person):
            self._changed.add(key)

    def _leave(self, key: str, person: Person) -> None:
        roll = self._rolls[key]
        if roll.leave(person):
            self._changed.add(key)

        if not roll:
            del self._rolls[key]


def _person_of(actor: ConnectionActor) -> Person:
    return Person(actor.principal.subject or actor.id, actor.principal.name)
