"""Where every connection comes in, from the listening sockets to its own protocol.

Who stays comes in cheapest through the event loop. In a flood of connections that are cut they are
taken by hand instead, many at a time: half of what such a one costs is the turn of the loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import cast

from server.address import BACKLOG
from server.node import Node

FLOOD = 100
"""Connections cut in a second that are a flood."""
REST = 0.005
"""Seconds between two times that connections are taken in a flood; so long may who comes wait."""
AT_ONCE = 100
"""Connections that are taken at a time from one socket; the others stay with the kernel."""


class Door(asyncio.Protocol):
    """Cuts the connections of addresses that are deaf to refusals, and lets all others in.

    It is the first protocol of every connection, and keeps nothing of any.
    """

    def __init__(self, node: Node, make: Callable[[], asyncio.Protocol]) -> None:
        """Let in to protocols that are made so."""
        self._node, self._make = node, make
        self._over = False
        self._cuts = 0
        self._since = node.manager.clock.monotonic()
        self._flood = asyncio.Event()

    @property
    def flooded(self) -> bool:
        """Whether connections are taken by hand, as so many are cut."""
        return self._flood.is_set()

    async def stand(self, sockets: Sequence[socket.socket]) -> None:
        """Take what comes to listening sockets, which stay the caller's, until `leave`."""
        for each in sockets:
            each.setblocking(False)

        while not self._over:
            try:
                await self._take_by_loop(sockets)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise

            await self._take_by_hand(sockets)
            self._flood.clear()

    def leave(self) -> None:
        """Let nobody in any more; who is on the way in arrives."""
        self._over = True
        self._flood.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who is there; who has no address has gone."""
        peer = transport.get_extra_info("peername")
        if peer is None or self._cuts_off(peer[0]):
            cast(asyncio.Transport, transport).abort()
            return

        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _cuts_off(self, address: str) -> bool:
        if not self._node.is_deaf(address):
            return False

        now = self._node.manager.clock.monotonic()
        if now >= self._since + 1:
            self._since, self._cuts = now, 0

        self._cuts += 1
        if self._cuts >= FLOOD:
            self._flood.set()

        return True

    async def _take_by_loop(self, sockets: Sequence[socket.socket]) -> None:
        """Let the loop take what comes until there is a flood. Raises OSError."""
        loop, servers = asyncio.get_running_loop(), []
        try:
            for each in sockets:
                mine = each.dup()  # a server closes its own
                servers.append(await loop.create_server(lambda: self, sock=mine, backlog=BACKLOG))

            await self._flood.wait()
        finally:
            for server in servers:
                server.close()

    async def _take_by_hand(self, sockets: Sequence[socket.socket]) -> None:
        """Take what comes until a second has passed without a flood."""
        monotonic = self._node.manager.clock.monotonic
        until = monotonic() + 1
        while monotonic() < until and not self._over:
            async with asyncio.TaskGroup() as tasks:
                for each in sockets:
                    for known in self._waiting(each):
                        tasks.create_task(self._let_in(known))

            await asyncio.sleep(REST)
            if self._cuts >= FLOOD:
                self._cuts, until = 0, monotonic() + 1

    def _waiting(self, listening: socket.socket) -> Iterator[socket.socket]:
        """Yield who waits at a socket and is not cut."""
        with suppress(OSError):  # there is nobody, or no descriptor left: there may be next time
            for _ in range(AT_ONCE):
                found, peer = listening.accept()
                if self._cuts_off(peer[0]):
                    found.close()
                else:
                    yield found

    async def _let_in(self, found: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        found.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._make, found)
        except OSError:  # it has gone
            found.close()
