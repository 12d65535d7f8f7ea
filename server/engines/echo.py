"""The echo engine: a final for each second of audio and a partial each 200 ms, whatever is said.

Deterministic and nearly free, for tests and load runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec, Recognition, Word

STEPS = 5
"""Recognitions for each second of audio: four partials and a final."""
WAITING = 64
"""Recognitions that may wait to be read; then `send` waits too."""


class EchoStream:
    """One stream: it counts the bytes and answers by the second."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._bytes = self._step = self._began = self._segment = self._revision = 0
        self._ended = False
        self._tx, self._rx = anyio.create_memory_object_stream[Recognition](WAITING)

    @property
    def heard(self) -> float:
        """Seconds of audio counted."""
        return self._bytes / self._rate

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Count a frame that calls for no answer."""
        counted = self._bytes + len(frame.data)
        if counted * STEPS >= (self._step + 1) * self._rate or self._ended:
            return False

        self._bytes = counted
        return True

    async def send(self, frame: AudioFrame) -> None:
        """Count a frame; waits while nobody reads the answers. Raises UpstreamLost."""
        self._bytes += len(frame.data)
        while self._bytes * STEPS >= (self._step + 1) * self._rate:
            step = self._step + 1
            await self._answer(step, final=step % STEPS == 0)
            self._step = step

    async def flush(self) -> bool:
        """Turn the last partial into a final; the rest of its second makes another one."""
        if self._step > self._began:
            await self._answer(self._step, final=True, flushed=True)
        else:
            at = self._step / STEPS
            await self._say(Recognition(self._segment, 0, True, "", at, at, flushed=True))

        return True

    async def end(self) -> None:
        """Turn the last partial into a final, and say no more; repeated calls do nothing.

        Raises UpstreamLost.
        """
        if self._ended:
            return

        self._ended = True
        if self._step > self._began:
            await self._answer(self._step, final=True)

        self._tx.close()

    async def receive(self) -> Recognition:
        """Return the next answer. Raises anyio.EndOfStream at the end."""
        return await self._rx.receive()

    def close(self) -> None:
        """Throw away what was not read."""
        self._tx.close()
        self._rx.close()

    async def _answer(self, step: int, final: bool, flushed: bool = False) -> None:
        """Say what was heard since the segment began."""
        second, part = divmod(step - 1, STEPS)
        start, end = self._began / STEPS, step / STEPS
        texts = (
            ("echo", str(second + 1)) if final else ("echo", str(second + 1), f"part {part + 1}")
        )
        width = (end - start) / len(texts)
        words = tuple(
            Word(text, start + width * n, min(end, start + width * (n + 1)), 1.0)
            for n, text in enumerate(texts)
        )
        text = " ".join(texts)
        await self._say(
            Recognition(self._segment, self._revision, final, text, start, end, words, flushed)
        )
        if final:
            self._segment, self._revision, self._began = self._segment + 1, 0, step
        else:
            self._revision += 1

    async def _say(self, answer: Recognition) -> None:
        try:
            await self._tx.send(answer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise UpstreamLost("the echo stream has been left") from None


class EchoEngine:
    """Opens echo streams, up to a number."""

    name = "echo"
    restarts = 0
    abandoned = 0
    acknowledges = True

    def __init__(self, max_streams: int) -> None:
        self.max_streams = max_streams
        self.streams = 0

    def check(self, spec: AudioSpec) -> None:
        """Take 16-bit PCM of any rate from 8 to 48 kHz, mono or stereo."""
        if spec.encoding != "pcm_s16le":
            raise Refused("unsupported_audio", "the encoding must be pcm_s16le", "encoding")

        if not 8000 <= spec.rate <= 48000:
            raise Refused("unsupported_audio", "the rate must be 8000 to 48000", "rate")

        if spec.channels not in (1, 2):
            raise Refused("unsupported_audio", "the channels must be 1 or 2", "channels")

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[EchoStream]:
        """Open a stream. Raises Refused("engine_busy")."""
        if self.streams >= self.max_streams:
            setting = "engines.echo.max_streams"
            message = f"all {self.max_streams} echo streams are in use; {setting} allows more"
            raise Refused("engine_busy", message, setting=setting)

        self.streams += 1
        stream = EchoStream(spec.bytes_per_second)
        try:
            yield stream
        finally:
            stream.close()
            self.streams -= 1
