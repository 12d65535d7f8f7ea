"""The echo engine: what it answers is known from the length of the audio alone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec
from server.engines.echo import WAITING, EchoEngine
from tests.autojump import settle, virtual_time
from tests.engine_contract import CHECKS, Check, assert_orderly, converse, finals, frames

pytestmark = pytest.mark.anyio

SPEC = AudioSpec()
SPECS = (SPEC, AudioSpec(rate=8001), AudioSpec(rate=44100, channels=2))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_time(request.param)


@pytest.mark.parametrize("seconds", [1, 2.5])
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, spec: AudioSpec, seconds: float) -> None:
    await check(EchoEngine(2), spec, bytes(int(seconds * spec.bytes_per_second)))


@pytest.mark.parametrize("size", [1, 7, 640, 6399, 100_000])
@pytest.mark.parametrize("spec", SPECS, ids=str)
async def test_a_final_each_second_and_a_partial_each_fifth_whatever_the_frames(
    spec: AudioSpec, size: int
) -> None:
    audio = bytes(int(2.5 * spec.bytes_per_second))
    size = max(size, len(audio) // 10_000)
    async with EchoEngine(1).open(spec) as stream:
        found = await converse(stream, frames(audio, size))

    assert_orderly(found, 2.5)
    assert finals(found) == ["echo 1", "echo 2", "echo 3"]
    ends = [each.end for each in found]
    assert ends == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4, 2.4])
    assert [each.text for each in found[:2]] == ["echo 1 part 1", "echo 1 part 2"]


async def test_less_than_a_fifth_of_a_second_says_nothing() -> None:
    async with EchoEngine(1).open(SPEC) as stream:
        assert await converse(stream, frames(bytes(6399))) == []


async def test_it_waits_while_nobody_reads_and_then_loses_nothing() -> None:
    seconds = WAITING // 5 + 2
    async with EchoEngine(1).open(SPEC) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(stream.send, AudioFrame(0, bytes(32000 * seconds)))
        await settle()
        found = [await stream.receive() for _ in range(5 * seconds)]
        assert [each.end for each in found] == [step / 5 for step in range(1, 5 * seconds + 1)]


async def test_a_closed_stream_is_a_lost_upstream() -> None:
    async with EchoEngine(1).open(SPEC) as stream:
        await stream.send(AudioFrame(0, bytes(6400)))
        stream.close()
        with pytest.raises(UpstreamLost):
            await stream.send(AudioFrame(0, bytes(6400)))

        with pytest.raises(UpstreamLost):
            await stream.end()


async def test_one_stream_too_many_is_refused_until_one_ends() -> None:
    engine = EchoEngine(1)
    async with engine.open(SPEC):
        with pytest.raises(Refused) as refusal:
            async with engine.open(SPEC):
                raise AssertionError("it was let in")

    assert (refusal.value.code, refusal.value.setting) == (
        "engine_busy",
        "engines.echo.max_streams",
    )
    async with engine.open(SPEC):
        assert engine.streams == 1

    assert engine.streams == 0


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (AudioSpec(encoding="opus"), "encoding"),
        (AudioSpec(rate=7999), "rate"),
        (AudioSpec(rate=48001), "rate"),
        (AudioSpec(channels=0), "channels"),
        (AudioSpec(channels=3), "channels"),
    ],
)
def test_audio_that_it_cannot_count_is_refused(spec: AudioSpec, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        EchoEngine(1).check(spec)

    assert (refusal.value.code, refusal.value.field) == ("unsupported_audio", field)
