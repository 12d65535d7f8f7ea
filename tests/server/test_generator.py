"""The generator engine with real threads: every way to end, and what is left behind."""

from __future__ import annotations

import gc
import itertools
import logging
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec
from server.engines import bridge
from server.engines.bridge import Bridged, Transcribe
from server.engines.generator import GeneratorEngine, generator, load
from server.engines.generator_options import Bridge, Generator
from server.engines.handover import Audio
from tests.doubles import numbered, numbers
from tests.engine_contract import CHECKS, Check, collect, converse, finals, frames
from tests.server import generators
from tests.server.generators import adopted, awaited, hears, hears_soon

pytestmark = pytest.mark.anyio

SPEC = AudioSpec()
SPEECH = numbered(1, 120)
FRAME = AudioFrame(0, bytes(640))
QUICK = Bridge(leave_within=0.05, audio_bytes=1280, results=2)
KINDS = (hears, hears_soon, adopted, awaited, generators.Hearing, generators.Listener())


@pytest.fixture(autouse=True)
def anyio_backend(monkeypatch: pytest.MonkeyPatch) -> str:
    """Real threads, on the loop that the server uses; what hangs is given up soon."""
    monkeypatch.setattr(bridge, "INTERRUPTED_WITHIN", 0.2)
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(2)
        assert not thread.is_alive(), thread


def engine_of(transcribe: Transcribe, max_streams: int = 2) -> GeneratorEngine:
    return GeneratorEngine(transcribe, max_streams, QUICK)


def said(text: str = "said", final: bool = True) -> dict[str, Any]:
    return {"text": text, "final": final}


async def lost(stream: Bridged) -> str:
    """Receive until the loss, and return its words."""
    with pytest.raises(UpstreamLost) as loss:
        await collect(stream)

    return str(loss.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: getattr(kind, "__name__", "object"))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract_of_engines(check: Check, kind: Transcribe) -> None:
    engine = engine_of(kind)
    await check(engine, SPEC, SPEECH)
    assert (engine.streams, engine.abandoned) == (0, 0)


@pytest.mark.parametrize("kind", [hears, hears_soon])
@pytest.mark.parametrize("size", [1, 641, 5000])
async def test_all_audio_comes_through_in_whole_samples_however_it_is_cut(
    kind: Transcribe, size: int
) -> None:
    spec = AudioSpec(rate=8000, channels=2)
    speech = numbered(1, 60, 8000, 2)
    async with engine_of(kind).open(spec) as stream:
        found = await converse(stream, frames(speech, size))
        assert stream.heard == len(speech) / spec.bytes_per_second

    assert numbers(finals(found)) == [*range(1, 61)]


async def test_a_frame_is_taken_without_a_turn_of_the_loop_while_there_is_room() -> None:
    pulled = threading.Event()

    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        pulled.wait()
        yield from hears(audio, spec)

    async with engine_of(transcribe).open(SPEC) as stream:
        first, second, third = frames(SPEECH)[:3]
        assert [stream.send_nowait(each) for each in (first, second, third)] == [True, True, False]
        assert stream.send_nowait(AudioFrame(0, b""))
        assert stream.heard == 0
        pulled.set()
        found = await converse(stream, frames(SPEECH)[2:])
        assert not stream.send_nowait(first)

    assert numbers(finals(found)) == [*range(1, 121)]


async def test_send_waits_while_nothing_is_pulled_and_a_cancelled_send_leaves_nothing() -> None:
    pulled = threading.Event()

    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        pulled.wait()
        yield from hears(audio, spec)

    async with engine_of(transcribe).open(SPEC) as stream:
        waiting = frames(SPEECH)
        for _ in range(2):
            await stream.send(waiting.pop(0))

        for _ in range(3):
            with anyio.move_on_after(0.02) as patience:
                await stream.send(waiting[0])

            assert patience.cancelled_caught

        pulled.set()
        found = await converse(stream, waiting)

    assert numbers(finals(found)) == [*range(1, 121)]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_generator_waits_while_nobody_receives(asynchronous: bool) -> None:
    made: list[int] = []

    def count(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            made.append(number)
            yield said(str(number))

    async def count_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
        for each in count(audio, spec):
            yield each

    async with engine_of(count_soon if asynchronous else count).open(SPEC) as stream:
        for number in range(20):
            assert (await stream.receive()).text == str(number)
            assert len(made) <= number + 1 + QUICK.results + 1

    assert len(made) <= 20 + QUICK.results + 1


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.__name__)
async def test_an_end_before_the_audio_ends_is_a_loss_behind_what_was_found(kind: Any) -> None:
    def brief(audio: Audio, spec: AudioSpec) -> Any:
        if kind is hears:
            return iter([said()])

        async def brief_soon() -> AsyncIterator[dict[str, Any]]:
            yield said()

        async def brief_later() -> AsyncIterator[dict[str, Any]]:
            return brief_soon()

        return brief_later() if kind is awaited else brief_soon()

    async with engine_of(brief).open(SPEC) as stream:
        assert (await stream.receive()).text == "said"
        assert await lost(stream) == "the generator engine ended before the audio did"
        for call in (lambda: stream.send(FRAME), stream.end, stream.receive):
            with pytest.raises(UpstreamLost):
                await call()

        assert not stream.send_nowait(FRAME)


async def test_a_sender_that_waits_is_told_when_the_generator_ends() -> None:
    def one(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        yield said("ready")
        yield said("full")
        yield said("more")
        yield said("blocked until received")

    async with engine_of(one).open(SPEC) as stream:
        failed: list[str] = []

        async def feed() -> None:
            try:
                while True:
                    await stream.send(FRAME)
            except UpstreamLost as error:
                failed.append(str(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            await lost(stream)

        assert failed == ["the generator engine ended before the audio did"]


@pytest.mark.parametrize("kind", [hears, hears_soon])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("id"),
        SystemExit(3),
        StopIteration("x"),
        KeyboardInterrupt("x"),
        BaseExceptionGroup("x", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
async def test_an_exception_is_told_by_type_and_words_and_logged_once(
    kind: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Results:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield said("before")
            broken()

        async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
            yield said("before")
            broken()

    def broken() -> None:
        raise error

    def transcribe(audio: Audio, spec: AudioSpec) -> Any:
        found = Results()
        return iter(found) if kind is hears else found.__aiter__()

    async with engine_of(transcribe).open(SPEC) as stream:
        assert (await stream.receive()).text == "before"
        words = await lost(stream)
        assert await lost(stream) == words

    if not isinstance(error, StopIteration):  # in a generator Python makes it a RuntimeError
        assert words == f"the generator engine raised {type(error).__name__}: {error}"

    (record,) = caplog.records
    assert record.exc_info is not None
    assert "in broken" in caplog.text


class Wordless(BaseException):
    """What cannot even be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError("no words")


@pytest.mark.parametrize("kind", [hears, hears_soon])
@pytest.mark.parametrize(
    "error", [Wordless(), GeneratorExit()], ids=lambda each: type(each).__name__
)
async def test_whatever_is_raised_the_stream_ends_and_its_place_is_free(
    kind: Any, error: BaseException
) -> None:
    def blocking(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        yield said("before")
        raise error

    async def soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
        yield said("before")
        raise error

    engine = engine_of(blocking if kind is hears else soon, max_streams=1)
    with anyio.fail_after(5):
        for _ in range(3):
            async with engine.open(SPEC) as stream:
                assert (await stream.receive()).text == "before"
                await lost(stream)

    assert engine.abandoned == 0


async def test_an_exception_of_the_call_itself_comes_out_of_open() -> None:
    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        raise OSError("no such device\n")

    with pytest.raises(UpstreamLost, match=r"generator engine raised OSError: no such device $"):
        async with engine_of(transcribe).open(SPEC):
            pytest.fail("a stream of nothing")


@pytest.mark.parametrize("error", [Refused("engine_busy", "full"), UpstreamLost("gone")], ids=repr)
async def test_a_refusal_and_a_loss_pass_as_they_are_and_are_no_bug(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        for _ in audio:
            raise error

        yield said()

    async with engine_of(transcribe).open(SPEC) as stream:
        await stream.send(FRAME)
        with pytest.raises(type(error)) as raised:
            await stream.receive()

    assert raised.value is error
    assert caplog.records == []


@pytest.mark.parametrize("kind", [hears, hears_soon])
async def test_garbage_is_refused_with_a_sentence(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def garbage(audio: Audio, spec: AudioSpec) -> Iterator[object]:
        yield said()
        yield 7

    async def garbage_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[object]:
        yield said()
        yield 7

    async with engine_of(garbage if kind is hears else garbage_soon).open(SPEC) as stream:
        with pytest.raises(Refused) as refusal:
            await collect(stream)

        assert (refusal.value.code, refusal.value.message) == (
            "engine_rejected",
            "the generator engine yielded int, which is no Recognition, mapping or JSON object",
        )

    assert len(caplog.records) == 1


async def test_what_is_no_iterator_at_all_is_a_loss() -> None:
    with pytest.raises(UpstreamLost, match="TypeError: 'int' object is not iterable"):
        async with engine_of(lambda audio, spec: 7).open(SPEC) as stream:
            await stream.receive()


# Leaving.


def pulls(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    yield said("ready")
    for _ in audio:
        pass


async def pulls_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    yield said("ready")
    async for _ in audio:
        pass


def floods(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    while True:
        yield said("ready")


async def floods_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    while True:
        yield said("ready")


def spins(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    yield said("ready")
    while True:
        pass


def naps(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    yield said("ready")
    while True:
        try:
            time.sleep(0.001)
        except Exception:
            continue


def logs(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    yield said("ready")
    while True:
        logging.getLogger("quiet").info("at work")
        time.sleep(0.001)


def insists(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
    yield said("ready")
    while True:
        next(audio, None)


async def waits_soon(audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
    yield said("ready")
    await anyio.sleep_forever()


LEAVERS = (
    pulls,
    pulls_soon,
    floods,
    floods_soon,
    spins,
    naps,
    logs,
    insists,
    waits_soon,
)


@pytest.mark.parametrize("transcribe", LEAVERS, ids=lambda each: each.__name__)
async def test_what_runs_in_python_ends_when_it_is_left(
    transcribe: Transcribe, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(transcribe)
    with anyio.fail_after(2):
        async with engine.open(SPEC) as stream:
            assert (await stream.receive()).text == "ready"

    assert (engine.streams, engine.abandoned) == (0, 0)
    assert caplog.records == []


@pytest.mark.parametrize("transcribe", LEAVERS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("seconds", [0, 0.002, 0.02])
async def test_a_stream_can_be_cancelled_at_any_point(
    transcribe: Transcribe, seconds: float
) -> None:
    engine = engine_of(transcribe)
    with anyio.move_on_after(seconds):
        async with engine.open(SPEC) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, stream)
            for frame in frames(SPEECH):
                await stream.send(frame)

            await anyio.sleep_forever()

    assert (engine.streams, engine.abandoned) == (0, 0)


async def test_an_interrupted_generator_may_still_clean_up() -> None:
    cleaned: list[str] = []

    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        try:
            yield from naps(audio, spec)
        finally:
            cleaned.append("naps")

    def blocked(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        try:
            yield from floods(audio, spec)
        finally:
            cleaned.append("floods")

    for each in (transcribe, blocked):
        async with engine_of(each).open(SPEC) as stream:
            await stream.receive()

    assert cleaned == ["naps", "floods"]


async def test_a_hook_frees_what_blocks_and_is_called_once_however_it_ends() -> None:
    calls: list[str] = []

    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        ours, theirs = socket.socketpair()

        def hook() -> None:
            calls.append(threading.current_thread().name)
            theirs.close()

        audio.on_leave(hook)
        with ours:
            yield said("ready")
            for _ in audio:
                pass

            if not audio.ended:
                ours.recv(1)

    engine = engine_of(transcribe)
    async with engine.open(SPEC) as stream:
        await stream.receive()

    assert (calls, engine.streams, engine.abandoned) == (["generator hooks"], 0, 0)
    async with engine.open(SPEC) as stream:
        assert finals(await converse(stream, frames(SPEECH))) == ["ready"]

    assert calls == ["generator hooks", "generator stream"]


async def test_a_hook_of_a_stream_that_was_left_is_called_at_once_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        audio.on_leave(lambda: calls.append("early"))
        audio.on_leave(lambda: 1 / 0)
        yield said("ready")
        for _ in audio:
            pass

        audio.on_leave(lambda: calls.append("late"))

    async with engine_of(transcribe).open(SPEC) as stream:
        await stream.receive()

    assert sorted(calls) == ["early", "late"]
    (record,) = caplog.records
    assert "a hook of the generator engine raised ZeroDivisionError" in record.message


async def test_closed_audio_ends_and_send_waits_for_how_the_generator_ends() -> None:
    def transcribe(audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        next(audio)
        audio.close()
        assert [*audio] == []
        yield said("ready")
        yield said("ready")
        yield said("blocked until received")
        raise Refused("engine_busy", "full")

    async with engine_of(transcribe).open(SPEC) as stream:
        await stream.send(FRAME)
        refused: list[str] = []

        async def feed() -> None:
            try:
                while True:
                    await stream.send(FRAME)
            except Refused as error:
                refused.append(error.message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            with pytest.raises(Refused):
                await collect(stream)

        assert refused == ["full"]


# Code that cannot be ended.


class Stuck:
    """Hangs in C, for as long as a test wants."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.ours, self.theirs = socket.socketpair()

    def waits(self, audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        yield said("ready")
        self.release.wait()

    def receives(self, audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        yield said("ready")
        self.ours.recv(1)

    def connects(self, audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        self.release.wait()
        return iter([])

    def closes(self, audio: Audio, spec: AudioSpec) -> Iterator[dict[str, Any]]:
        audio.on_leave(self.release.wait)
        yield said("ready")
        for _ in audio:
            pass

    async def swallows(self, audio: Audio, spec: AudioSpec) -> AsyncIterator[dict[str, Any]]:
        yield said("ready")
        free = self.free = anyio.Event()
        try:
            await anyio.sleep_forever()
        except BaseException:
            await free.wait()

    def set_free(self) -> None:
        self.release.set()
        self.theirs.close()
        if hasattr(self, "free"):
            self.free.set()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.set_free()
    stuck.ours.close()


@pytest.mark.parametrize("how", ["waits", "receives", "closes", "swallows"])
async def test_what_hangs_is_given_up_counted_bounded_and_counted_out_when_it_ends(
    how: str, stuck: Stuck, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(getattr(stuck, how), max_streams=1)
    with anyio.fail_after(1):
        async with engine.open(SPEC) as stream:
            await stream.receive()

    assert (engine.streams, engine.abandoned) == (1, 1)
    (record,) = caplog.records
    assert "1 of 1 places" in record.message
    with pytest.raises(Refused) as refusal:
        async with engine.open(SPEC):
            pytest.fail("more threads than may hang")

    assert refusal.value.code == "engine_busy"
    assert refusal.value.setting == "engines.generator.max_streams"
    assert refusal.value.message == (
        "all 1 generator streams are in use (1 of them hang); "
        "engines.generator.max_streams allows more"
    )
    stuck.set_free()
    await stream.wait_done()
    assert (engine.streams, engine.abandoned) == (0, 0)


async def test_a_call_that_does_not_return_is_cancelled_with_open(stuck: Stuck) -> None:
    engine = engine_of(stuck.connects)
    with anyio.move_on_after(0.02) as patience:
        async with engine.open(SPEC):
            pytest.fail("open though nothing was returned")

    assert patience.cancelled_caught
    assert (engine.streams, engine.abandoned) == (1, 1)


def test_a_hung_thread_keeps_no_process_from_exiting_and_a_closed_loop_is_no_trouble() -> None:
    program = (
        "import anyio, threading\n"
        "from actors.messages import AudioSpec\n"
        "from server.engines.generator import GeneratorEngine\n"
        "from server.engines.generator_options import Bridge\n"
        "event = threading.Event()\n"
        "def hangs(audio, spec):\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        "    next(audio, None)\n"
        "    event.wait()\n"
        "    return []\n"
        "async def main():\n"
        "    engine = GeneratorEngine(hangs, 1, Bridge(leave_within=0.01))\n"
        "    async with engine.open(AudioSpec()):\n"
        "        pass\n"
        "anyio.run(main)\n"
        "worker = next(t for t in threading.enumerate() if t.name == 'generator stream')\n"
        "event.set()\n"
        "worker.join()\n"
        "print(threading.active_count())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout == "2\n"  # the thread that the code itself has started hangs on
    assert "Traceback" not in ran.stderr


async def test_without_threads_a_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine = engine_of(hears)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(Refused, match="no thread can be had") as refusal:
            async with engine.open(SPEC):
                pytest.fail("a stream without a thread")

    assert (refusal.value.code, engine.streams) == ("engine_busy", 0)


async def test_the_stream_past_the_limit_is_refused_at_once_by_name() -> None:
    engine = engine_of(hears, max_streams=1)
    async with engine.open(SPEC):
        with pytest.raises(Refused, match=r"all 1 generator streams are in use; engines.generator"):
            async with engine.open(SPEC):
                pytest.fail("a second stream")

        assert engine.streams == 1


async def test_it_cannot_flush_and_takes_no_audio_after_the_end() -> None:
    async with engine_of(hears).open(SPEC) as stream:
        assert not await stream.flush()
        await stream.end()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(FRAME)


async def test_nothing_is_left_of_a_finished_stream() -> None:
    engine = engine_of(hears)
    async with engine.open(SPEC) as stream:
        await converse(stream, frames(SPEECH))

    for thread in threading.enumerate():
        if thread.name == "generator stream":
            thread.join(2)

    left = weakref.ref(stream)
    del stream
    gc.collect()
    assert left() is None


# Naming a function in the settings.


async def test_a_function_is_named_by_its_import_path() -> None:
    options = Generator(call="tests.server.generators:hears", max_streams=3)
    engine = generator(options)
    assert (engine.name, engine.max_streams, engine.restarts) == ("generator", 3, 0)
    async with engine.open(SPEC) as stream:
        assert numbers(finals(await converse(stream, frames(SPEECH)))) == [*range(1, 121)]

    assert load("tests.server.generators:Hearing.make") == generators.Hearing.make


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "must be package.module:function, not ''"),
        ("module.function", "must be package.module:function, not 'module.function'"),
        (":function", "must be package.module:function, not ':function'"),
        ("no_such_package.module:f", ": there is no module 'no_such_package'"),
        ("tests.no_such_module:f", ": there is no module 'tests.no_such_module'"),
        ("tests.server.generators:nothing", ": 'tests.server.generators' has no 'nothing'"),
        ("tests.server.generators:NUMBER", ": 'tests.server.generators:NUMBER' is a int, not a"),
        ("tests.server.broken_module:f", "'tests.server.broken_module' cannot be imported: Modul"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_what_is_missing(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"engines.generator.call") as refusal:
        load(path)

    assert words in str(refusal.value)
