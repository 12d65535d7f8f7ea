"""Stand-ins for what lies behind the ports; the contracts prove that they behave like the real."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TypeVar

import anyio
import msgspec

from actors.connection import ConnectionActor
from actors.errors import Close, Refused, UpstreamLost
from actors.intake import Tallies
from actors.limits import History, Limits
from actors.log import Position, Recovery
from actors.messages import (
    AnyEvent,
    AudioFrame,
    AudioSpec,
    Recognition,
    RoomEvent,
    Transcript,
    Word,
)
from actors.ports import Clock, Observer
from actors.principal import Principal
from actors.wire import Burst, Codec, Frame
from server.backplanes.memory import MemoryBackplane
from tests.autojump import settle

Kind = TypeVar("Kind")
EPOCH = 1_700_000_000.0
events: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
packed_events: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)


class FakeClock:
    """Time of the running loop, counted from a moment of 2023 by the wall clock."""

    def monotonic(self) -> float:
        """Return the loop's (virtual) time."""
        return anyio.current_time()

    def wall(self) -> float:
        """Return that moment and the loop's time."""
        return EPOCH + anyio.current_time()


class HandClock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time that was set."""
        return self.now

    def wall(self) -> float:
        """Return the time that was set, long after 1970."""
        return EPOCH + self.now


class FakeAuthority:
    """Knows the tokens that the test has issued."""

    def __init__(self) -> None:
        self.tokens: dict[str, Principal] = {}
        self.addresses: list[str] = []
        """Where the tokens that were looked at came from."""

    def renew(self, token: str, address: str) -> Principal:
        """Return whose token it is."""
        self.addresses.append(address)
        if token not in self.tokens:
            raise Refused("unauthorized", "this is no token", "token")

        return self.tokens[token]


class FakeObserver:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.ended: list[int] = []
        self.refusals: list[str] = []
        self.latencies: list[float] = []

    def connected(self, kind: str) -> None:
        """Remember a connection."""
        self.opened.append(kind)

    def disconnected(self, kind: str, close: Close, lasted: float) -> None:
        """Remember an ending."""
        self.ended.append(close.code)

    def refused(self, code: str) -> None:
        """Remember a refusal."""
        self.refusals.append(code)

    def latency(self, stage: str, seconds: float) -> None:
        """Remember a duration."""
        self.latencies.append(seconds)


class FakeTransport:
    """A socket in memory, written synchronously; `stall` fills its buffer, `resume` drains it."""

    def __init__(self, codec: Codec = "json") -> None:
        self.codec: Codec = codec
        self.actor: ConnectionActor | None = None
        self.got: list[AnyEvent] = []
        self.closed: Close | None = None
        self.aborted = False
        self._stalled = False
        self._closing: Close | None = None

    @property
    def writable(self) -> bool:
        """Whether the far end reads and nobody has hung up."""
        return not self._stalled and self._closing is None

    def write(self, burst: Burst) -> None:
        """Put the frames where the far end sees them."""
        assert self.writable
        self.got += [self._decode(frame) for frame in burst.frames]

    def close(self, close: Close) -> None:
        """Hang up as soon as the mailbox is empty."""
        if self._closing is None:
            self._closing = close
            self._pump()

    def abort(self) -> None:
        """Cut the line."""
        if not self.aborted:
            self.aborted = True
            self._gone(1006)

    def stall(self) -> None:
        """Let the far end stop reading."""
        self._stalled = True

    def resume(self) -> None:
        """Let the far end read again."""
        self._stalled = False
        self._pump()

    def vanish(self, code: int = 1006) -> None:
        """Let the far end disappear without a word, or with the code of a close frame."""
        self._gone(code)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return what the far end got of one kind."""
        return [event for event in self.got if isinstance(event, kind)]

    def _pump(self) -> None:
        if self.actor is None:
            return

        while not self._stalled and self.actor.egress:
            self.got.append(self._decode(self.actor.egress.receive_nowait()))

        if self._closing is not None and not self.actor.egress and not self._stalled:
            self.closed = self._closing
            self._gone(self._closing.code)

    def _gone(self, code: int) -> None:
        if self.actor is not None:
            actor, self.actor = self.actor, None
            actor.gone(code)

    def _decode(self, frame: Frame) -> AnyEvent:
        if self.codec == "json":
            return events.decode(frame.json)

        return packed_events.decode(frame.msgpack)


class FakeUpstream:
    """A stream to an engine that does what the test says."""

    def __init__(self, bytes_per_second: int, obliging: bool = False) -> None:
        """Wait for the test to speak; an `obliging` stream ends with a final of its own."""
        self.frames: list[AudioFrame] = []
        self.ended = False
        self.left = False
        self.flushes = 0
        self.flushable = True
        self.prompt = False
        """Whether a flush is answered before it returns."""
        self._rate, self._obliging = bytes_per_second, obliging
        self._tx, self._rx = anyio.create_memory_object_stream[Recognition | UpstreamLost](1000)
        self._gate = anyio.Event()
        self._gate.set()

    @property
    def heard(self) -> float:
        """Seconds of audio that came."""
        return sum(len(frame.data) for frame in self.frames) / self._rate

    @property
    def audio(self) -> bytes:
        """All audio that came."""
        return b"".join(frame.data for frame in self.frames)

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Take audio, unless stalled."""
        if not self._gate.is_set():
            return False

        self.frames.append(frame)
        return True

    async def send(self, frame: AudioFrame) -> None:
        """Take audio, or wait while stalled."""
        await self._gate.wait()
        self.frames.append(frame)

    async def flush(self) -> bool:
        """Note that a final is wanted; an obliging stream has nothing to say."""
        self.flushes += 1
        if self.prompt:
            self.transcribe("", flushed=True)
            await settle()

        return self.flushable and not self._obliging

    async def end(self) -> None:
        """Note the end; `finish` says when the last words are out."""
        await self._gate.wait()
        if self._obliging and not self.ended:
            if self.heard:
                self.transcribe("speech")

            self.finish()

        self.ended = True

    async def receive(self) -> Recognition:
        """Return what the test transcribed next."""
        item = await self._rx.receive()
        if isinstance(item, UpstreamLost):
            raise item

        return item

    def transcribe(self, text: str, segment: int = 0, revision: int = 0, **more: float) -> None:
        """Recognize a final, or a partial with `final=False`; `flushed` answers a flush."""
        final, flushed = bool(more.get("final", True)), bool(more.get("flushed", False))
        start, end = more.get("start", 0.0), more.get("end", self.heard)
        words = (Word(text, start, end, 1.0),) if text else ()
        self._tx.send_nowait(
            Recognition(segment, revision, final, text, start, end, words, flushed)
        )

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._tx.close()

    def stall(self) -> None:
        """Take no audio."""
        if self._gate.is_set():
            self._gate = anyio.Event()

    def resume(self) -> None:
        """Take audio again."""
        self._gate.set()

    def leave(self) -> None:
        """Close both ends: the session has left."""
        self.left = True
        self._tx.close()
        self._rx.close()

    def hang_up(self) -> None:
        """Break the stream."""
        self._tx.send_nowait(UpstreamLost("the fake engine hung up"))


class FakeEngine:
    """An engine in the hands of the test."""

    acknowledges = True
    abandoned = 0

    def __init__(self, name: str = "fake", max_streams: int = 2) -> None:
        self.name, self.max_streams, self.restarts = name, max_streams, 0
        self.streams: list[FakeUpstream] = []
        self.slow_to_open = 0.0
        self.stalls = self.prompt = False
        """Whether streams open stalled, and whether they answer flushes before these return."""
        self.obliging = False
        """Whether streams end with a final of their own, instead of waiting for the test."""
        self.broken: Exception | None = None

    def check(self, spec: AudioSpec) -> None:
        """Take 16-bit PCM only."""
        if spec.encoding != "pcm_s16le":
            raise Refused("unsupported_audio", "only pcm_s16le", "encoding")

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[FakeUpstream]:
        """Open a stream, or refuse one too many."""
        await anyio.sleep(self.slow_to_open)
        if self.broken is not None:
            raise self.broken

        if sum(not stream.left for stream in self.streams) >= self.max_streams:
            raise Refused("engine_busy", "no stream is free", setting="engines.fake.max_streams")

        stream = FakeUpstream(spec.bytes_per_second, self.obliging)
        stream.prompt = self.prompt
        if self.stalls:
            stream.stall()

        self.streams.append(stream)
        try:
            yield stream
        finally:
            stream.leave()


class FakeDecoder:
    """Makes two bytes of each byte; it finishes with 0xFFFF unless it decodes `inline`."""

    def __init__(self, spec: AudioSpec, inline: bool) -> None:
        self.spec, self._inline = spec, inline
        self.restarts, self.closed = 0, False
        self._rest = b"\xff\xff"

    def decode_nowait(self, data: bytes) -> bytes | None:
        """Decode at once, or never."""
        return self._decoded(data) if self._inline else None

    async def decode(self, data: bytes) -> bytes:
        """Decode after a while."""
        await anyio.sleep(0.001)
        if data == b"bad":
            raise Refused("bad_audio", "this is no audio", "encoding")

        return self._decoded(data)

    async def end(self) -> bytes:
        """Return the last sample, once."""
        rest, self._rest = self._rest, b""
        return rest

    def restart(self) -> None:
        """Count."""
        self.restarts += 1

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def _decoded(self, data: bytes) -> bytes:
        return b"".join(bytes([byte, 0]) for byte in data)


class DistantBackplane(MemoryBackplane):
    """A backplane across a network: every call takes a moment, and events arrive later."""

    def __init__(
        self, limits: History, max_rooms: int, clock: Clock, delays: Iterable[float]
    ) -> None:
        """Take the seconds of each step from `delays`, over and over."""
        super().__init__(limits, max_rooms, clock)
        self._delays = cycle(delays)

    async def publish(self, key: str, event: RoomEvent) -> Position:
        """Publish after a moment."""
        await self._travel()
        return await super().publish(key, event)

    async def relay(self, key: str, event: RoomEvent) -> None:
        """Relay after a moment."""
        await self._travel()
        await super().relay(key, event)

    async def subscribe(self, key: str) -> None:
        """Subscribe after a moment, and hear of it another moment later."""
        await self._travel()
        await super().subscribe(key)
        await self._travel()

    async def unsubscribe(self, key: str) -> None:
        """Unsubscribe after a moment."""
        await self._travel()
        await super().unsubscribe(key)

    async def recover(self, key: str, since: Position | None, newest: int) -> Recovery:
        """Recover, and let the answer take a moment to arrive."""
        await self._travel()
        recovery = await super().recover(key, since, newest)
        await self._travel()
        return recovery

    async def run(self, deliver: Callable[[str, Frame], None], ready: Callable[[], None]) -> None:
        """Deliver in order, each event a moment later."""
        tx, rx = anyio.create_memory_object_stream[tuple[str, Frame]](math.inf)
        async with tx, rx, anyio.create_task_group() as tasks:
            tasks.start_soon(super().run, lambda *item: tx.send_nowait(item), ready)
            async for key, frame in rx:
                await self._travel()
                deliver(key, frame)

    async def _travel(self) -> None:
        await anyio.sleep(next(self._delays))


class FrailBackplane(MemoryBackplane):
    """A backplane that can stop answering, or answer with a failure."""

    def __init__(self, limits: History, max_rooms: int, clock: Clock) -> None:
        super().__init__(limits, max_rooms, clock)
        self.failure: Exception | None = None
        """What every publish raises."""
        self._answers = anyio.Event()
        self._answers.set()

    def freeze(self) -> None:
        """Answer no publish."""
        if self._answers.is_set():
            self._answers = anyio.Event()

    def thaw(self) -> None:
        """Answer again."""
        self._answers.set()

    async def publish(self, key: str, event: RoomEvent) -> Position:
        """Publish, if the mood allows."""
        await self._answers.wait()
        if self.failure is not None:
            raise self.failure

        return await super().publish(key, event)


class FakeOutlet:
    """The node as one speech session sees it."""

    def __init__(self, limits: Limits) -> None:
        self.clock: Clock = FakeClock()
        self.limits = limits
        self.limits_of: Callable[[str], Limits] = lambda tenant: limits
        self.watch = FakeObserver()
        self.observer: Observer = self.watch
        self.audio = Tallies()
        self.flushed = 0
        self.published: list[tuple[str, Transcript]] = []

    async def publish_final(self, key: str, event: Transcript) -> Position:
        """Keep a final."""
        self.published.append((key, event))
        return Position("e", len(self.published))

    def flush(self) -> None:
        """Count."""
        self.flushed += 1

    async def publish_partial(self, key: str, event: Transcript) -> None:
        """Keep a partial among the finals."""
        self.published.append((key, event))
