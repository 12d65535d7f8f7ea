"""The embedded engine: one decoding process for each speaking stream, forked from a warm zygote.

Its one rule: whatever dies, hangs or runs out here ends one stream at most, never the node. A dead
or stuck zygote is replaced; a shortage in this very process is not the zygote's fault.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from subprocess import DEVNULL

import anyio
from anyio.abc import Process

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec
from server.engines.stream import Stream
from server.engines.zygote import READY, ask, command, environment

logger = logging.getLogger(__name__)

SUPPORTED: dict[str, list[str] | list[int]] = {
    "encoding": ["pcm_s16le"],
    "rate": [8_000, 16_000, 24_000, 44_100, 48_000],
    "channels": [1, 2],
}
LOADED_WITHIN = 30.0
"""Seconds a zygote may take to load the model; then it is taken for stuck and replaced."""
BORN_WITHIN = 5.0
"""Seconds a worker may take to report; then its zygote is taken for stuck and replaced."""
RESTART_AFTER = 0.1
RESTART_AFTER_AT_MOST = 5.0
"""Seconds before a zygote is started again: doubled each time it did not live for HEALTHY."""
HEALTHY = 30.0


@dataclass(frozen=True)
class Zygote:
    """The running process that forks workers, and the way to ask it."""

    process: Process
    control: socket.socket

    async def loaded(self) -> bool:
        """Wait for the model; False if the zygote ended or is too slow. Raises OSError."""
        with anyio.move_on_after(LOADED_WITHIN):
            await anyio.wait_readable(self.control)
            return self.control.recv(1) == READY

        return False

    async def fork(self, spec: AudioSpec) -> Stream:
        """Return a stream to a worker that has reported.

        Raises UpstreamLost if it died before, TimeoutError if it is stuck, any other OSError if the
        zygote cannot be asked.
        """
        async with AsyncExitStack() as stack:
            stream = Stream(ask(self.control, spec))
            stack.push_async_callback(stream.aclose)
            with anyio.fail_after(BORN_WITHIN):
                await stream.progress()

            stack.pop_all()
            return stream

    @property
    def broken(self) -> bool:
        """Whether nobody is at the other end of the control socket."""
        try:
            return not self.control.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def kill(self) -> None:
        """End the process, if it still runs; workers live on."""
        with suppress(ProcessLookupError):
            self.process.kill()


class EmbeddedEngine:
    """Pocketsphinx in worker processes: English, offline, no account; see `run`."""

    name = "embedded"
    acknowledges = True
    abandoned = 0

    def __init__(self, max_streams: int | None = None) -> None:
        """Admit so many streams at a time; by default four for each processor."""
        self.max_streams = max_streams or 4 * (os.cpu_count() or 1)
        self.streams = 0
        """Streams open now, those that still wait for their worker included."""
        self.restarts = 0
        """Times the zygote was started again because it had died."""
        self._zygote: Zygote | None = None
        self._ready = anyio.Event()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and streams open at once."""
        return self._zygote is not None

    async def wait_ready(self) -> None:
        """Wait until the model is loaded; for ever if `run` is not running."""
        await self._warm()

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused("unsupported_audio") unless it is English in PCM of a usual rate."""
        for field, takes in SUPPORTED.items():
            value = getattr(spec, field)
            if value not in takes:
                message = f"the embedded engine takes {field} {takes}, not {value!r}"
                raise Refused("unsupported_audio", message, field=field)

        if not spec.language.lower().startswith("en"):
            message = f"the embedded engine takes English, not {spec.language!r}"
            raise Refused("unsupported_audio", message, field="language")

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[Stream]:
        """Open a stream to a worker of its own; waits while the model is being loaded.

        Raises Refused("unsupported_audio"), Refused("engine_busy") at once when `max_streams` are
        open or this process has no descriptors left, UpstreamLost when no worker can be had.
        Leaving ends the worker within a second.
        """
        self.check(spec)
        if self.streams >= self.max_streams:
            setting = "engines.embedded.max_streams"
            message = f"all {self.max_streams} speech streams are in use; {setting} allows more"
            raise Refused("engine_busy", message, setting=setting)

        self.streams += 1
        try:
            async with aclosing(await self._fork(spec)) as stream:
                yield stream
        finally:
            self.streams -= 1

    async def run(self) -> None:
        """Keep a zygote alive until cancelled; on the way out it is killed and reaped."""
        pause = RESTART_AFTER
        while True:
            born = anyio.current_time()
            try:
                ending = f"status {await self._live()}"
            except OSError as error:  # descriptors or processes have run out, for now
                ending = str(error)

            if anyio.current_time() - born >= HEALTHY:
                pause = RESTART_AFTER

            logger.warning("the embedded engine ended (%s), again in %.1f s", ending, pause)
            await anyio.sleep(pause)
            pause = min(2 * pause, RESTART_AFTER_AT_MOST)
            self.restarts += 1

    async def _live(self) -> int:
        """Start a zygote and stay until it has died; return its exit status."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs, anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    command(theirs.fileno()),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    stderr=None,
                    env=environment(),
                    start_new_session=True,  # Ctrl-C must not reach it before it can ignore it
                    pass_fds=(theirs.fileno(),),
                )

            async with process:
                zygote = Zygote(process, ours)
                try:
                    if await zygote.loaded():
                        self._zygote = zygote
                        self._ready.set()
                        await process.wait()
                finally:
                    self._discard(zygote)

                return await process.wait()

    def _discard(self, zygote: Zygote) -> None:
        zygote.kill()
        if self._zygote is zygote:
            self._zygote = None
            self._ready = anyio.Event()

    async def _warm(self) -> Zygote:
        while self._zygote is None:
            await self._ready.wait()

        return self._zygote

    async def _fork(self, spec: AudioSpec) -> Stream:
        """Return a stream whose worker runs; tried twice, on a zygote that lives and answers."""
        for _ in range(2):
            zygote = await self._warm()
            try:
                return await zygote.fork(spec)
            except (OSError, UpstreamLost) as error:
                if isinstance(error, TimeoutError) or zygote.broken:
                    self._discard(zygote)
                elif isinstance(error, OSError):
                    message = f"no speech stream can be opened now: {error.strerror}"
                    raise Refused("engine_busy", message) from None

        raise UpstreamLost("the embedded engine could not start a worker")
