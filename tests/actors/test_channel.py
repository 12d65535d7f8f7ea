"""A bounded channel of audio: it waits, or it lets the oldest go, and it counts both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.channel import AudioChannel, ChannelTally
from actors.messages import AudioFrame
from tests.autojump import settle

pytestmark = pytest.mark.anyio
Policy = Literal["block", "drop_oldest"]


@asynccontextmanager
async def channel(
    capacity: int, policy: Policy
) -> AsyncIterator[tuple[AudioChannel, ChannelTally]]:
    """Make a channel and close it in the end."""
    tally = ChannelTally()
    made = AudioChannel(capacity, policy, tally)
    yield made, tally
    made.close()


def frame(position: int) -> AudioFrame:
    """Make a frame of one byte."""
    return AudioFrame(position, b"x")


async def drain(audio: AudioChannel) -> list[int]:
    """Read to the end and return the positions."""
    got = []
    try:
        while True:
            got.append((await audio.receive()).position)
    except anyio.EndOfStream:
        return got


async def test_block_waits_for_room_and_loses_nothing() -> None:
    async with channel(2, "block") as (audio, tally):

        async def speak() -> None:
            for position in range(5):
                await audio.send(frame(position))

            audio.end()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak)
            await settle()
            assert audio.depth == 2
            with pytest.raises(anyio.WouldBlock):
                audio.send_nowait(frame(9))

            assert await drain(audio) == [0, 1, 2, 3, 4]

        assert tally.dropped == 0
        assert tally.waited >= 1
        assert tally.peak == 2


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=30))
async def test_drop_oldest_keeps_the_newest_and_counts_the_rest(
    capacity: int, script: list[bool]
) -> None:
    async with channel(capacity, "drop_oldest") as (audio, tally):
        model: list[int] = []
        dropped = peak = 0
        for position, sends in enumerate(script):
            if sends:
                dropped += len(model) == capacity
                model = [*model, position][-capacity:]
                await audio.send(frame(position))
            elif model:
                assert (await audio.receive()).position == model.pop(0)

            peak = max(peak, len(model))
            assert audio.depth == len(model)

        assert (tally.dropped, tally.peak, tally.waited) == (dropped, peak, 0)
        audio.end()
        assert await drain(audio) == model


async def test_the_end_lets_a_waiting_writer_finish() -> None:
    async with channel(1, "block") as (audio, _):
        async with anyio.create_task_group() as tasks:
            await audio.send(frame(0))
            tasks.start_soon(audio.send, frame(1))
            await settle()
            audio.end()
            audio.end()
            assert await drain(audio) == [0, 1]

        with pytest.raises(anyio.ClosedResourceError):
            await audio.send(frame(2))


async def test_closing_wakes_a_waiting_writer() -> None:
    async with channel(1, "block") as (audio, _):

        async def wait() -> None:
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
                await audio.send(frame(1))

        async with anyio.create_task_group() as tasks:
            await audio.send(frame(0))
            tasks.start_soon(wait)
            await settle()
            audio.close()
            audio.close()

        with pytest.raises(anyio.ClosedResourceError):
            await audio.send(frame(2))


async def test_a_reader_waits_for_the_next_frame() -> None:
    async with channel(1, "block") as (audio, _):
        got = []

        async def read() -> None:
            got.append(await audio.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await settle()
            await audio.send(frame(7))

        assert got == [frame(7)]


async def test_what_cannot_be_done_at_once_says_so() -> None:
    async with channel(1, "block") as (audio, _):
        taking = [audio.open]
        with pytest.raises(anyio.WouldBlock):
            audio.receive_nowait()

        audio.send_nowait(frame(0))
        taking.append(audio.open)
        assert taking == [True, False]
        audio.end()
        with pytest.raises(anyio.ClosedResourceError):
            audio.send_nowait(frame(1))

        states = [audio.finished]
        assert audio.receive_nowait() == frame(0)
        states.append(audio.finished)
        assert states == [False, True]
        with pytest.raises(anyio.EndOfStream):
            audio.receive_nowait()


async def test_a_frame_that_waits_for_room_is_not_overtaken() -> None:
    async with channel(1, "block") as (audio, _), anyio.create_task_group() as tasks:
        audio.send_nowait(frame(0))
        tasks.start_soon(audio.send, frame(1))
        await settle()
        assert audio.receive_nowait() == frame(0)
        assert not audio.open
        await settle()
        assert audio.receive_nowait() == frame(1)


@pytest.mark.parametrize("ends", [AudioChannel.end, AudioChannel.close])
async def test_a_waiting_reader_hears_of_the_end(ends: Callable[[AudioChannel], None]) -> None:
    async with channel(1, "block") as (audio, _), anyio.create_task_group() as tasks:
        got: list[int] = [0]

        async def read() -> None:
            got.extend(await drain(audio))
            got.append(1)

        tasks.start_soon(read)
        await settle()
        ends(audio)
        await settle()
        assert got == [0, 1]


async def test_closing_at_the_very_moment_of_a_send_refuses_the_frame() -> None:
    async with channel(1, "drop_oldest") as (audio, _), anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await audio.send(frame(0))

        tasks.start_soon(send)
        tasks.start_soon(send)
        await anyio.lowlevel.checkpoint()
        audio.close()


def test_a_tally_adds_what_waits_now() -> None:
    tally = ChannelTally()
    tally.peak = 2
    found = tally.statistics(depth=1, capacity=3)
    assert (found.depth, found.capacity, found.peak) == (1, 3, 2)
