"""The process: uvicorn with a drain that runs before it cuts anything."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import msgspec
import uvicorn

from server.address import url_of
from server.app import create_app
from server.door import Door
from server.http import HardenedHttp
from server.logs import LogBound
from server.node import Node
from server.protocol import LeanWebSocket
from server.settings import Settings
from server.websocket import HardenedWebSocket

log = logging.getLogger("roomcast.server")

PROTOCOLS = {"lean": LeanWebSocket, "stock": HardenedWebSocket}
CLOSE_FRAMES = 0.2
"""Seconds for the last close frames to leave before the sockets are closed."""


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains its node at the first signal and stops at the second."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._standing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and remember the loop for the signal handler; who comes passes our own door."""
        self._loop = asyncio.get_running_loop()
        await super().startup([])
        make = partial(HardenedHttp, self.config, self.server_state, self.lifespan.state)
        self._door = Door(self._node, make)
        self._standing = self._loop.create_task(self._door.stand(sockets or []))
        gc.collect()
        gc.freeze()  # what was imported stays: a full collection need not look at it again

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGHUP too, as the wish to read again; what took it before does so afterwards."""
        loop = asyncio.get_running_loop()

        def read_again(*_: object) -> None:
            loop.call_soon_threadsafe(self._node.gate.reload)

        with super().capture_signals():
            main = threading.current_thread() is threading.main_thread()
            if not main or not hasattr(signal, "SIGHUP"):
                yield
                return

            before = signal.signal(signal.SIGHUP, read_again)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    async def on_tick(self, counter: int) -> bool:
        """Stop when the node has failed: a process that serves nothing must not look alive."""
        assert self._standing is not None
        if self._standing.done():
            self._standing.result()

        return await super().on_tick(counter) or self._node.failed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, and go on as uvicorn does."""
        assert self._door is not None
        assert self._standing is not None
        self._door.leave()
        await self._standing
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, cut the rest at the second; stop if not started yet."""
        if self._loop is None or not self.started:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain_or_cut)

    def _drain_or_cut(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self._draining.cancel()

    async def _drain(self) -> None:
        drain = self._node.settings.drain
        log.info("draining: %d connections", len(self._node.manager.actors))
        try:
            await self._node.manager.drain(drain.window, drain.within)
            await asyncio.sleep(CLOSE_FRAMES)
        finally:
            self._node.manager.population.cut()
            self.should_exit = True


class StartFailed(Exception):
    """The app did not start; its own error is in the log."""


def serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve on listening sockets until a signal.

    Raises BadSettings or StartFailed, or SystemExit(1) when a bug has ended the node.
    """
    handler = configure_logging()
    app = create_app(settings)
    handler.addFilter(LogBound(app.state.node.metrics.observer.unlogged))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=HardenedHttp,
        ws=PROTOCOLS[settings.server.protocol],
        ws_max_size=2 * max(settings.limits.audio_bytes, settings.limits.text_bytes),
        ws_per_message_deflate=settings.server.deflate,
        ws_ping_interval=settings.server.ping_interval,
        ws_ping_timeout=settings.server.ping_timeout,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    log.info("listening on %s", ", ".join(map(url_of, sockets)))
    try:
        DrainingServer(config, app.state.node).run(sockets)
    except SystemExit:  # uvicorn's way to say so
        raise StartFailed from None

    if app.state.node.failed:
        log.error("stopped by a bug; the log above has its traceback")
        sys.exit(1)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: no text can forge another line or colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)

        return msgspec.json.encode(line).decode()


def configure_logging() -> logging.Handler:
    """Log to standard error: plain lines for a terminal, JSON otherwise."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(plain if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("roomcast").setLevel(logging.INFO)
    # It warns of each malformed request, so anyone could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return handler
