"""The loud tenant: a process that asks a server for ten times what it grants.

It reads lines `KIND PORT SECONDS`, makes that noise, and answers each line with what it got, as
JSON. It runs only when nothing else wants its core, so that what it costs is the server's to pay.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import uvloop

from benchmarks.neighbours.poster import Poster
from server.load.frames import TEXT, pack
from server.load.sockets import Broken, Socket
from server.load.target import Target, allow_files

TENFOLD = 10
CONNECTS = 20
"""Connects a second that one address may make."""
PUBLISHES, BYTES, COMMANDS = 100, 1_048_576, 500
"""Publishes, their bytes, and commands a second that a tenant may make."""
TALKERS = 10
READERS = 8
STALLED = 40
"""Listeners that never read."""
LARGE, LARGER = 60_000, 1_000_000
"""Bytes of a message within the limits, and of one above them."""
REPLAYED, FULL = 300, 1700
"""Messages of the largest replay, and the bytes of one of them."""
PATIENCE = 0.5
"""Seconds to wait for a replay."""
AT_ONCE = 16
"""Requests that may wait for their answer."""
FILES = 2000

Environ = tuple[str, str, Sequence[str]]
"""A good token, a wrong one, and the addresses to come from."""
Kind = Callable[["Loud", float], Awaitable[None]]


class Doorway:
    """Lets all noises together connect ten times as often as their addresses may."""

    def __init__(self, addresses: int) -> None:
        self._pause = 1 / (TENFOLD * CONNECTS * addresses)
        self._following = time.monotonic()

    async def turn(self) -> None:
        """Wait until one more connect is due."""
        self._following = max(self._following + self._pause, time.monotonic())
        await asyncio.sleep(self._following - time.monotonic())


class Loud:
    """The loud tenant in front of one server."""

    def __init__(self, port: int, environ: Environ, doorway: Doorway) -> None:
        token, wrong, sources = environ
        self._doorway = doorway
        self.good, self.bad = Target(port), Target(port)
        self.good.token, self.bad.token = token, wrong
        self.good.sources = self.bad.sources = sources
        self.counts: Counter[str] = Counter()
        """What was asked, and what came of it."""
        self._opened: list[Deaf] = []
        self._number = 0

    async def open(self, path: str = "/v1/connect", target: Target | None = None) -> Deaf:
        """Open a connection, from each address in its turn. Raises Broken or OSError."""
        await self._doorway.turn()
        self._number += 1
        self.counts["connects"] += 1
        try:
            socket = await (target or self.good).open(lambda: Deaf(path), self._number)
        except Broken as broken:
            self.counts[str(broken)] += 1
            raise

        self._opened.append(socket)
        return socket

    async def hold(self, path: str = "/v1/connect") -> Deaf:
        """Open a connection, however often it is refused."""
        while True:
            with suppress(Broken, OSError, TimeoutError):
                return await self.open(path)

            await asyncio.sleep(1 / CONNECTS)

    async def outlast(self, socket: Deaf, until: float) -> None:
        """Wait until a connection is sent away, at most until some time."""
        with suppress(Broken, TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                await socket.until(lambda: False)

    async def repeat(self, rate: float, until: float, act: Callable[[Deaf], None]) -> None:
        """Do something on a connection so many times a second; come back when sent away."""
        socket, coming = await self.hold(), asyncio.ensure_future(asyncio.sleep(0))

        async def come_back() -> None:
            nonlocal socket
            socket = await self.hold()

        def again() -> None:
            nonlocal coming
            if not socket.transport.is_closing():
                act(socket)
            elif coming.done():
                coming = asyncio.ensure_future(come_back())

        await paced(rate, until, again)
        coming.cancel()

    def hang_up(self) -> None:
        """Cut all connections that were opened."""
        for socket in self._opened:
            socket.cut()


class Deaf(Socket):
    """A connection that counts what comes, and hears nothing but its end."""

    received = 0

    def data_received(self, data: bytes) -> None:
        """Read the answer to the upgrade, and drop the rest."""
        if not self.opened:
            super().data_received(data)
            return

        self.received += len(data)
        if b'"type":"closing"' in data:
            self.cut()

        if self._news is not None:
            self._wake()


async def paced(rate: float, until: float, act: Callable[[], None]) -> None:
    """Do something so many times a second; what cannot be done in time is left out."""
    following = time.monotonic()
    while following < until:
        await asyncio.sleep(max(0.0, following - time.monotonic()))
        act()
        following = max(following + 1 / rate, time.monotonic() - 0.1)


async def connects(loud: Loud, until: float, target: Target) -> None:
    """Connect and, if that is let in, leave again."""

    async def one() -> None:
        with suppress(Broken, OSError, TimeoutError):
            (await loud.open(target=target)).cut()

    async def go_on() -> None:
        while time.monotonic() < until:
            await one()

    await asyncio.gather(*[go_on() for _ in range(AT_ONCE)])


async def storm(loud: Loud, until: float) -> None:
    """Connect with good tokens, though the addresses have all their connections."""
    tasks = [asyncio.ensure_future(loud.hold()) for _ in range(50 * len(loud.good.sources))]
    await connects(loud, until, loud.good)
    for task in tasks:
        task.cancel()


async def strangers(loud: Loud, until: float) -> None:
    """Connect with wrong tokens."""
    await connects(loud, until, loud.bad)


async def talk(loud: Loud, until: float, rate: float, size: int) -> None:
    """Publish over several connections, and come back when sent away."""

    async def one(number: int) -> None:
        text = f'{{"type":"publish","room":"loud-{number}","data":"{"x" * size}"}}'
        message = pack(TEXT, text.encode())

        def publish(socket: Deaf) -> None:
            if not socket.paused:
                socket.transport.write(message)
                loud.counts["publishes"] += 1

        await loud.repeat(rate / TALKERS, until, publish)

    await asyncio.gather(*[one(number) for number in range(TALKERS)])


async def publishes(loud: Loud, until: float) -> None:
    """Publish ten times as much as is granted, over WebSockets."""
    await talk(loud, until, TENFOLD * PUBLISHES, 100)


async def large(loud: Loud, until: float) -> None:
    """Publish ten times as many bytes as are granted, and messages above the limits."""
    frame = b"\x81\xff" + LARGER.to_bytes(8, "big") + bytes(4) + b"x" * LARGER

    def larger(socket: Deaf) -> None:
        if not socket.paused:
            socket.transport.write(frame)
            loud.counts["frames of 1 MB"] += 1

    await asyncio.gather(
        talk(loud, until, TENFOLD * BYTES / LARGE, LARGE), loud.repeat(CONNECTS, until, larger)
    )


async def granted(loud: Loud, until: float) -> None:
    """Publish over HTTP what is granted, and no more."""
    poster = Poster(loud.good, "loud", loud.counts)
    await poster.open(0)
    await paced(PUBLISHES, until, lambda: poster.post(100))
    poster.cut()


async def posts(loud: Loud, until: float) -> None:
    """Publish ten times as much as is granted, over HTTP, and bodies above the limits."""
    posters = [Poster(loud.good, f"loud-{number}", loud.counts) for number in range(TALKERS)]
    for number, poster in enumerate(posters):
        await poster.open(number)

    turn = iter(range(sys.maxsize))

    def post() -> None:
        number = next(turn)
        posters[number % TALKERS].post(LARGER if number % 200 == 0 else 100)

    await paced(TENFOLD * PUBLISHES, until, post)
    for poster in posters:
        poster.cut()


async def replays(loud: Loud, until: float) -> None:
    """Join a room for all of its history, leave it, and so on, as fast as it goes."""
    join = b'{"type":"join","room":"history","history":300,"id":1}'
    leave = b'{"type":"leave","room":"history"}'

    async def replay(socket: Deaf) -> None:
        whole = socket.received + REPLAYED * FULL
        socket.transport.write(pack(TEXT, join) + pack(TEXT, leave))
        loud.counts["replays asked for"] += 1
        with suppress(Broken, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await socket.until(lambda: socket.received >= whole)
                loud.counts["replays"] += 1

    async def one() -> None:
        socket = await loud.hold()
        while time.monotonic() < until:
            if socket.transport.is_closing():
                socket = await loud.hold()

            await replay(socket)

    await asyncio.gather(*[one() for _ in range(READERS)])


async def fill(loud: Loud, until: float) -> None:
    """Fill a room's history, within the quotas; this is no noise, but what one of them needs."""
    text = f'{{"type":"publish","room":"history","data":"{"x" * FULL}"}}'
    socket = await loud.hold()
    for number in range(REPLAYED):
        socket.write(pack(TEXT, text.encode()))
        await asyncio.sleep(0 if number < PUBLISHES else 1 / PUBLISHES)


async def stalled(loud: Loud, until: float) -> None:
    """Let listeners that never read wait for large messages, as many as are granted."""

    async def one() -> None:
        while time.monotonic() < until:
            socket = await loud.hold("/v1/rooms/deaf/listen")
            socket.transport.pause_reading()
            loud.counts["stalled listeners"] += 1
            await loud.outlast(socket, until)

    text = f'{{"type":"publish","room":"deaf","data":"{"x" * (BYTES // PUBLISHES)}"}}'
    message = pack(TEXT, text.encode())
    feeding = loud.repeat(PUBLISHES, until, lambda socket: socket.transport.write(message))
    await asyncio.gather(feeding, *[one() for _ in range(STALLED)])


async def joins(loud: Loud, until: float) -> None:
    """Join room after room on each connection, more than a tenant and a connection may."""
    turn = iter(range(sys.maxsize))

    def join(socket: Deaf) -> None:
        if not socket.paused:
            text = f'{{"type":"join","room":"many-{next(turn)}"}}'
            socket.transport.write(pack(TEXT, text.encode()))
            loud.counts["joins"] += 1

    rate = TENFOLD * COMMANDS / TALKERS
    await asyncio.gather(*[loud.repeat(rate, until, join) for _ in range(TALKERS)])


KINDS: dict[str, Kind] = {
    "storm": storm,
    "strangers": strangers,
    "publishes": publishes,
    "granted": granted,
    "posts": posts,
    "large": large,
    "replays": replays,
    "stalled": stalled,
    "joins": joins,
}
LOUD = tuple(kind for kind in KINDS if kind != "granted")
"""Those that ask for more than is granted."""
TOGETHER = {"sockets": tuple(kind for kind in LOUD if kind != "posts"), "all": LOUD}
"""What is made at once, by what that is called."""


async def make(kind: str, port: int, seconds: float) -> dict[str, int]:
    """Make a noise, or several together, for so many seconds; return what came of it."""
    token, wrong, sources = os.environ["NOISE"].split(" ")
    environ = token, wrong, sources.split(",")
    doorway, louds = Doorway(len(environ[2])), list[Loud]()

    async def one(name: str) -> None:
        louds.append(loud := Loud(port, environ, doorway))
        until = time.monotonic() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (fill if name == "fill" else KINDS[name])(loud, until)

    await asyncio.gather(*[one(name) for name in TOGETHER.get(kind, (kind,))])
    for loud in louds:
        loud.hang_up()

    return dict(sum((loud.counts for loud in louds), Counter[str]()))


def main() -> None:
    """Carry out one line after the other."""
    allow_files(FILES)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print("ready", flush=True)
    for line in sys.stdin:
        kind, port, seconds = line.split()
        counts = uvloop.run(make(kind, int(port), float(seconds)))
        print(msgspec.json.encode(counts).decode(), flush=True)


if __name__ == "__main__":
    main()
