"""What the engine needs of the world: Protocols only, so that an adapter is any class that fits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from actors.errors import Close
from actors.log import Position, Recovery, Remembered, Stock
from actors.messages import AudioFrame, AudioSpec, Recognition, RoomEvent
from actors.principal import Principal
from actors.wire import Burst, Codec, Frame


class Transport(Protocol):
    """The socket of one connection, as its actor writes to it.

    A transport that can be written synchronously is `writable` while its buffer is below the high
    water mark, and takes what the mailbox kept once it is writable again. One that must be awaited
    is never `writable`; its own writer takes everything from the mailbox.
    """

    codec: Codec

    @property
    def writable(self) -> bool:
        """Whether `write` may be called now."""

    def write(self, burst: Burst) -> None:
        """Hand over frames; only while writable and with the mailbox empty."""

    def close(self, close: Close) -> None:
        """Send what the mailbox still holds, then the close frame, then hang up. Idempotent."""

    def abort(self) -> None:
        """Cut the connection now. Idempotent."""


class Upstream(Protocol):
    """One open stream to a speech engine."""

    @property
    def heard(self) -> float:
        """Seconds of audio that the engine has worked through."""

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Pass audio on if that needs no waiting; False, and nothing, says that it needs `send`."""

    async def send(self, frame: AudioFrame) -> None:
        """Pass audio on; waits while the engine is busy. Raises UpstreamLost."""

    async def flush(self) -> bool:
        """Ask for the final of what was sent so far.

        True says that `receive` will return a recognition that is marked as `flushed`; False that
        this engine decides alone when a segment ends. Raises UpstreamLost.
        """

    async def end(self) -> None:
        """Say that no more audio comes: the engine flushes, then `receive` ends.

        Raises UpstreamLost.
        """

    async def receive(self) -> Recognition:
        """Return what was recognized next. Raises anyio.EndOfStream at the end, or UpstreamLost."""


class Engine(Protocol):
    """A configured speech engine."""

    name: str
    max_streams: int
    """Streams that may be open at a time; 0 where nothing but the provider bounds them."""
    restarts: int
    """Times that the engine was lost and brought back."""
    abandoned: int
    """Streams that were left and whose code hangs; they still count as open."""
    acknowledges: bool
    """Whether `heard` of its streams is what it says to have heard, not what it was sent."""

    def check(self, spec: AudioSpec) -> None:
        """Raise Refused("unsupported_audio") if this engine cannot take such audio."""

    def open(self, spec: AudioSpec) -> AbstractAsyncContextManager[Upstream]:
        """Open a stream.

        Entering raises Refused("engine_busy") or UpstreamLost; leaving frees it.
        """


class Decoder(Protocol):
    """Turns the encoded audio of one session into 16-bit PCM."""

    spec: AudioSpec
    """Of the PCM that comes out."""

    def decode_nowait(self, data: bytes) -> bytes | None:
        """Return PCM at once if that is cheaper than to hand over; None, always: use `decode`."""

    async def decode(self, data: bytes) -> bytes:
        """Return the PCM that this much audio completes. Raises Refused("bad_audio")."""

    async def end(self) -> bytes:
        """Return the rest, call after call, until nothing is left. Raises Refused("bad_audio")."""

    def restart(self) -> None:
        """The speaker has come back: its recorder may have been started anew."""

    def close(self) -> None:
        """Free everything; callable outside of any task. Idempotent."""


class Decoders(Protocol):
    """What turns encoded audio into PCM."""

    def plan(self, spec: AudioSpec) -> AudioSpec:
        """Return what such audio is decoded to. Raises Refused("unsupported_audio")."""

    def open(self, spec: AudioSpec) -> Decoder | None:
        """Open a decoder; None where the audio is PCM already. Raises Refused."""


class Backplane(Protocol):
    """The rooms' memory, and the way from a publish to every node that has listeners."""

    stock: Stock
    """What tenants keep here."""

    async def publish(self, key: str, event: RoomEvent) -> Position:
        """Store an event at the room's next offset and deliver it. Raises Refused("room_limit")."""

    async def publish_once(self, key: str, event: RoomEvent, once: str) -> Position:
        """Publish, unless that was done under the same `once` in this room lately.

        Returns a Repeated then. Raises Refused("room_limit"), or "overload" if no more can be kept.
        """

    async def repeats(self, key: str, once: str) -> Position | None:
        """Return what publish_once would repeat; None if it would publish or refuse."""

    async def relay(self, key: str, event: RoomEvent) -> None:
        """Deliver an event that is not kept: a partial."""

    async def subscribe(self, key: str) -> None:
        """Begin to deliver a room's events to this node. Raises Refused("room_limit")."""

    async def unsubscribe(self, key: str) -> None:
        """Stop delivering a room's events to this node."""

    async def recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Return what came after `since`, or the `newest` events when `since` is None."""

    async def top(self, key: str) -> Position | None:
        """Return the newest position of a room; None if it has no listener and no history."""

    async def rooms(self, tenant: str) -> list[str]:
        """List the tenant's rooms that have a listener or a history, by key, in any order."""

    async def remembered(self, tenant: str) -> Remembered:
        """Count what the rooms of a tenant remember."""

    async def run(self, deliver: Callable[[str, Frame], None], ready: Callable[[], None]) -> None:
        """Deliver until cancelled; call `ready` once publishes are possible."""

    def sweep(self, now: float) -> None:
        """Forget what has expired by `now` (monotonic seconds)."""


class Authority(Protocol):
    """What knows whom a token speaks for."""

    def renew(self, token: str, address: str) -> Principal:
        """Return whom a token that came from an address speaks for. Raises Refused."""


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds that never jump, for every wait and age."""

    def wall(self) -> float:
        """Unix time in seconds, for stamps in messages only."""


class Observer(Protocol):
    """Told of rare things; gauges and totals are read from `statistics()` instead."""

    def connected(self, kind: str) -> None:
        """A connection of this kind (`speak`, `listen`, `connect`) began."""

    def disconnected(self, kind: str, close: Close, lasted: float) -> None:
        """A connection ended after `lasted` seconds."""

    def refused(self, code: str) -> None:
        """A command or a request was refused with this stable code."""

    def latency(self, stage: str, seconds: float) -> None:
        """A stage (`final`: end of the speech to its publish) took this long."""


Work = Callable[[], Coroutine[None, None, None]]
"""Something to be run in a task of the node."""
