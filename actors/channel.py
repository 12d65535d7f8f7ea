"""A bounded channel of audio that knows what to do when it is full: wait, or let the oldest go."""

from __future__ import annotations

from typing import Literal

import anyio

from actors.messages import AudioFrame
from actors.statistics import ChannelStatistics


class ChannelTally:
    """What the channels of one kind count together; it outlives each of them."""

    __slots__ = ("dropped", "peak", "waited")

    def __init__(self) -> None:
        self.dropped = self.peak = self.waited = 0

    def statistics(self, depth: int, capacity: int) -> ChannelStatistics:
        """Add what waits now, in all channels of the kind."""
        return ChannelStatistics(
            depth=depth,
            capacity=capacity,
            peak=self.peak,
            dropped=self.dropped,
            waited=self.waited,
        )


class AudioChannel:
    """An anyio memory object stream with one writer, one reader and a policy."""

    def __init__(
        self, capacity: int, policy: Literal["block", "drop_oldest"], tally: ChannelTally
    ) -> None:
        self._drops, self._tally = policy == "drop_oldest", tally
        self._tx, self._rx = anyio.create_memory_object_stream[AudioFrame](capacity)
        self._sending = self._ended = False

    @property
    def depth(self) -> int:
        """Frames waiting."""
        return self._tx.statistics().current_buffer_used

    def send_nowait(self, frame: AudioFrame) -> None:
        """Queue a frame. Raises anyio.WouldBlock when full, ClosedResourceError after `end`."""
        self._tx.send_nowait(frame)
        self._tally.peak = max(self._tally.peak, self.depth)

    async def send(self, frame: AudioFrame) -> None:
        """Queue a frame: when full, wait (`block`) or let the oldest go (`drop_oldest`).

        A frame that waits when `end` is called is still taken. Raises ClosedResourceError after
        `end`, that or BrokenResourceError after `close`.
        """
        self._sending = True
        try:
            await anyio.lowlevel.checkpoint()
            await self._send(frame)
        finally:
            self._sending = False
            if self._ended:
                self._tx.close()

    async def receive(self) -> AudioFrame:
        """Wait for the oldest frame. Raises anyio.EndOfStream when all is read after `end`."""
        return await self._rx.receive()

    def end(self) -> None:
        """Take no more; the reader gets what is left, then the end. Idempotent."""
        self._ended = True
        if not self._sending:
            self._tx.close()

    def close(self) -> None:
        """Throw away what is left, and wake a waiting writer. Idempotent."""
        self._tx.close()
        self._rx.close()

    async def _send(self, frame: AudioFrame) -> None:
        try:
            self.send_nowait(frame)
        except anyio.WouldBlock:
            if self._drops:
                self._rx.receive_nowait()
                self._tally.dropped += 1
                self.send_nowait(frame)
            else:
                self._tally.waited += 1
                await self._tx.send(frame)
