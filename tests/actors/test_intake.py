"""Audio on its way to the engine, encoded or not, and what becomes of it when nobody waits."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.intake import Intake, Tallies
from actors.limits import Ingress, Limits, Upstream
from actors.messages import AudioFrame, AudioSpec
from tests.autojump import settle
from tests.fakes import FakeClock, FakeDecoder

pytestmark = pytest.mark.anyio
SPEC = AudioSpec(rate=8000)
LIMITS = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2))


def intake(decoder: FakeDecoder | None = None, limits: Limits = LIMITS) -> Intake:
    """Make one that an engine has been connected to."""
    made = Intake(SPEC, decoder, limits, Tallies(), FakeClock())
    made.flowing = True
    return made


async def take_all(line: Intake) -> bytes:
    """Read upstream to its end."""
    heard = b""
    try:
        while True:
            frame = await line.upstream.receive()
            assert frame.position == len(heard)
            heard += frame.data
            line.route()
            line.settle()
    except anyio.EndOfStream:
        return heard


async def test_audio_before_the_first_engine_waits_in_ingress_alone() -> None:
    line = Intake(SPEC, None, LIMITS, Tallies(), FakeClock())
    assert [line.hear_nowait(b"12") for _ in range(4)] == [True, True, True, False]
    assert (line.ingress.depth, line.upstream.depth, line.received) == (3, 0, 6)
    line.flowing = True
    line.route()
    assert (line.ingress.depth, line.upstream.depth) == (1, 2)


async def test_a_taker_gets_what_finds_the_channels_empty() -> None:
    line, taken = intake(), []

    def take(frame: AudioFrame) -> bool:
        taken.append(frame)
        return len(taken) < 3

    line.taker = take
    for _ in range(4):
        assert line.hear_nowait(b"12")

    assert [frame.position for frame in taken] == [0, 2, 4]
    assert line.upstream.depth == 2, "refused by the taker, and the one behind it"
    assert (await line.upstream.receive()).position == 4


async def test_a_frame_that_was_never_taken_is_not_counted_as_received() -> None:
    line = intake()
    for _ in range(5):
        line.hear_nowait(b"1234")

    with anyio.move_on_after(1) as patience:
        await line.hear(b"5678")

    assert patience.cancelled_caught
    assert (line.received, line.decoded) == (20, 20)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.hear, b"5678")
        await settle()
        line.end()
        assert (await take_all(line))[-4:] == b"5678"

    assert line.exhausted


@given(
    st.lists(st.binary(min_size=1, max_size=900), max_size=12),
    st.booleans(),
    st.sampled_from(["block", "drop_oldest"]),
)
async def test_encoded_audio_comes_out_as_pcm(
    pieces: list[bytes], inline: bool, policy: str
) -> None:
    limits = Limits(
        ingress=Ingress(frames=3),
        upstream=Upstream(frames=200, policy="block" if policy == "block" else "drop_oldest"),
    )
    line = intake(FakeDecoder(SPEC, inline), limits)
    assert line.decodes is not inline
    async with anyio.create_task_group() as tasks:
        if line.decodes:
            tasks.start_soon(line.decode)

        for piece in pieces:
            await line.hear(piece)

        line.end()
        heard = await take_all(line)

    assert heard == b"".join(bytes([byte, 0]) for piece in pieces for byte in piece) + (
        b"" if inline else b"\xff\xff"
    )
    assert line.received == sum(map(len, pieces))
    assert line.decoded == len(heard)
    assert line.seconds == len(heard) / SPEC.bytes_per_second


async def test_a_slow_engine_holds_the_decoder_back() -> None:
    line = intake(FakeDecoder(SPEC, inline=False))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.decode)
        for _ in range(6):
            await line.hear(b"x" * 800)
            await settle()

        assert line.upstream.depth == 2
        assert line.ingress.depth == 3
        with anyio.move_on_after(100) as patience:
            await line.hear(b"x" * 800)

        assert patience.cancelled_caught
        assert line.received == 6 * 800
        tasks.cancel_scope.cancel()


async def test_what_cannot_be_decoded_is_refused() -> None:
    line = intake(FakeDecoder(SPEC, inline=False))
    line.hear_nowait(b"bad")
    with pytest.raises(Refused):
        await line.decode()


async def test_drained_waits_for_everything_on_its_way() -> None:
    line = intake(FakeDecoder(SPEC, inline=False))
    calm: list[bool] = []

    async def wait() -> None:
        await line.drained()
        calm.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.decode)
        line.hear_nowait(b"x" * 10)
        tasks.start_soon(wait)
        await settle()
        assert not calm
        line.in_hand = True
        await line.upstream.receive()
        line.settle()
        await settle()
        assert not calm
        line.in_hand = False
        line.settle()
        await settle()
        assert calm
        line.hear_nowait(b"x" * 10)
        tasks.start_soon(wait)
        await settle()
        line.close()
        await settle()
        assert len(calm) == 2
        tasks.cancel_scope.cancel()


async def test_closing_and_coming_back_reach_the_decoder() -> None:
    decoder = FakeDecoder(SPEC, inline=False)
    line = intake(decoder)
    line.restart()
    line.close()
    assert (decoder.restarts, decoder.closed) == (1, True)
    assert not line.hear_nowait(b"x")


def test_losses_are_counted_and_few_of_them_logged(caplog: pytest.LogCaptureFixture) -> None:
    tallies = Tallies()
    for count in range(100):
        tallies.lost("a", f"the engine a is gone {'x' * 1000}", count * 0.2)
        tallies.lost("b", "the engine b is gone", 0.0)

    assert tallies.losses == {"a": 100, "b": 100}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(len(line) < 400 for line in lines)
    assert lines[-1].endswith("(50 since the last line)")
