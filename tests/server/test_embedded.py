"""The embedded engine with its real processes, on both event loops."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import psutil
import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec
from server.engines import embedded, zygote
from server.engines.embedded import EmbeddedEngine
from server.engines.stream import Stream
from tests.engine_contract import (
    CARDS,
    CHECKS,
    DATA,
    SILENCE,
    Check,
    converse,
    finals,
    frames,
    recording,
)

pytestmark = pytest.mark.anyio

SPEC = AudioSpec()
SPEECH = recording(CARDS / "001.wav")
SAID = ["ten of clubs"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time on both: the processes do not know of any other."""
    return str(request.param)


@pytest.fixture(scope="module")
async def engine(anyio_backend: str) -> AsyncIterator[EmbeddedEngine]:
    """One running engine for the tests that leave it as it was."""
    engine = EmbeddedEngine()
    async with running(engine):
        yield engine
        assert (engine.streams, engine.restarts) == (0, 0)


@asynccontextmanager
async def running(engine: EmbeddedEngine) -> AsyncIterator[psutil.Process]:
    """Run an engine, yield its warm zygote, and see that nothing is left of it."""
    before = descendants()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        await engine.wait_ready()
        (process,) = descendants() - before
        yield process
        tasks.cancel_scope.cancel()

    assert descendants() <= before  # a worker of another test may still have been on its way out
    assert not engine.ready


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def wait_gone(*processes: psutil.Process) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []


DYING = """
import os, sys
sys.path.insert(0, {path!r})
from server.engines import zygote
zygote._become_worker = lambda *_: os._exit(1)
zygote.main()
"""


async def hears(engine: EmbeddedEngine) -> list[str]:
    async with engine.open(SPEC) as stream:
        return finals(await converse(stream, frames(SPEECH)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract_of_engines(engine: EmbeddedEngine, check: Check) -> None:
    await check(engine, SPEC, SPEECH)
    assert engine.streams == 0


async def test_a_stream_that_opens_before_the_model_is_loaded_waits_for_it() -> None:
    engine = EmbeddedEngine(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        assert await hears(engine) == SAID
        tasks.cancel_scope.cancel()


async def test_progress_is_told_while_nothing_is_recognized(engine: EmbeddedEngine) -> None:
    async with engine.open(SPEC) as stream:
        await stream.send(AudioFrame(0, 2 * SILENCE))
        heard = [0.0]
        while heard[-1] < 2:
            await stream.progress()
            heard.append(stream.heard)

        assert max(after - before for before, after in pairwise(heard)) <= 0.2


async def test_a_killed_worker_ends_its_own_stream_only(engine: EmbeddedEngine) -> None:
    async with engine.open(SPEC) as stream, engine.open(SPEC) as other:
        await stream.send(frames(SPEECH)[0])
        os.kill(stream.pid, signal.SIGKILL)
        with pytest.raises(UpstreamLost):
            await stream.receive()

        with pytest.raises(UpstreamLost):
            await stream.send(frames(SPEECH)[1])

        with pytest.raises(UpstreamLost):
            await stream.end()

        assert finals(await converse(other, frames(SPEECH))) == SAID

    assert await hears(engine) == SAID


async def test_a_sender_that_waits_is_told_when_its_worker_is_killed(
    engine: EmbeddedEngine,
) -> None:
    async with engine.open(SPEC) as stream:
        os.kill(stream.pid, signal.SIGSTOP)
        lost = anyio.Event()

        async def feed() -> None:
            try:
                for frame in frames(SPEECH):
                    await stream.send(frame)
            except UpstreamLost:
                lost.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            os.kill(stream.pid, signal.SIGKILL)
            await lost.wait()


async def test_a_killed_zygote_is_replaced_and_open_streams_do_not_notice() -> None:
    engine = EmbeddedEngine()
    async with running(engine) as first:
        async with engine.open(SPEC) as stream:
            first.kill()
            assert finals(await converse(stream, frames(SPEECH))) == SAID

        assert await hears(engine) == SAID
        assert engine.restarts == 1
        assert not first.is_running()


async def test_a_stuck_zygote_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "BORN_WITHIN", 2.0)
    engine = EmbeddedEngine()
    async with running(engine) as first:
        first.suspend()
        assert await hears(engine) == SAID
        assert engine.restarts == 1


async def test_a_zygote_that_does_not_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = iter([lambda _: ["false"], lambda _: ["false"], zygote.command])
    monkeypatch.setattr(embedded, "command", lambda control: next(commands)(control))
    monkeypatch.setattr(embedded, "HEALTHY", 0.0)
    engine = EmbeddedEngine()
    async with running(engine):
        assert engine.restarts == 2


async def test_a_zygote_that_is_stuck_while_it_loads_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = [sys.executable, "-c", "import signal; signal.pause()"]
    patience = iter([0.2, 30.0])

    def command(control: int) -> list[str]:
        within = next(patience)
        monkeypatch.setattr(embedded, "LOADED_WITHIN", within)
        return stuck if within < 1 else zygote.command(control)

    monkeypatch.setattr(embedded, "command", command)
    engine = EmbeddedEngine()
    with anyio.fail_after(20):
        async with running(engine):
            assert await hears(engine) == SAID
            assert engine.restarts == 1


@contextmanager
def descriptors(free: int) -> Iterator[None]:
    """Leave this process so few file descriptors, in a block that needs no others."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(free + 1)]
    for each in held:
        os.close(each)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("free", [0, 1])
async def test_without_descriptors_one_stream_is_refused_and_nothing_is_replaced(free: int) -> None:
    engine = EmbeddedEngine()
    async with running(engine) as first:
        async with engine.open(SPEC) as stream:
            with descriptors(free), pytest.raises(Refused) as refusal:
                async with engine.open(SPEC):
                    pytest.fail("a stream without descriptors")

            assert refusal.value.code == "engine_busy"
            assert engine.streams == 1
            assert finals(await converse(stream, frames(SPEECH))) == SAID

        assert await hears(engine) == SAID
        assert first.is_running()
        assert engine.restarts == 0


async def test_a_worker_that_dies_before_it_reports_does_not_cost_the_others_their_zygote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = DYING.format(path=os.fspath(ROOT))
    monkeypatch.setattr(
        embedded, "command", lambda control: [sys.executable, "-c", program, str(control)]
    )
    engine = EmbeddedEngine()
    async with running(engine) as first:
        for _ in range(2):
            with pytest.raises(UpstreamLost):
                async with engine.open(SPEC):
                    pytest.fail("a stream without a worker")

        assert first.is_running()
        assert engine.restarts == 0


@pytest.mark.parametrize("free", [0, 2, 3])
async def test_a_zygote_that_cannot_be_started_for_now_is_tried_again(
    free: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = anyio.Event()
    warn = embedded.logger.warning

    def warning(*words: object) -> None:
        warn(*words)
        failed.set()

    monkeypatch.setattr(embedded.logger, "warning", warning)
    engine = EmbeddedEngine()
    async with anyio.create_task_group() as tasks:
        with descriptors(free), anyio.fail_after(10):
            tasks.start_soon(engine.run)
            await failed.wait()

        assert await hears(engine) == SAID
        tasks.cancel_scope.cancel()

    record = caplog.records[0]
    assert "Too many open files" in record.getMessage()
    assert record.exc_info is None


async def test_an_engine_that_can_start_no_worker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ready_then_gone = "import os, sys; os.write(int(sys.argv[1]), b'\\x01')"
    monkeypatch.setattr(
        embedded, "command", lambda control: [sys.executable, "-c", ready_then_gone, str(control)]
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon((engine := EmbeddedEngine()).run)
        with pytest.raises(UpstreamLost):
            async with engine.open(SPEC):
                pytest.fail("a stream without a worker")

        assert engine.streams == 0
        tasks.cancel_scope.cancel()


async def test_signals_of_the_terminal_do_not_end_a_session() -> None:
    engine = EmbeddedEngine()
    async with running(engine) as first:
        async with engine.open(SPEC) as stream:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                first.send_signal(number)
                os.kill(stream.pid, number)

            assert finals(await converse(stream, frames(SPEECH))) == SAID

        assert await hears(engine) == SAID
        assert engine.restarts == 0


async def test_a_stopped_worker_makes_send_wait_and_nothing_is_lost(engine: EmbeddedEngine) -> None:
    """What it accepts is bounded by the socket; a frame whose send is cancelled is not torn."""
    async with engine.open(SPEC) as stream:
        os.kill(stream.pid, signal.SIGSTOP)
        waiting = frames(recording(DATA / "goforward.raw"))
        accepted = await send_until_it_waits(stream, waiting)
        assert 16_384 <= accepted <= 65_536
        assert await send_until_it_waits(stream, waiting) == 0

        os.kill(stream.pid, signal.SIGCONT)
        assert finals(await converse(stream, waiting)) == ["go forward ten meters"]


async def send_until_it_waits(stream: Stream, waiting: list[AudioFrame]) -> int:
    """Send from the front of the list and return the bytes that went without a wait."""
    accepted = 0
    while True:
        with anyio.move_on_after(0.5) as patience:
            await stream.send(waiting[0])

        if patience.cancelled_caught:
            if accepted:
                waiting.pop(0)  # it is passed on by the next call

            return accepted

        accepted += len(waiting.pop(0).data)


async def test_results_that_nobody_receives_make_send_wait_too(engine: EmbeddedEngine) -> None:
    async with engine.open(SPEC) as stream:
        second, sent = frames(SILENCE, len(SILENCE))[0], 0
        with anyio.move_on_after(1) as patience:
            while True:
                await stream.send(second)
                sent += 1

        assert patience.cancelled_caught
        assert sent < 30
        assert await converse(stream, []) == []
        assert stream.heard == sent + 1  # the cancelled one was passed on with the end


async def test_the_stream_past_the_limit_is_refused_at_once_by_name(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "max_streams", 2)
    async with engine.open(SPEC), engine.open(SPEC):
        assert engine.streams == 2
        with pytest.raises(Refused) as refusal:
            async with engine.open(SPEC):
                pytest.fail("a third stream")

        assert refusal.value.code == "engine_busy"
        assert refusal.value.setting == "engines.embedded.max_streams"
        assert "2" in refusal.value.message

    assert engine.streams == 0
    assert await hears(engine) == SAID


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("encoding", AudioSpec(encoding="mulaw")),
        ("rate", AudioSpec(rate=11_025)),
        ("channels", AudioSpec(channels=3)),
        ("language", AudioSpec(language="de")),
    ],
)
async def test_audio_it_cannot_take_is_refused_with_what_it_can(
    field: str, spec: AudioSpec
) -> None:
    engine = EmbeddedEngine()
    with pytest.raises(Refused) as refusal:
        engine.check(spec)

    assert (refusal.value.code, refusal.value.field) == ("unsupported_audio", field)
    with pytest.raises(Refused):
        async with engine.open(spec):
            pytest.fail("a stream for strange audio")


async def test_audio_it_can_take_is_accepted() -> None:
    for rate in (8_000, 16_000, 24_000, 44_100, 48_000):
        for channels in (1, 2):
            EmbeddedEngine().check(AudioSpec(rate=rate, channels=channels, language="en-GB"))


async def test_a_worker_that_does_not_exit_is_killed_when_its_stream_is_left(
    engine: EmbeddedEngine,
) -> None:
    async with engine.open(SPEC) as stream:
        worker = psutil.Process(stream.pid)
        worker.suspend()

    wait_gone(worker)


async def test_sending_after_the_end_is_an_error_of_the_caller(engine: EmbeddedEngine) -> None:
    async with engine.open(SPEC) as stream:
        await stream.end()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(frames(SPEECH)[0])


SERVER = """
import anyio, psutil
from actors.messages import AudioSpec
from server.engines.embedded import EmbeddedEngine

async def main():
    engine = EmbeddedEngine()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        async with engine.open(AudioSpec()):
            print(*(child.pid for child in psutil.Process().children(True)), flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


def test_a_killed_server_leaves_no_process_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        children = [psutil.Process(int(pid)) for pid in pids]
        process.kill()

    assert len(children) == 2
    wait_gone(*children)
