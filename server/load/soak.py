"""Clients that come and go, again and again, each in its way, and what they leave behind."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import ClassVar

import msgspec

from server.load.delays import Delays
from server.load.gauges import BACK_WITHIN, read_gauges, read_usage
from server.load.report import Report, plural
from server.load.rooms import Listener, Publisher
from server.load.sockets import WITHIN, Broken, Socket, reason
from server.load.speak import Speaker
from server.load.stage import Stage
from server.load.usage import measured

TURN = 20
"""Cycles in which each way of coming and going has its place."""
CUT, REFUSED, SPEAKS, JOINS = (0, 10), (5,), (15,), (7, 17)
"""Places of the listeners that go without a close frame, as clients do whose network is gone; of
who is not let in; of who speaks; and of who joins two rooms by commands."""
LOST_EVERY = 1000
"""One of so many cycles is a speaker that is lost, and never comes back."""
FRAMES = 10
"""Frames of audio that a speaker sends: enough for a transcript."""
TURNED_AWAY = ("HTTP 400", "HTTP 401", "HTTP 429")
LOOK_EVERY = 0.2
"""Seconds between two looks at gauges that are not back yet."""
MOST_GROWN = 5.0
"""Per cent by which the memory of the server may grow after the first tenth of the cycles."""
WEIGHED_FROM = 100_000
"""Cycles from which on that is held against it: fewer are over before its caches are full."""


class Plan(msgspec.Struct, frozen=True):
    """How much to do."""

    promise: ClassVar[str] = "everybody came, did its part and left, and nothing stays behind"
    cycles: int = 1000
    at_once: int = 50
    """Clients that are there at a time."""
    rooms: int = 4
    rate: float = 50.0
    """Publishes to each room in a second."""
    engine: str = "echo"

    @property
    def connections(self) -> int:
        """Connections at a time."""
        return self.at_once + 1

    def __str__(self) -> str:
        """Say it in words."""
        rooms, cycles = plural(self.rooms, "room"), plural(self.cycles, "cycle")
        return f"{cycles}, {self.at_once} at a time, {rooms} with {self.rate:g} messages/s each"


class Soak:
    """The cycles of one run."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.done = 0
        self.found: Counter[str] = Counter()
        """What went wrong."""
        self.joined = Delays()
        self.rooms = stage.rooms(plan.rooms)
        self.base = 0
        """Bytes of the server's memory after a tenth of the cycles."""
        self._stage, self._plan = stage, plan
        self._ways: dict[int, Callable[[int], Awaitable[None]]] = {
            **dict.fromkeys(REFUSED, self._knock),
            **dict.fromkeys(SPEAKS, self._speak),
            **dict.fromkeys(JOINS, self._join),
        }

    async def run(self) -> None:
        """Do all cycles, while messages are published. Raises Broken or TimeoutError in a group."""
        publisher = await self._stage.target.open(Publisher)
        numbers = iter(range(self._plan.cycles))
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publish(publisher))
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._plan.at_once):
                    workers.create_task(self._work(numbers))

            publishing.cancel()

        if not await publisher.close():
            self.found["did not close as asked"] += 1

    async def _publish(self, publisher: Publisher) -> None:
        began, pause = time.monotonic(), 1 / (self._plan.rate * len(self.rooms))
        for number in itertools.count():
            await asyncio.sleep(began + number * pause - time.monotonic())
            await publisher.drained()
            if publisher.troubles:
                raise Broken(f"a publish failed: {publisher.troubles[0]}")

            publisher.publish(self.rooms[number % len(self.rooms)])

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if self._stage.stopped:
                return

            try:
                await self._ways.get(number % TURN, self._listen)(number)
            except (Broken, OSError, TimeoutError) as error:
                self.found[reason(error)] += 1

            self.done += 1
            self._stage.doing = f"{self.done:,} of {plural(self._plan.cycles, 'cycle')} done"
            if self.done == self._plan.cycles // 10:
                self.base = self._stage.resident()

    async def _listen(self, number: int) -> None:
        """Join a room by the address, hear something and leave."""
        began = time.monotonic_ns()
        listener = await self._stage.target.open(
            lambda: Listener(self.rooms[number % len(self.rooms)])
        )
        try:
            await listener.event("joined")
            self.joined.append(listener.came_at - began)
            async with asyncio.timeout(WITHIN):
                await listener.until(lambda: listener.received > 0)

            await self._leave(listener, cut=number % TURN in CUT)
        finally:
            listener.cut()
            listener.ledger.audit(self.found)

    async def _knock(self, number: int) -> None:
        """Bring a wrong token, or where there is none a wrong name of a room."""
        token = self._stage.target.token
        path = "/v1/connect" if token else "/v1/rooms/no%20room/listen"
        socket = Socket(path)
        socket.head = f"Authorization: Bearer {token}x\r\n" if token else ""
        try:
            await self._stage.target.open(lambda: socket)
        except Broken as broken:
            if not str(broken).startswith(TURNED_AWAY):
                raise
        else:
            self.found["let in with a wrong token"] += 1
            socket.cut()

    async def _speak(self, number: int) -> None:
        """Say something, read it, and stop, or be lost."""
        room = self.rooms[number % len(self.rooms)].name
        speaker = await self._stage.target.open(lambda: Speaker(room, self._plan.engine))
        try:
            await speaker.event("speech", lambda event: event["state"] == "ready")
            speaker.speak(FRAMES)
            if number % LOST_EVERY == SPEAKS[0]:
                return

            await speaker.stop()
            if lost := await speaker.lost_bytes():
                self.found["bytes of audio lost"] += lost

            await self._leave(speaker)
        finally:
            speaker.cut()

    async def _join(self, number: int) -> None:
        """Join two rooms by commands, leave one, and go."""
        socket = await self._stage.target.open(lambda: Socket("/v1/connect"))
        try:
            for each in {number % len(self.rooms), (number + 1) % len(self.rooms)}:
                room = self.rooms[each].name
                socket.latest.clear()
                socket.send({"type": "join", "room": room, "history": 5})
                await socket.event("joined")

            socket.send({"type": "leave", "room": room, "id": 1})
            await socket.event("ack")
            await self._leave(socket)
        finally:
            socket.cut()

    async def _leave(self, socket: Socket, cut: bool = False) -> None:
        if not cut and not await socket.close():
            self.found["did not close as asked"] += 1

        self.found.update(socket.troubles)


async def run(stage: Stage, plan: Plan) -> None:
    """Do the cycles. Raises Broken, OSError or TimeoutError, perhaps in a group."""
    report, before = stage.report, await held(stage)
    resident, soak = stage.resident(), Soak(stage, plan)
    try:
        with measured(stage.process) as usage:
            await soak.run()
    finally:
        report.add(
            "cycles_per_second", soak.done / usage.wall, "cycles", "/s", f"{soak.done:,} in all"
        )
        report.numbers["cycles"] = soak.done
        report.add_usage(usage, soak.done, "cycle")
        report.add_delays("joined", soak.joined, "connect to joined")
        report.add_delays(
            "delay", Delays.merged(each.delays for each in soak.rooms), "publish to arrival"
        )
        report.fail(soak.found)

    stage.doing = "waiting for the gauges"
    await compare(stage, before)
    if resident:
        weigh(report, resident, soak, stage.resident())


async def held(stage: Stage) -> Counter[str]:
    """Return what the server holds, and of it the tenant. Raises OSError or ValueError."""
    url, token = stage.target.http, stage.target.token
    found = await asyncio.to_thread(read_gauges, url)
    found.update(await asyncio.to_thread(read_usage, url, token))
    return found


async def compare(stage: Stage, before: Counter[str]) -> None:
    """See that nothing is left; the server has a moment to notice who is gone."""
    deadline = time.monotonic() + BACK_WITHIN
    after = await held(stage)
    while after - before and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_EVERY)
        after = await held(stage)

    for name in sorted({*before, *after}):
        words = name.replace("_", " ")
        stage.report.add(f"{name}_left", after[name], words, "", f"left; {before[name]} before")

    left = (after - before).items()
    stage.report.fail({f"{name.replace('_', ' ')} left behind": count for name, count in left})


def weigh(report: Report, before: int, soak: Soak, after: int) -> None:
    """Report the memory of the server: before, after a tenth of the cycles, and at the end."""
    report.add("server_mb_before", before / 1e6, "server memory", "MB", "before")
    if not soak.base or not after:
        return

    grown = 100 * (after - soak.base) / soak.base
    report.add("server_mb_base", soak.base / 1e6, "", "MB", "after a tenth of the cycles")
    report.add("server_mb_after", after / 1e6, "", "MB", "at the end")
    report.add("server_grown_percent", grown, "", "%", "more than after a tenth")
    if grown > MOST_GROWN and soak.done >= WEIGHED_FROM:
        report.problems.append(f"the server has grown by {grown:.1f} %")
