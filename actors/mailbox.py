"""The bounded egress of one connection: what its socket could not take yet.

Finals and messages wait in order; a newer partial takes the place of an older one of its segment,
and a final takes its segment's partial away. Past a bound in count, bytes or age the reader is
too slow and is cut off rather than fed late.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import anyio
import msgspec
from anyio import EndOfStream, WouldBlock

from actors.errors import SLOW_CONSUMER, SessionEnd
from actors.limits import Egress
from actors.statistics import ChannelStatistics
from actors.wire import Codec, Frame


class Tally:
    """What the mailboxes of a node count together; it outlives each of them."""

    __slots__ = ("conflated", "dropped", "peak")

    def __init__(self) -> None:
        self.conflated = self.dropped = self.peak = 0

    def statistics(self, waiting: Sequence[MailboxStatistics], capacity: int) -> ChannelStatistics:
        """Add what waits now, in all mailboxes that hold something."""
        return ChannelStatistics(
            depth=sum(box.depth for box in waiting),
            bytes=sum(box.bytes for box in waiting),
            capacity=capacity,
            peak=self.peak,
            dropped=self.dropped,
            conflated=self.conflated,
        )


class SlowConsumer(SessionEnd):
    """The mailbox is past one of its bounds."""

    def __init__(self, bound: str, value: float, limit: float) -> None:
        super().__init__(
            SLOW_CONSUMER.because(
                f"{bound} waiting for this connection reached {value:g}, limit {limit:g}"
                f" (limits.egress.{bound}); resume from the last offset"
            )
        )


class MailboxStatistics(msgspec.Struct, frozen=True):
    """A mailbox at one moment."""

    depth: int
    """Events waiting."""
    bytes: int
    """Bytes of the events waiting."""


class Mailbox:
    """An ordered, conflating channel with three bounds and one reader."""

    __slots__ = (
        "_arrived",
        "_bytes",
        "_closed",
        "_codec",
        "_limits",
        "_serial",
        "_tally",
        "waiting",
    )

    def __init__(self, limits: Egress, codec: Codec, tally: Tally) -> None:
        self._limits, self._codec, self._tally = limits, codec, tally
        self.waiting: OrderedDict[str | int, tuple[Frame, float]] | None = None
        """What waits and since when, oldest first; false when nothing does. Only to be asked."""
        self._bytes = self._serial = 0
        self._closed = False
        self._arrived: anyio.Event | None = None

    def __len__(self) -> int:
        """Events waiting."""
        return len(self.waiting) if self.waiting else 0

    def send_nowait(self, frame: Frame, now: float) -> None:
        """Queue a frame. Raises SlowConsumer past a bound; a partial is dropped instead.

        After `close` nothing is taken: the frame is dropped.
        """
        size = len(frame.encoded(self._codec))
        if self._closed or (not self._conflate(frame, size) and self._lacks_room(frame, size, now)):
            self._tally.dropped += 1
            return

        self._wake()

    def receive_nowait(self) -> Frame:
        """Take the oldest frame. Raises WouldBlock when empty, EndOfStream when closed too."""
        if not self.waiting:
            if self._closed:
                raise EndOfStream

            raise WouldBlock

        _, (frame, _) = self.waiting.popitem(last=False)
        self._bytes -= len(frame.encoded(self._codec))
        return frame

    async def receive(self) -> Frame:
        """Wait for the oldest frame and take it. Raises EndOfStream when empty and closed."""
        await anyio.lowlevel.checkpoint()
        while not self.waiting and not self._closed:
            self._arrived = anyio.Event()
            await self._arrived.wait()

        return self.receive_nowait()

    def overdue(self, now: float) -> SlowConsumer | None:
        """Return the reason to cut the reader off if the oldest frame has waited too long."""
        if not self.waiting:
            return None

        age = now - next(iter(self.waiting.values()))[1]
        return SlowConsumer("age", age, self._limits.age) if age > self._limits.age else None

    def statistics(self) -> MailboxStatistics:
        """Count what is waiting."""
        return MailboxStatistics(len(self), self._bytes)

    def clear(self) -> None:
        """Throw away what is waiting."""
        self._tally.dropped += len(self)
        self.waiting, self._bytes = None, 0

    def close(self) -> None:
        """Take no more; the reader gets what is left, then the end. Idempotent."""
        self._closed = True
        self._wake()

    def _conflate(self, frame: Frame, size: int) -> bool:
        """Put a newer partial in the place of the older one; drop a partial whose final is here."""
        segment = frame.segment
        if segment is None or not self.waiting or segment not in self.waiting:
            return False

        older, since = self.waiting[segment]
        grown = self._bytes - len(older.encoded(self._codec)) + size
        if frame.partial and older.partial and grown > self._limits.bytes:
            self._tally.dropped += 1
            return True

        self._tally.conflated += frame.partial or older.partial
        if not older.partial:
            return frame.partial

        if frame.partial:
            self.waiting[segment] = (frame, since)
            self._bytes = grown
        else:
            del self.waiting[segment]
            self._bytes = grown - size

        return frame.partial

    def _lacks_room(self, frame: Frame, size: int, now: float) -> bool:
        """Queue the frame at the end, or say that it is a partial for which there is no room."""
        slow = self.overdue(now) or self._overfull(size)
        if slow and frame.partial:
            return True

        if slow:
            raise slow

        if self.waiting is None:
            self.waiting = OrderedDict()

        self._serial += 1
        segment = frame.segment
        key = self._serial if segment is None or segment in self.waiting else segment
        self.waiting[key] = (frame, now)
        self._bytes += size
        self._tally.peak = max(self._tally.peak, len(self.waiting))
        return False

    def _overfull(self, size: int) -> SlowConsumer | None:
        if len(self) >= self._limits.messages:
            return SlowConsumer("messages", len(self) + 1, self._limits.messages)

        if self._bytes + size > self._limits.bytes:
            return SlowConsumer("bytes", self._bytes + size, self._limits.bytes)

        return None

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None
