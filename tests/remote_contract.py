"""What every engine behind a WebSocket must do when its provider does not behave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.to_thread
import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec, Recognition
from server.engines import link
from server.engines.options import Connection
from server.engines.remote import RemoteEngine
from tests.doubles import (
    Double,
    Fault,
    Relay,
    abort,
    close,
    mute,
    numbered,
    numbers,
    raw,
    refuse,
    say,
    slow,
    stall,
)
from tests.engine_contract import collect, converse, finals, frames
from tests.server.remotes import QUICK, Remote

SPEC = AudioSpec()
AUDIO = numbered(1, 125)
SECOND = 32_000
Ending = UpstreamLost | Refused


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


async def until(double: Double, fits: Callable[[], object]) -> None:
    """Wait for the double without holding up the event loop."""
    await anyio.to_thread.run_sync(double.wait, fits)


async def fate(work: Awaitable[object]) -> Ending:
    """Return how something ends, which must be badly."""
    try:
        await work
    except (UpstreamLost, Refused) as error:
        return error

    raise AssertionError("it went well")


async def suffer(engine: RemoteEngine) -> tuple[list[Recognition], Ending]:
    """Send all and receive to the end, which must be a bad one; return it and what came before.

    Nothing is left then.
    """
    found: list[Recognition] = []

    async def try_it() -> None:
        async with engine.open(SPEC) as stream:
            with suppress(UpstreamLost, Refused):
                for frame in frames(AUDIO):
                    await stream.send(frame)

            while True:
                found.append(await stream.receive())

    tasks = asyncio.all_tasks()
    error = await fate(try_it())
    assert engine.streams == 0
    assert asyncio.all_tasks() == tasks
    return found, error


def assert_clean(error: Ending, double: Double) -> None:
    """One sentence that names the engine, and neither the secret nor an address."""
    for text in (str(error), repr(error), repr(error.__dict__)):
        assert double.secret not in text
        assert "127.0.0.1" not in text

    assert "engine" in str(error)
    assert str(error).isprintable()


Expected = tuple[Fault, str]
LOST = ""
"""Stands for UpstreamLost, where other codes are those of Refused."""

UPGRADES: tuple[Expected, ...] = (
    (refuse(302, location="/elsewhere"), "engine_rejected"),
    (refuse(307, location="ws://127.0.0.1:1/"), "engine_rejected"),
    (refuse(400, "a body"), "engine_rejected"),
    (refuse(401), "engine_unauthorized"),
    (refuse(402), "engine_unpaid"),
    (refuse(403), "engine_unauthorized"),
    (refuse(404), "engine_rejected"),
    (refuse(408), LOST),
    (refuse(429), "engine_busy"),
    (refuse(500), LOST),
    (refuse(503), LOST),
    (refuse(200), "engine_rejected"),
)
CLOSES: tuple[Expected, ...] = (
    (close(1000), LOST),
    (close(1001), LOST),
    (close(1011, "NET-0000 \n no"), LOST),
    (close(1012), LOST),
    (close(1013, "x" * 120), LOST),
    (close(4444), LOST),
    (abort(), LOST),
)
GARBAGE: tuple[Fault, ...] = (
    say("no JSON"),
    say(""),
    say('{"type":'),
    say("5"),
    say("null"),
    say('{"type":"final","elements":' + "[" * 5000 + "]" * 5000 + "}"),
    say(b"\0binary"),
    say(b""),
    say('"' + "x" * 1_100_000 + '"'),
    raw(b"\x81\x02\xff\xfe"),
    raw(b"\x83\x00"),
    raw(b"\x81\x82abcd00"),
    raw(b"HTTP/1.1 200 OK\r\n\r\n" * 10),
)
OWN: dict[str, tuple[Expected, ...]] = {
    "revai": (
        (close(4001, "no access_token {secret}"), "engine_unauthorized"),
        (close(4002, "Bad Request: content_type"), "engine_rejected"),
        (close(4003), "engine_unpaid"),
        (close(4010, "Shutting Down"), LOST),
        (close(4013, "Try Again Later"), "engine_busy"),
        (close(4013, "Try Again Later", after=SECOND), LOST),
        (close(4029), "engine_busy"),
        (close(1007, after=SECOND), LOST),
        (close(1000, "Reached max session lifetime", after=SECOND), LOST),
        (say('{"type":5}', after=640), LOST),
        (say("{}", after=640), LOST),
        (say('{"type":"final","elements":[{"value":1}]}', after=640), LOST),
    ),
    "deepgram": (
        (refuse(400, dg_error="bad model, key {secret}"), "engine_rejected"),
        (refuse(401, dg_error="Invalid credentials."), "engine_unauthorized"),
        (refuse(402, dg_error="no balance"), "engine_unpaid"),
        (refuse(429, dg_error="Too many requests"), "engine_busy"),
        (close(1008, "DATA-0000", after=SECOND), "engine_rejected"),
        (close(1011, "NET-0001", after=SECOND), LOST),
        (say('{"type":"Results"}', after=640), LOST),
        (say('{"type":"Error","description":"no {secret}"}', after=640), LOST),
    ),
    "vosk": (
        (say("{}", after=640), LOST),
        (say('{"partial":5}', after=640), LOST),
        (say('{"partial":"unasked"}'), LOST),
    ),
    "websocket": (
        (say('{"channel":{"alternatives":[{"transcript":5}]}}', after=640), LOST),
        (say('{"error":"no {secret}"}', after=640), LOST),
    ),
}


def expectations(name: str) -> Iterator[Expected]:
    """Yield all bad endings of an engine: before it is ready, and within the stream."""
    for fault, expected in (*UPGRADES, *CLOSES, *OWN[name], *((each, LOST) for each in GARBAGE)):
        yield fault, expected

    for fault, expected in CLOSES:
        yield Fault(fault.kind, SECOND, fault.code, fault.text), expected


async def check_bad_endings(remote: Remote, double: Double) -> None:
    """Each fault is told at once, as what it is, by one clean sentence."""
    engine = remote.make(double.url, double.secret)
    for fault, expected in expectations(remote.name):
        double.plan(secret_in(fault, double.secret))
        with within(1.5):
            found, error = await suffer(engine)

        case = f"{fault}: {error!r}"
        assert (error.code if isinstance(error, Refused) else LOST) == expected, case
        assert_clean(error, double)
        if fault.after >= SECOND and fault.kind != "abort":
            assert numbers(finals(found)) == list(range(1, 51)), case

    await until(double, lambda: not double.open)
    assert len(double.requests) == len(list(expectations(remote.name)))  # no redirect was followed


def secret_in(fault: Fault, secret: str) -> Fault:
    """Let the provider say the secret itself."""
    headers = {name: value.replace("{secret}", secret) for name, value in fault.headers.items()}
    text, payload = fault.text.replace("{secret}", secret), fault.payload
    if isinstance(payload, str):
        payload = payload.replace("{secret}", secret)

    return Fault(fault.kind, fault.after, fault.code, text, payload, fault.seconds, headers)


async def check_slow_accept(remote: Remote, double: Double) -> None:
    """A provider that does not answer the upgrade is given up in time, and can be left at once."""
    double.plan(slow(30), slow(30))
    engine = remote.make(double.url, double.secret, connection=QUICK)
    with within(1.5):
        _, error = await suffer(engine)

    assert isinstance(error, UpstreamLost)
    assert_clean(error, double)
    with within(0.3), anyio.move_on_after(0.05):
        await suffer(engine)

    assert engine.streams == 0


async def check_unreachable(remote: Remote, double: Double) -> None:
    """Nobody listens: a loss, at once."""
    for url in ("ws://127.0.0.1:1/", "wss://127.0.0.1:1/", "ws://nowhere.invalid/"):
        with within(5):
            _, error = await suffer(remote.make(url, double.secret))

        assert isinstance(error, UpstreamLost)
        assert_clean(error, double)

    with within(2):
        _, error = await suffer(remote.make(f"wss://127.0.0.1:{double.port}/", double.secret))

    assert_clean(error, double)


async def check_stuck_send(remote: Remote, double: Double) -> None:
    """A provider that reads no more is lost within `send_within`; nothing grows until then."""
    double.plan(stall(after=SECOND), stall(after=SECOND))
    connection = Connection(send_within=0.2, buffer_bytes=4096)
    engine = remote.make(double.url, double.secret, connection=connection)
    frame = AudioFrame(0, numbered(1, 25))

    async def flood() -> None:
        async with engine.open(SPEC) as stream:
            for _ in range(2000):
                with within(1):
                    await stream.send(frame)

    with within(3):
        error = await fate(flood())

    assert isinstance(error, UpstreamLost)
    assert_clean(error, double)
    async with engine.open(SPEC) as stream:
        while stream.send_nowait(frame):
            pass

        with anyio.move_on_after(0.02):
            await stream.send(frame)  # cancelled: nothing of it was written

        double.resume()
        await stream.send(frame)
        await stream.end()
        await collect(stream)

    audio = bytes(double.connections[-1].audio)
    assert audio == frame.data * (len(audio) // len(frame.data))


async def check_half_open(remote: Remote, double: Double) -> None:
    """A connection with nobody at its other end is found by a ping."""
    with Relay(double.port) as relay:
        url = double.url.replace(str(double.port), str(relay.port))
        engine = remote.make(url, double.secret, connection=Connection(ping_interval=0.1))
        async with engine.open(SPEC) as stream:
            await stream.send(frames(AUDIO)[0])
            relay.silence()
            with within(0.5):
                error = await fate(collect(stream))

        assert isinstance(error, UpstreamLost)
        assert_clean(error, double)


async def check_mute(remote: Remote, double: Double) -> None:
    """A provider that says nothing but answers pings is not lost: it may have nothing to say."""
    double.plan(mute(after=640))
    connection = Connection(ping_interval=0.05)
    async with remote.make(double.url, double.secret, connection=connection).open(SPEC) as stream:
        await stream.send(AudioFrame(0, AUDIO[:SECOND]))
        with anyio.move_on_after(0.2) as patience:
            await collect(stream)

        assert patience.cancelled_caught
        assert stream.send_nowait(frames(AUDIO)[0])


async def check_left_alone(remote: Remote, double: Double) -> None:
    """Leaving a provider that does not answer the close takes no longer than is set."""
    double.plan(stall(after=640))
    async with remote.make(double.url, double.secret).open(SPEC) as stream:
        await stream.send(frames(AUDIO)[0])
        await until(double, lambda: any(each.audio for each in double.connections))
        began = time.monotonic()

    assert time.monotonic() - began < link.CLOSE_WITHIN + 1.0
    double.resume()
    await until(double, lambda: not double.open)


async def check_exact_audio(remote: Remote, double: Double) -> None:
    """Every byte arrives once, in order, whatever the sizes; every number comes back once."""
    audio, at, pieces = numbered(1, 500), 0, []
    for size in (640, 1, 0, 639, 126, 125, 65_535, 65_536, 70_001, 2, 10_000_000):
        pieces.append(AudioFrame(at, audio[at : at + size]))
        at += size

    async with remote.make(double.url, double.secret).open(SPEC) as stream:
        found = await converse(stream, pieces)
        assert stream.heard == 10

    await until(double, lambda: not double.open)
    assert bytes(double.connections[0].audio) == audio
    assert numbers(finals(found)) == list(range(1, 501))


async def check_slow_reader(remote: Remote, double: Double) -> None:
    """What nobody receives stops the provider, not the node; later all of it is there."""
    async with remote.make(double.url, double.secret).open(SPEC) as stream:
        sent = 0
        for _ in range(60):
            await stream.send(AudioFrame(0, numbered(1, 50)))
            sent += 1

        await stream.end()
        found = await collect(stream)

    assert len(finals(found)) == sent


async def check_max_streams(remote: Remote, double: Double) -> None:
    """One stream too many is refused, naming the setting, until one ends."""
    engine = remote.make(double.url, double.secret, max_streams=1)
    async with engine.open(SPEC):
        with pytest.raises(Refused) as refusal:
            async with engine.open(SPEC):
                raise AssertionError("it was let in")

    assert refusal.value.code == "engine_busy"
    assert refusal.value.setting == f"engines.{remote.name}.max_streams"
    async with engine.open(SPEC):
        assert engine.streams == 1

    assert engine.streams == 0


RemoteCheck = Callable[[Remote, Double], Awaitable[None]]

REMOTE_CHECKS: tuple[RemoteCheck, ...] = (
    check_bad_endings,
    check_slow_accept,
    check_unreachable,
    check_stuck_send,
    check_half_open,
    check_mute,
    check_left_alone,
    check_exact_audio,
    check_slow_reader,
    check_max_streams,
)
"""Call each with a remote engine and a double of its own."""
