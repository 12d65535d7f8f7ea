"""A bounded channel of audio that knows what to do when it is full: wait, or let the oldest go."""

from __future__ import annotations

from collections import deque
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
    """A queue with one writer, one reader and a policy.

    It speaks as an anyio memory object stream does, but what need not wait costs no turn of the
    event loop.
    """

    __slots__ = (
        "_arrived",
        "_capacity",
        "_closed",
        "_drops",
        "_ended",
        "_freed",
        "_most",
        "_sending",
        "_tally",
        "takes",
        "waiting",
    )

    def __init__(
        self, capacity: int, policy: Literal["block", "drop_oldest"], tally: ChannelTally
    ) -> None:
        self._capacity, self._drops, self._tally = capacity, policy == "drop_oldest", tally
        self.waiting: deque[AudioFrame] = deque()
        """What waits, oldest first; only to be asked."""
        self._most = capacity
        self._sending = self._ended = self._closed = False
        self.takes = True
        """Whether a frame would be taken now if none is waiting; only to be asked."""
        self._arrived: anyio.Event | None = None
        self._freed: anyio.Event | None = None

    @property
    def depth(self) -> int:
        """Frames waiting."""
        return len(self.waiting)

    @property
    def open(self) -> bool:
        """Whether a frame would be taken now, be it for the price of the oldest."""
        return self.takes and (self._drops or len(self.waiting) < self._capacity)

    @property
    def sending(self) -> bool:
        """Whether somebody is in `send`."""
        return self._sending

    @property
    def finished(self) -> bool:
        """Whether everything has been read after `end`."""
        return self._ended and not self.waiting and not self._sending

    def send_nowait(self, frame: AudioFrame) -> None:
        """Queue a frame; when full, let the oldest go (`drop_oldest`).

        Raises anyio.WouldBlock when full (`block`), ClosedResourceError after `end`.
        """
        if self._ended or self._closed:
            raise anyio.ClosedResourceError

        self._put(frame)

    async def send(self, frame: AudioFrame) -> None:
        """Queue a frame: when full, wait (`block`) or let the oldest go (`drop_oldest`).

        A frame that waits when `end` is called is still taken. Raises ClosedResourceError after
        `end` or `close`.
        """
        if self._ended or self._closed:
            raise anyio.ClosedResourceError

        self._sending = True
        self._look()
        try:
            await anyio.lowlevel.checkpoint()
            await self._wait_for_room()
            self._put(frame)
        finally:
            self._sending = False
            self._look()
            self._wake_reader()

    def receive_nowait(self) -> AudioFrame:
        """Take the oldest frame. Raises WouldBlock, or EndOfStream when all is read after `end`."""
        if not self.waiting:
            if self._closed or self.finished:
                raise anyio.EndOfStream

            raise anyio.WouldBlock

        frame = self.waiting.popleft()
        if self._freed is not None:
            self._freed.set()

        return frame

    async def receive(self) -> AudioFrame:
        """Take the oldest frame, or wait for one; at most `capacity` are taken without waiting.

        Raises anyio.EndOfStream when all is read after `end`, or after `close`.
        """
        while not (self.waiting or self._closed or self.finished):
            self._arrived = anyio.Event()
            await self._arrived.wait()

        return self.receive_nowait()

    @property
    def held(self) -> bool:
        """Whether it takes nothing for now."""
        return self._capacity == 0

    def hold(self, held: bool) -> None:
        """Let a writer of a `block` channel wait, though there is room; or no more."""
        self._capacity = 0 if held else self._most
        self._look()
        if not held and self._freed is not None:
            self._freed.set()

    def end(self) -> None:
        """Take no more; the reader gets what is left, then the end. Idempotent."""
        self._ended = True
        self._look()
        self._wake_reader()

    def close(self) -> None:
        """Throw away what is left, and wake who waits. Idempotent."""
        self._closed = True
        self._look()
        self.waiting.clear()
        self._wake_reader()
        if self._freed is not None:
            self._freed.set()

    def _look(self) -> None:
        self.takes = not (self._sending or self._ended or self._closed) and (
            self._drops or self._capacity > 0
        )

    def _put(self, frame: AudioFrame) -> None:
        frames = self.waiting
        if len(frames) >= self._capacity:
            if not self._drops:
                raise anyio.WouldBlock

            frames.popleft()
            self._tally.dropped += 1

        frames.append(frame)
        if len(frames) > self._tally.peak:
            self._tally.peak = len(frames)

        if self._arrived is not None:
            self._wake_reader()

    async def _wait_for_room(self) -> None:
        """Wait until a frame fits. Raises ClosedResourceError after `close`."""
        if len(self.waiting) >= self._capacity and not self._drops:
            self._tally.waited += 1
            while len(self.waiting) >= self._capacity:
                self._freed = anyio.Event()
                await self._freed.wait()

        if self._closed:
            raise anyio.ClosedResourceError

    def _wake_reader(self) -> None:
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None
