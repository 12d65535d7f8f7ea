"""The server's side of one worker: audio goes in, recognitions come out.

Its one rule: nothing is buffered here. What the worker has not read is in its socket, whose size
is bounded; when that is full, `send` waits.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from actors.errors import UpstreamLost
from actors.messages import AudioFrame, Recognition
from server.engines import zygote
from server.engines.zygote import LENGTH, Reports, packed

END = packed(b"")
FLUSH = LENGTH.pack(zygote.FLUSH)
LEAVE_WITHIN = 0.5
"""Seconds a worker has to exit when its stream is left; then it is killed."""


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

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Take nothing: a worker that decodes for milliseconds is worth a task's turn."""
        return False

    async def send(self, frame: AudioFrame) -> None:
        """Pass audio on; waits while the worker's socket is full. Raises UpstreamLost.

        After a cancellation the frame is passed on whole by the next call, or not at all.
        """
        await checkpoint()
        if self._ended:
            raise anyio.ClosedResourceError

        if frame.data:
            await self._write(packed(frame.data))

    async def flush(self) -> bool:
        """Ask for the final of what was said so far. Raises UpstreamLost."""
        await checkpoint()
        if self._ended:
            return False

        await self._write(FLUSH)
        return True

    async def end(self) -> None:
        """Say that no more audio comes; repeated calls do nothing. Raises UpstreamLost."""
        await checkpoint()
        await self._write(END)

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

    async def _write(self, message: bytes) -> None:
        try:
            await self._flush()  # what a cancelled call left
            if not self._ended:
                self._out += message
                self._ended = message == END
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
