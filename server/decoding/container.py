"""The waiting side of a container's decoder: pieces are handed to worker threads and awaited.

    decode -> (thread) feed, work, work ... -> PCM

Its one rule: no thread belongs to a session. A thread works for one while it has bytes to decode,
and there are as many threads as processors; a session that is silent costs its codec's state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import checkpoint

from actors.errors import Refused
from actors.messages import AudioSpec

if TYPE_CHECKING:
    from server.decoding.pipeline import Pipeline

SLICE_BYTES = 320_000
"""PCM after which a thread lets other sessions have their turn: ten seconds, some 20 ms of work."""
AT_ONCE_BYTES = 3_840_000
"""PCM that one call returns, give or take a packet: two minutes. More comes with the next call."""


class ContainerDecoder:
    """Decodes one session's container. Not for several tasks at a time, but `close` may be."""

    def __init__(
        self,
        encoding: str,
        spec: AudioSpec,
        limiter: CapacityLimiter,
        closed: Callable[[], None],
    ) -> None:
        """Decode to PCM of this spec; `closed` is called once, by `close`."""
        self.spec = spec
        """Of the PCM that comes out."""
        self._encoding, self._limiter, self._closed = encoding, limiter, closed
        self._pipeline: Pipeline | None = None
        self._open = True
        self._refused: Refused | None = None

    def decode_nowait(self, data: bytes) -> None:
        """Take nothing: a packet takes as long as it takes to hand it over."""

    async def decode(self, data: bytes) -> bytes:
        """Return the PCM that this much audio completes, at most AT_ONCE_BYTES and a packet.

        Waits for a free thread. Raises Refused("bad_audio"), and then always.
        """
        return await self._run(data, ends=False)

    async def end(self) -> bytes:
        """Return the rest: what AT_ONCE_BYTES cuts off comes with the next call, b"" is the end.

        Raises Refused("bad_audio").
        """
        return await self._run(b"", ends=True)

    def restart(self) -> None:
        """Do nothing: a new header, a cut and a continuation are told apart by the bytes alone."""

    def close(self) -> None:
        """Free everything; a thread that works for this session stops at its next packet."""
        if not self._open:
            return

        self._open = False
        if self._pipeline is not None:
            self._pipeline.stopped = True
            self._pipeline = None

        self._closed()

    async def _run(self, data: bytes, *, ends: bool) -> bytes:
        await checkpoint()
        if self._refused is not None:
            raise self._refused

        pcm = bytearray()
        more = self._open
        while more and len(pcm) < AT_ONCE_BYTES:
            work = partial(self._work, data, ends=ends)
            piece, more = await to_thread.run_sync(work, limiter=self._limiter)
            pcm += piece
            data = b""

        return bytes(pcm)

    def _work(self, data: bytes, *, ends: bool) -> tuple[bytes, bool]:
        """Decode one slice, in a thread; return it, and whether there may be more."""
        # Imported by the first who needs it, and not on the event loop: it takes 70 ms and 17 MB.
        from server.decoding.demux import Malformed
        from server.decoding.pipeline import Pipeline

        if not self._open:
            return b"", False

        pipeline = self._pipeline = self._pipeline or Pipeline(self._encoding)
        try:
            pipeline.feed(data)
            if ends:
                pipeline.end()

            pcm = pipeline.work(SLICE_BYTES)
            more = len(pcm) >= SLICE_BYTES or pipeline.paused
            if ends and not more:
                pcm += pipeline.finish()
        except Malformed as error:
            reason = "".join(each if each.isprintable() else "?" for each in str(error))
            self._refused = Refused("bad_audio", f"the audio is not taken: {reason}", "encoding")
            raise self._refused from None

        return pcm, more and not pipeline.stopped
