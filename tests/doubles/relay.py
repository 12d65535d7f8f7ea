"""A TCP relay that can go silent: what lies behind it is gone, and nobody is told."""

from __future__ import annotations

import asyncio

from tests.doubles.background import Background


class Relay(Background):
    """Passes bytes on to a port of the loopback address, until it is told to pass none."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._behind = port
        self._open: set[asyncio.StreamWriter] = set()

    def silence(self) -> None:
        """Pass nothing on any more, in either direction, and close nothing."""
        self.call(self._silent.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until stopped; then cut everything."""
        self._silent = asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        self.ready()
        await stop.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        self._open |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self._silent.is_set():
                    return

                writer.write(data)
        except OSError:
            pass

        if not self._silent.is_set():
            writer.close()
