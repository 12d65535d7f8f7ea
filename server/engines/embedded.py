"""The embedded engine: one decoding process for each speaking stream, forked from a warm zygote.

Its one rule: nothing is buffered here. What the worker has not read is in its socket, whose size
is bounded; when that is full, `send` waits.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from subprocess import DEVNULL

import anyio
from anyio.abc import Process
from anyio.lowlevel import checkpoint

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec, Recognition
from server.engines.zygote import READY, Reports, ask, command, environment, packed

logger = logging.getLogger(__name__)

SUPPORTED: dict[str, list[str] | list[int]] = {
    "encoding": ["pcm_s16le"],
    "rate": [8_000, 16_000, 24_000, 44_100, 48_000],
    "channels": [1, 2],
}
BORN_WITHIN = 5.0
"""Seconds a worker may take to report; then its zygote is taken for stuck and replaced."""
LEAVE_WITHIN = 0.5
"""Seconds a worker has to exit when its stream is left; then it is killed."""
RESTART_AFTER = 0.1
RESTART_AFTER_AT_MOST = 5.0
"""Seconds before a zygote is started again: doubled each time it did not live for HEALTHY."""
HEALTHY = 30.0


class Stream:
    """One open stream to a worker: an `Upstream`. One task may send while another receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.pid = 0
        self.heard = 0.0
        sock.setblocking(False)
        self._sock = sock
        self._out = bytearray()
        self._reports = Reports()
        self._found: deque[Recognition] = deque()
        self._ended = self._done = self._lost = False

    async def send(self, frame: AudioFrame) -> None:
        """Pass audio on; waits while the worker's socket is full. Raises UpstreamLost.

        After a cancellation the frame is passed on whole by the next call, or not at all.
        """
        await checkpoint()
        if self._ended:
            raise anyio.ClosedResourceError

        if frame.data:
            await self._write(frame.data)

    async def end(self) -> None:
        """Say that no more audio comes; repeated calls do nothing. Raises UpstreamLost."""
        await checkpoint()
        await self._write(b"")

    async def receive(self) -> Recognition:
        """Return what was recognized next. Raises anyio.EndOfStream when done, or UpstreamLost."""
        await checkpoint()
        while not self._found:
            if self._done:
                raise anyio.EndOfStream

            await self.progress()

        return self._found.popleft()

    async def aclose(self) -> None:
        """Hang up, and kill the worker if it does not exit; bounded, also under cancellation."""
        with anyio.CancelScope(shield=True), self._sock:
            self._lost = True
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

            if not await self._gone() and self.pid:
                # Its end of the socket is still open, so the pid is still its own.
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

                await self._gone()

    async def _gone(self) -> bool:
        """Return whether the worker has let go of its socket, after waiting for it a little."""
        with anyio.move_on_after(LEAVE_WITHIN):
            while await self._recv():
                pass

            return True

        return False

    async def _write(self, data: bytes) -> None:
        try:
            await self._flush()  # what a cancelled call left
            if not self._ended:
                self._out += packed(data)
                self._ended = not data
                await self._flush()
        except OSError:
            raise self._loss() from None

    async def _flush(self) -> None:
        if self._lost:
            raise self._loss()

        while self._out:
            try:
                sent = self._sock.send(self._out)
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            else:
                del self._out[:sent]

    async def progress(self) -> None:
        """Wait for the worker's next report and keep what it found. Raises UpstreamLost."""
        while (report := self._reports.next()) is None:
            data = b"" if self._lost else await self._recv()
            if not data:
                raise self._loss()

            self._reports.feed(data)

        self.pid, self.heard, self._done = report.pid, report.heard, report.done
        self._found += report.found

    async def _recv(self) -> bytes:
        """Read what the worker wrote; b"" when it is gone."""
        while True:
            try:
                return self._sock.recv(65_536)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except OSError:
                return b""

    def _loss(self) -> UpstreamLost:
        self._lost = True
        return UpstreamLost(f"the embedded engine's worker {self.pid} is gone")


@dataclass(frozen=True)
class Zygote:
    """The running process that forks workers, and the way to ask it."""

    process: Process
    control: socket.socket

    async def fork(self, spec: AudioSpec) -> Stream | None:
        """Return a stream to a worker that has reported, or None if none could be had."""
        async with AsyncExitStack() as stack:
            with suppress(OSError, UpstreamLost), anyio.fail_after(BORN_WITHIN):
                stream = Stream(ask(self.control, spec))
                stack.push_async_callback(stream.aclose)
                await stream.progress()
                stack.pop_all()
                return stream

        return None


class EmbeddedEngine:
    """Pocketsphinx in worker processes: English, offline, no account; see `run`."""

    name = "embedded"

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
        open, UpstreamLost when no worker can be had. Leaving ends the worker within a second.
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
            status = await self._live()
            if anyio.current_time() - born >= HEALTHY:
                pause = RESTART_AFTER

            logger.warning("the embedded engine ended (%s), again in %.1f s", status, pause)
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
                    await anyio.wait_readable(ours)
                    if ours.recv(1) == READY:
                        self._zygote = zygote
                        self._ready.set()

                    return await process.wait()
                finally:
                    self._forget(zygote)

    def _forget(self, zygote: Zygote) -> None:
        if self._zygote is zygote:
            self._zygote = None
            self._ready = anyio.Event()

    async def _warm(self) -> Zygote:
        while self._zygote is None:
            await self._ready.wait()

        return self._zygote

    async def _fork(self, spec: AudioSpec) -> Stream:
        """Return a stream whose worker runs. A zygote that fails to deliver is replaced, once."""
        for _ in range(2):
            zygote = await self._warm()
            stream = await zygote.fork(spec)
            if stream is not None:
                return stream

            self._forget(zygote)
            with suppress(ProcessLookupError):
                zygote.process.kill()

        raise UpstreamLost("the embedded engine could not start a worker")
