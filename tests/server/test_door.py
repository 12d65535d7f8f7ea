"""The door of a server over real sockets: who is deaf is cut, who is not comes in, flood or not."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import pytest

from actors.errors import Refused
from server.address import listen
from server.door import AT_ONCE, FLOOD, Door
from server.node import Node
from tests.server.api import settings_of

pytestmark = pytest.mark.anyio
HERE, DEAF = "127.0.0.1", "127.0.0.2"
WITHIN = 5.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Real time, on the loop of a server."""
    return "asyncio", {"use_uvloop": True}


class Greeter(asyncio.Protocol):
    """Says hello, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet with the address that the peer has."""
        known = cast(asyncio.Transport, transport)
        known.write(b"hello " + known.get_extra_info("peername")[0].encode())
        known.close()


class Watched(socket.socket):
    """A listening socket that tells when there was no descriptor for who waited."""

    exhausted: asyncio.Event

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept, and tell."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno == errno.EMFILE:
                self.exhausted.set()

            raise


class Paced(socket.socket):
    """A listening socket that keeps how many connections were taken in one turn of the loop."""

    most = taken = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept, and count."""
        found = super().accept()
        if not self.taken:
            asyncio.get_running_loop().call_soon(setattr, self, "taken", 0)

        self.taken += 1
        self.most = max(self.most, self.taken)
        return found


def node_with_the_deaf() -> Node:
    """Make a node to which one address has been deaf, and long will be."""
    arrivals = {"per_address": 1, "per_address_burst": 1, "refusals_burst": 1}
    node = Node(settings_of(limits={"arrivals": {**arrivals, "refusals_per_address": 1}}))
    for _ in range(100):
        with suppress(Refused):
            node.turnstile.arrive(DEAF, node.manager.clock.monotonic())

    assert node.is_deaf(DEAF)
    return node


@asynccontextmanager
async def standing(
    node: Node, *listening: socket.socket, make: type[Greeter] = Greeter
) -> AsyncIterator[Door]:
    """Let a door stand before sockets; at its end they are still open."""
    door = Door(node, make)
    task = asyncio.create_task(door.stand(listening))
    try:
        yield door
    finally:
        door.leave()
        await task
        for each in listening:
            assert each.fileno() >= 0
            each.close()


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


async def greeting(port: int, source: str = HERE, host: str = "127.0.0.1") -> bytes:
    """Connect from an address and return what is said there; nothing if the connection is cut."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()  # uvloop does not end while a connection does


async def flood(door: Door, port: int) -> None:
    """Connect from the deaf address until that is a flood; each time it is cut."""
    for _ in range(10 * FLOOD):
        assert await greeting(port, DEAF) == b""
        if door.flooded:
            return

    raise AssertionError("no flood")


async def counted(node: Node) -> float:
    """Read the count of connections that were cut."""
    text = (await node.metrics.render())[0].decode()
    line = next(each for each in text.splitlines() if each.startswith("roomcast_connections_cut_t"))
    return float(line.split()[1])


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=2048)


async def test_who_is_not_deaf_comes_in_before_a_flood_in_it_and_after_it(
    listening: socket.socket,
) -> None:
    node, port = node_with_the_deaf(), port_of(listening)
    async with asyncio.timeout(4 * WITHIN), standing(node, listening) as door:
        assert await greeting(port) == b"hello 127.0.0.1"
        await flood(door, port)
        for _ in range(3):
            assert await greeting(port) == b"hello 127.0.0.1"
            assert await greeting(port, DEAF) == b""
            assert door.flooded

        while door.flooded:
            assert await greeting(port) == b"hello 127.0.0.1"

        assert await greeting(port) == b"hello 127.0.0.1"
        assert await greeting(port, DEAF) == b""
        await flood(door, port)
        assert await greeting(port) == b"hello 127.0.0.1"


async def test_a_crowd_in_a_flood_comes_in_whole_and_each_that_is_cut_is_counted(
    listening: socket.socket,
) -> None:
    node, port = node_with_the_deaf(), port_of(listening)
    async with asyncio.timeout(4 * WITHIN), standing(node, listening) as door:
        await flood(door, port)
        before = await counted(node)
        sources = [DEAF, HERE] * AT_ONCE
        said = await asyncio.gather(*(greeting(port, source) for source in sources))
        assert said == [b"", b"hello 127.0.0.1"] * AT_ONCE
        assert await counted(node) == before + AT_ONCE


@pytest.mark.parametrize("source", [HERE, DEAF])
async def test_in_a_flood_others_have_their_turn_after_so_many(source: str) -> None:
    node, paced = node_with_the_deaf(), Paced(socket.AF_INET, socket.SOCK_STREAM)
    paced.bind(("127.0.0.1", 0))
    paced.listen(2048)
    async with asyncio.timeout(4 * WITHIN), standing(node, paced) as door:
        await flood(door, port_of(paced))
        with ExitStack() as crowd:
            for _ in range(AT_ONCE + AT_ONCE // 2):
                address = paced.getsockname()
                crowd.enter_context(socket.create_connection(address, source_address=(source, 0)))

            assert await greeting(port_of(paced)) == b"hello 127.0.0.1"

        assert paced.most == AT_ONCE


async def test_who_is_on_the_way_in_when_the_door_is_left_arrives(
    listening: socket.socket,
) -> None:
    class Last(Greeter):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Greet as the last one."""
            door.leave()
            super().connection_made(transport)

    node, port = node_with_the_deaf(), port_of(listening)
    async with asyncio.timeout(4 * WITHIN), standing(node, listening, make=Last) as door:
        await flood(door, port)
        assert await greeting(port) == b"hello 127.0.0.1"


async def test_who_has_gone_before_it_comes_in_makes_no_work(listening: socket.socket) -> None:
    made = 0

    class Counted(Greeter):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Count."""
            nonlocal made
            made += 1
            super().connection_made(transport)

    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port_of(listening))) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    node = node_with_the_deaf()
    async with asyncio.timeout(4 * WITHIN), standing(node, listening, make=Counted):
        assert await greeting(port_of(listening)) == b"hello 127.0.0.1"
        assert made == 1


async def test_every_socket_is_served_in_a_flood_at_one(listening: socket.socket) -> None:
    node = node_with_the_deaf()
    other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    async with asyncio.timeout(4 * WITHIN), standing(node, listening, other) as door:
        await flood(door, port_of(listening))
        assert await greeting(port_of(other), "::1", "::1") == b"hello ::1"
        assert door.flooded


async def test_who_is_cut_now_and_then_makes_no_flood(listening: socket.socket) -> None:
    node, port = node_with_the_deaf(), port_of(listening)
    async with asyncio.timeout(4 * WITHIN), standing(node, listening) as door:
        for _ in range(FLOOD - 1):
            assert await greeting(port, DEAF) == b""

        assert not door.flooded


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < highest:
        taken.append(os.open("/dev/null", os.O_RDONLY))

    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


async def test_without_a_descriptor_left_who_waits_comes_in_when_there_is_one() -> None:
    node, loop = node_with_the_deaf(), asyncio.get_running_loop()
    watched = Watched(socket.AF_INET, socket.SOCK_STREAM)
    watched.exhausted = asyncio.Event()
    watched.bind(("127.0.0.1", 0))
    watched.listen()
    someone = socket.create_connection(watched.getsockname())
    someone.setblocking(False)
    async with asyncio.timeout(4 * WITHIN):
        with someone:
            with no_descriptor_left():
                door = standing(node, watched)
                await door.__aenter__()
                await watched.exhausted.wait()

            assert await loop.sock_recv(someone, 100) == b"hello 127.0.0.1"
            await door.__aexit__(None, None, None)


async def test_a_flood_at_the_address_of_the_settings_is_one(listening: socket.socket) -> None:
    listening.close()
    node = node_with_the_deaf()
    sockets = listen(node.settings, 0)
    async with asyncio.timeout(4 * WITHIN), standing(node, *sockets) as door:
        await flood(door, port_of(sockets[0]))
        assert await greeting(port_of(sockets[0])) == b"hello 127.0.0.1"
