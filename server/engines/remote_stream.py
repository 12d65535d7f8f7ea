"""A stream to an engine behind somebody's WebSocket: a dialect says what, this file waits.

Its one rule: it is quick to give up and loses nothing that it has. Any trouble ends the stream with
one exception, after all that was received before it. It runs on asyncio.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.lowlevel import checkpoint

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, Recognition
from server.engines.bell import Bell
from server.engines.dialect import Dialect
from server.engines.link import Link
from server.engines.options import Connection
from server.engines.pace import BURST, RATE, Pace, cost

KEEPALIVE = 3.0
"""Seconds without audio after which a provider is told that the stream is still wanted."""
FLUSHED_WITHIN = 3.0
"""Seconds a provider may take to answer a flush; then what came so far is all."""
WAITING = 256
"""Recognitions that may wait to be read; then the provider is not read either."""


class RemoteStream:
    """One open stream: an `Upstream`. One task may send while another receives."""

    def __init__(self, dialect: Dialect, options: Connection) -> None:
        self._dialect, self._options = dialect, options
        self._link = Link(dialect.address, options, self)
        self._loop = asyncio.get_running_loop()
        self._found: deque[Recognition] = deque()
        self._news, self._room = Bell(self._loop), Bell(self._loop)
        self._opened = self._clear = False
        """`_clear` says that audio may be written now: all conditions in one flag."""
        self._over: Exception | None = None
        """How the stream has ended; raised behind what was found before."""
        self._pace, self._slowed = Pace(RATE, BURST), False
        self._kept = 0.0
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def heard(self) -> float:
        """Seconds of audio that the provider has worked through, or was sent if it never tells."""
        return self._dialect.heard

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Write audio at once if the provider is ready and the buffer below its mark."""
        if not self._clear:
            return False

        data = frame.data
        if data:
            dialect, link = self._dialect, self._link
            link.audio(data)
            dialect.sent(len(data))
            window = dialect.window
            if not link.writable or (window and dialect.unanswered >= window):
                self._clear = False

        return True

    async def send(self, frame: AudioFrame) -> None:
        """Write audio; waits while the buffer is full, up to `send_within`.

        Raises UpstreamLost or Refused. A cancelled call has written nothing.
        """
        await checkpoint()
        if self._dialect.ended:
            raise anyio.ClosedResourceError

        if not self.send_nowait(frame) and frame.data:
            await self._wait_clear()
            self.send_nowait(frame)

    async def flush(self) -> bool:
        """Ask for the final of what was sent; False where the protocol has no word for it.

        Raises UpstreamLost, also where `receive` will raise Refused.
        """
        await checkpoint()
        if not self._dialect.finalize or self._dialect.ended:
            return False

        if self._over is not None:
            raise self._dialect.lost("is gone")

        self._dialect.asked += 1
        self._link.send(self._dialect.finalize)
        self._later(FLUSHED_WITHIN, self._flush_at_last)
        return True

    async def end(self) -> None:
        """Say that no more audio comes; repeated calls do nothing. Raises UpstreamLost, Refused."""
        await checkpoint()
        self._check()
        if self._dialect.ended or self._over is not None:
            return

        self._dialect.ended, self._clear = True, False
        if self._dialect.last is None:
            self._link.hang_up()
        else:
            self._link.send(self._dialect.last)

    async def receive(self) -> Recognition:
        """Return what was recognized next.

        Raises anyio.EndOfStream at the end, UpstreamLost, or the Refused of a provider that accepts
        a stream before it looks at it.
        """
        while not self._found:  # what is there came by a callback: no need to let the loop turn
            if self._over is not None:
                await checkpoint()
                raise self._over.with_traceback(None)

            await self._news.wait()

        if len(self._found) == WAITING // 2 and not self._slowed:
            self._link.resume()

        return self._found.popleft()

    async def connect(self) -> None:
        """Wait until the provider is ready. Raises UpstreamLost or Refused."""
        within = self._options.connect_within
        try:
            with anyio.fail_after(within):
                await self._link.connect(self._dialect.headers, self._dialect.subprotocols)
                while not (self._opened and self._dialect.ready):
                    self._check()
                    await self._news.wait()
        except TimeoutError:
            raise self._dialect.lost(f"did not accept a stream within {within:g} s") from None
        except OSError as error:
            raise self._dialect.lost(f"cannot be reached: {_why(error)}") from None

        if self._dialect.lively:
            self._later(KEEPALIVE, self._keep_alive)

    async def aclose(self) -> None:
        """Hang up; takes a second at most, also under cancellation."""
        self._clear = False
        for timer in self._timers:
            timer.cancel()

        await self._link.aclose()

    def opened(self) -> None:
        """Say what the protocol begins with."""
        self._opened = True
        for text in self._dialect.first:
            self._link.send(text)

        self._update()

    def refused(self, status: int, headers: Mapping[str, str]) -> None:
        """End with what the status means."""
        self._finish(self._dialect.refused(status, headers))

    def message(self, message: str | bytes) -> None:
        """Keep what a message brings."""
        if self._over is not None:
            return

        try:
            found = self._dialect.received(message)
        except (Refused, UpstreamLost) as error:
            self._finish(error)
            return

        self._keep(found)
        self._slow_down(cost(len(message), found))
        if self._dialect.done:
            self._finish(None)
        else:
            self._update()

    def closed(self, code: int, reason: str) -> None:
        """End with what the close code means."""
        self._finish(self._dialect.closed(code, reason))

    def broken(self, why: str) -> None:
        """End with a loss."""
        self._finish(self._dialect.lost(why))

    def resumed(self) -> None:
        """Let who waits write on."""
        self._update()

    async def _wait_clear(self) -> None:
        within = self._options.send_within
        with anyio.move_on_after(within):
            while not self._clear:
                self._check()
                if self._dialect.ended:
                    raise anyio.ClosedResourceError

                await self._room.wait()

            return

        self._finish(self._dialect.lost(f"has taken no audio for {within:g} s"))
        self._check()

    def _update(self) -> None:
        dialect = self._dialect
        self._clear = (
            self._opened
            and dialect.ready
            and not dialect.ended
            and self._over is None
            and self._link.writable
            and not (dialect.window and dialect.unanswered >= dialect.window)
        )
        self._room.ring()
        self._news.ring()

    def _keep(self, found: Sequence[Recognition]) -> None:
        self._found += found
        if len(self._found) >= WAITING:
            self._link.pause()

    def _slow_down(self, amount: float) -> None:
        """Leave a provider that brings too much unread for a while: TCP makes it wait."""
        pause = self._pace.spend(amount, self._loop.time())
        if pause and not self._slowed:
            self._slowed = True
            self._link.pause()
            self._later(pause, self._read_on)

    def _read_on(self) -> None:
        self._slowed = False
        if len(self._found) < WAITING:
            self._link.resume()

    def _finish(self, error: Exception | None) -> None:
        """Settle how the stream ends; the first word counts. None is the orderly end."""
        if self._over is None:
            while error is None and self._dialect.asked:
                self._found += self._dialect.flushed()

            self._over = anyio.EndOfStream() if error is None else error
            self._update()

    def _check(self) -> None:
        """Raise how the stream has ended, unless in order."""
        if self._over is not None and not isinstance(self._over, anyio.EndOfStream):
            raise self._over.with_traceback(None)

    def _flush_at_last(self) -> None:
        if self._dialect.asked and self._over is None:
            self._keep(self._dialect.flushed())
            self._update()

    def _keep_alive(self) -> None:
        if self._over is None and not self._dialect.ended:
            if self._dialect.seconds == self._kept:
                self._link.send(self._dialect.idle())

            self._kept = self._dialect.seconds
            self._later(KEEPALIVE, self._keep_alive)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            call()

        timer = self._loop.call_later(seconds, due)
        self._timers.add(timer)


def _why(error: OSError) -> str:
    """Say why there is no connection; an address of ours is nobody's business."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"

    if isinstance(error, ssl.SSLError):
        return "TLS failed"

    if error.errno is None:
        return "no address of its host answers"

    return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
