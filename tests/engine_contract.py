"""What every speech engine must do, and the human speech that it is tried with.

The recordings are those of Debian's package pocketsphinx-testdata: 16 kHz, mono, 16 bits.
"""

from __future__ import annotations

import wave
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from actors.errors import Refused
from actors.messages import AudioFrame, AudioSpec, Recognition
from actors.ports import Engine, Upstream

DATA = Path("/usr/share/pocketsphinx/test/data")
LIBRIVOX = DATA / "librivox"
CARDS = DATA / "cards"
SILENCE = bytes(32_000)
"""One second."""


def recording(path: Path) -> bytes:
    """Return the PCM of a recording."""
    if path.suffix == ".raw":
        return path.read_bytes()

    with wave.open(str(path)) as audio:
        return bytes(audio.readframes(audio.getnframes()))


def transcripts(folder: Path) -> dict[Path, list[str]]:
    """Return the words that were said in each recording of a folder, in reading order."""
    said = {}
    for line in next(folder.glob("*transcription")).read_text().splitlines():
        text, _, name = line.rpartition("(")
        said[folder / f"{name.rstrip(')')}.wav"] = text.replace("<s>", "").split("</s>")[0].split()

    return said


def word_errors(said: list[str], heard: list[str]) -> int:
    """Count the words to insert, drop or replace; "mr" is how the dictionary writes "mister"."""
    heard = ["mister" if word == "mr" else word for word in heard]
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, 1):
        diagonal, row[0] = row[0], count
        for column, other in enumerate(heard, 1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
            diagonal, row[column] = row[column], cost

    return row[-1]


def frames(audio: bytes, size: int = 640) -> list[AudioFrame]:
    """Cut audio into frames of so many bytes."""
    return [AudioFrame(start, audio[start : start + size]) for start in range(0, len(audio), size)]


def finals(found: Iterable[Recognition]) -> list[str]:
    """Return the texts of the finals."""
    return [each.text for each in found if each.final]


async def collect(stream: Upstream) -> list[Recognition]:
    """Receive until the end."""
    found = []
    with suppress(anyio.EndOfStream):
        while True:
            found.append(await stream.receive())

    return found


async def converse(stream: Upstream, pieces: Iterable[AudioFrame]) -> list[Recognition]:
    """Send everything as fast as the engine takes it, and return all that it says."""

    async def feed() -> None:
        for piece in pieces:
            await stream.send(piece)

        await stream.end()

    found: list[Recognition] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        found = await collect(stream)

    return found


def assert_orderly(found: list[Recognition], seconds: float) -> None:
    """Segments count from 0, revisions too, a final ends its segment, times fit the audio.

    A partial may come without words: some providers time those of finals only.
    """
    segment, revision, reached = 0, 0, 0.0
    for each in found:
        assert (each.segment, each.revision) == (segment, revision)
        assert reached <= each.start <= each.end <= seconds
        if each.final or each.words:
            assert each.text == " ".join(word.text for word in each.words)

        times = [time for word in each.words for time in (word.start, word.end)]
        assert all(a <= b for a, b in pairwise([each.start, *times, each.end]))
        assert all(0 <= word.confidence <= 1 for word in each.words)
        if each.final:
            segment, revision, reached = segment + 1, 0, each.end
        else:
            revision += 1

    assert found == [] or found[-1].final


async def check_conversation(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """Speech comes back in order, all of it is heard, and the end stays the end."""
    async with engine.open(spec) as stream:
        found = await converse(stream, frames(audio))
        assert stream.heard == pytest.approx(len(audio) / spec.bytes_per_second)
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()

    assert finals(found) != []
    assert_orderly(found, len(audio) / spec.bytes_per_second)


async def check_empty_frames(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """An empty frame is no end and changes nothing."""
    async with engine.open(spec) as stream:
        plain = await converse(stream, frames(audio))

    sparse = [each for frame in frames(audio) for each in (AudioFrame(frame.position, b""), frame)]
    async with engine.open(spec) as stream:
        assert finals(await converse(stream, sparse)) == finals(plain)


async def check_no_audio(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """A session without audio ends with nothing recognized, also when it is ended twice."""
    async with engine.open(spec) as stream:
        assert stream.heard == 0
        await stream.end()
        await stream.end()
        assert await collect(stream) == []


async def check_cancelled_receive(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """Giving up on `receive` loses nothing."""
    async with engine.open(spec) as stream:
        with anyio.move_on_after(0.01) as patience:
            await stream.receive()

        assert patience.cancelled_caught
        impatient = await converse(stream, frames(audio))

    async with engine.open(spec) as stream:
        assert impatient == await converse(stream, frames(audio))


async def check_leaving_early(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """A stream can be left at any time, also by cancellation; the next one is not affected."""
    with anyio.fail_after(5):
        async with engine.open(spec):
            pass

        async with engine.open(spec) as stream:
            await stream.send(frames(audio)[0])

        with anyio.move_on_after(0.3) as patience:
            async with engine.open(spec) as stream:
                await stream.send(frames(audio)[0])
                await stream.receive()

        assert patience.cancelled_caught

    await check_conversation(engine, spec, audio)


async def check_strange_audio(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """Audio that the engine cannot take is refused with the field that is wrong."""
    engine.check(spec)
    with pytest.raises(Refused) as refusal:
        engine.check(AudioSpec(encoding="smoke", rate=spec.rate, channels=spec.channels))

    assert (refusal.value.code, refusal.value.field) == ("unsupported_audio", "encoding")


async def check_flush(engine: Engine, spec: AudioSpec, audio: bytes) -> None:
    """A flush brings the final of what was sent, marked, and what follows is not disturbed."""
    half = len(audio) // 4 * 2
    async with engine.open(spec) as stream:
        found: list[Recognition] = []
        flushable = True

        async def feed() -> None:
            nonlocal flushable
            for piece in frames(audio[:half]):
                await stream.send(piece)

            flushable = await stream.flush()
            for piece in frames(audio[half:]):
                await stream.send(piece)

            flushable = await stream.flush() and flushable
            await stream.end()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            found = await collect(stream)

    flushes = [each for each in found if each.flushed]
    assert len(flushes) == (2 if flushable else 0)
    assert all(each.final for each in flushes)
    told = [each for each in found if each.text or not each.flushed]
    assert_orderly(told, len(audio) / spec.bytes_per_second)
    if flushable:
        assert flushes[0].end == pytest.approx(half / spec.bytes_per_second, abs=0.5)


Check = Callable[[Engine, AudioSpec, bytes], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    check_conversation,
    check_empty_frames,
    check_no_audio,
    check_cancelled_receive,
    check_leaving_early,
    check_strange_audio,
    check_flush,
)
"""Call each with a running engine, a spec that it takes, and speech of that spec."""
