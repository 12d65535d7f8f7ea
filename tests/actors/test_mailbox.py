"""The egress of one connection against a model, and what happens at each of its bounds."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
import trio.testing
from anyio import EndOfStream, WouldBlock
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import SLOW_CONSUMER
from actors.limits import Egress, History, Limits
from actors.mailbox import Mailbox, MailboxStatistics, SlowConsumer, Tally
from actors.wire import Codec, Frame
from tests.actors.node import message, transcript
from tests.autojump import settle

LIMITS = Egress(messages=5, bytes=1200, age=10)
segments = st.sampled_from("xyz")
sizes = st.integers(0, 400)
ops = st.lists(
    st.one_of(
        st.tuples(st.just("partial"), segments, sizes),
        st.tuples(st.just("final"), segments, sizes),
        st.tuples(st.just("message"), st.just(""), sizes),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 6)),
        st.tuples(st.just("close"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


def make(kind: str, segment: str, size: int) -> Frame:
    """Make a frame of so many bytes more than the least."""
    if kind == "message":
        return message(1, "." * size)

    return transcript(segment, kind == "final", "." * size)


class Model:
    """What a mailbox should do, as plainly as possible: a list of frames with their times."""

    def __init__(self, codec: Codec) -> None:
        self.codec: Codec = codec
        self.waiting: list[tuple[Frame, float]] = []
        self.conflated = self.dropped = 0
        self.closed = False

    def size(self, frames: list[Frame]) -> int:
        """Bytes of these frames."""
        return sum(len(frame.encoded(self.codec)) for frame in frames)

    def full(self, frame: Frame, now: float) -> bool:
        """Whether a frame at the end would be past a bound."""
        frames = [each for each, _ in self.waiting]
        late = bool(self.waiting) and now - self.waiting[0][1] > LIMITS.age
        return late or len(frames) >= LIMITS.messages or self.size([*frames, frame]) > LIMITS.bytes

    def send(self, frame: Frame, now: float) -> bool:
        """Take a frame; return whether the reader is too slow for it."""
        same = [each for each in self.waiting if frame.segment and each[0].segment == frame.segment]
        partial = next((each for each in same if each[0].partial), None)
        if self.closed:
            self.dropped += 1
        elif frame.partial and same and partial is None:
            self.conflated += 1
        elif frame.partial and partial is not None:
            place = self.waiting.index(partial)
            changed = [each for each, _ in self.waiting]
            changed[place] = frame
            if self.size(changed) > LIMITS.bytes:
                self.dropped += 1
            else:
                self.waiting[place] = (frame, partial[1])
                self.conflated += 1
        else:
            return self.append(frame, partial, now)

        return False

    def append(self, frame: Frame, partial: tuple[Frame, float] | None, now: float) -> bool:
        """Put a frame at the end, without the partial that it ends."""
        if partial is not None:
            self.waiting.remove(partial)
            self.conflated += 1

        if not self.full(frame, now):
            self.waiting.append((frame, now))
        elif frame.partial:
            self.dropped += 1
        else:
            return True

        return False


@given(ops, st.sampled_from(["json", "msgpack"]))
def test_it_does_what_the_model_does(script: list[tuple[str, str, int]], codec: Codec) -> None:
    tally, model, now, peak = Tally(), Model(codec), 0.0, 0
    box = Mailbox(LIMITS, codec, tally)
    for kind, segment, size in script:
        if kind == "wait":
            now += size
        elif kind == "close":
            box.close()
            model.closed = True
        elif kind == "take":
            if model.waiting:
                assert box.receive_nowait() is model.waiting.pop(0)[0]
            else:
                with pytest.raises(EndOfStream if model.closed else WouldBlock):
                    box.receive_nowait()
        else:
            frame = make(kind, segment, size)
            if model.send(frame, now):
                with pytest.raises(SlowConsumer):
                    box.send_nowait(frame, now)

                return

            box.send_nowait(frame, now)

        frames = [frame for frame, _ in model.waiting]
        peak = max(peak, len(frames))
        assert box.statistics() == MailboxStatistics(len(frames), model.size(frames))
        assert len(box) <= LIMITS.messages
        assert box.statistics().bytes <= LIMITS.bytes
        assert (tally.conflated, tally.dropped, tally.peak) == (
            model.conflated,
            model.dropped,
            peak,
        )


@given(ops)
def test_finals_are_never_lost_or_reordered_and_no_partial_follows_its_final(
    script: list[tuple[str, str, int]],
) -> None:
    box, now = Mailbox(LIMITS, "json", Tally()), 0.0
    sent: list[Frame] = []
    got: list[Frame] = []
    for kind, segment, size in script:
        now += size if kind == "wait" else 0
        if kind == "take" and len(box):
            got.append(box.receive_nowait())
        elif kind in ("partial", "final", "message"):
            frame = make(kind, segment, size)
            try:
                box.send_nowait(frame, now)
            except SlowConsumer:
                break

            sent.append(frame)

    waiting = []
    while len(box):
        waiting.append(box.receive_nowait())

    ended = set()
    for frame in waiting:
        assert not (frame.partial and frame.segment in ended)
        if frame.segment is not None:
            ended.add(frame.segment)

    kept = [frame for frame in [*got, *waiting] if not frame.partial]
    assert kept == [frame for frame in sent if not frame.partial]


def test_a_newer_partial_takes_the_place_of_the_older_one() -> None:
    box = Mailbox(LIMITS, "json", Tally())
    for frame in (first := [transcript("x", False, "a"), message(1)]):
        box.send_nowait(frame, 0.0)

    newer = transcript("x", False, "ab")
    box.send_nowait(newer, 9.0)
    assert box.overdue(10.5) is not None
    assert box.receive_nowait() is newer
    assert box.receive_nowait() is first[1]


def test_a_final_comes_last_and_takes_its_partial_away() -> None:
    box = Mailbox(LIMITS, "json", Tally())
    sent = [transcript("x", False), message(1), transcript("x", True)]
    for frame in sent:
        box.send_nowait(frame, 0.0)

    assert [box.receive_nowait(), box.receive_nowait()] == sent[1:]
    assert len(box) == 0


@pytest.mark.parametrize(
    ("limits", "bound", "value"),
    [
        ({"messages": 2, "bytes": 900}, "messages", 3),
        ({"messages": 9, "bytes": 200}, "bytes", 255),
        ({"messages": 9, "age": 5}, "age", 6),
    ],
)
def test_a_reader_past_a_bound_is_too_slow(limits: Any, bound: str, value: float) -> None:
    box = Mailbox(Egress(**limits), "json", Tally())
    for offset in (1, 2):
        box.send_nowait(message(offset), 0.0)

    with pytest.raises(
        SlowConsumer, match=rf"^{bound} .* reached {value}, .*egress\.{bound}"
    ) as slow:
        box.send_nowait(message(3), 6.0 if bound == "age" else 0.0)

    assert (slow.value.close.code, slow.value.close.flush) == (SLOW_CONSUMER.code, False)


def test_a_partial_without_room_is_dropped_and_not_the_end() -> None:
    tally = Tally()
    box = Mailbox(Egress(messages=1), "json", tally)
    box.send_nowait(message(1), 0.0)
    box.send_nowait(transcript("x", False), 0.0)
    assert (len(box), tally.conflated, tally.dropped, tally.peak) == (1, 0, 1, 1)


def test_a_partial_that_has_grown_too_big_does_not_replace_the_older_one() -> None:
    tally = Tally()
    box = Mailbox(Egress(bytes=300), "json", tally)
    older = transcript("x", False, "." * 50)
    for frame in (older, transcript("x", False, "." * 500)):
        box.send_nowait(frame, 0.0)

    assert (box.receive_nowait(), len(box)) == (older, 0)
    assert (tally.dropped, tally.conflated) == (1, 0)


def test_a_partial_that_comes_after_its_final_is_dropped() -> None:
    tally = Tally()
    box = Mailbox(LIMITS, "json", tally)
    finals = [transcript("x", True), transcript("x", True)]
    for frame in (finals[0], transcript("x", False), finals[1]):
        box.send_nowait(frame, 0.0)

    assert [box.receive_nowait(), box.receive_nowait()] == finals
    assert (len(box), tally.conflated) == (0, 1)


def test_clearing_counts_what_it_throws_away() -> None:
    tally = Tally()
    box = Mailbox(LIMITS, "json", tally)
    box.clear()
    box.send_nowait(message(1), 0.0)
    box.clear()
    assert (box.statistics(), tally.dropped) == (MailboxStatistics(0, 0), 1)
    assert box.overdue(99.0) is None


def test_a_whole_replay_fits_twice() -> None:
    history, egress = History(replay=5, replay_bytes=600), Egress(messages=10, bytes=1200)
    assert Limits(egress=egress, history=history).egress is egress


@pytest.mark.anyio
async def test_receive_waits_for_the_next_frame() -> None:
    box, got = Mailbox(LIMITS, "json", Tally()), []

    async def read() -> None:
        got.append(await box.receive())
        got.append(await box.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await settle()
        for offset in (1, 2):
            box.send_nowait(message(offset), 0.0)
            await settle()
            assert [frame.offset for frame in got] == list(range(1, offset + 1))


@pytest.mark.anyio
async def test_a_closed_mailbox_is_read_to_its_end() -> None:
    box = Mailbox(LIMITS, "json", Tally())
    box.send_nowait(message(1), 0.0)
    box.close()
    box.close()
    assert (await box.receive()).offset == 1
    with pytest.raises(EndOfStream):
        await box.receive()


@pytest.mark.anyio
async def test_closing_wakes_the_reader() -> None:
    box = Mailbox(LIMITS, "json", Tally())

    async def read() -> None:
        with pytest.raises(EndOfStream):
            await box.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await settle()
        box.close()


@pytest.mark.anyio
async def test_giving_up_on_receive_loses_nothing() -> None:
    box = Mailbox(LIMITS, "json", Tally())
    with anyio.move_on_after(1):
        await box.receive()

    box.send_nowait(message(1), 0.0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await box.receive()

    assert box.receive_nowait().offset == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_only_receive_is_a_checkpoint() -> None:
    box = Mailbox(LIMITS, "json", Tally())
    with trio.testing.assert_no_checkpoints():
        box.send_nowait(message(1), 0.0)
        box.send_nowait(message(2), 0.0)
        box.receive_nowait()
        box.statistics()

    with trio.testing.assert_checkpoints():
        await box.receive()

    with trio.testing.assert_no_checkpoints():
        box.close()


def test_sizes_are_those_of_the_encoding_in_use() -> None:
    frame = message(1, "x")
    for codec, size in (("json", len(frame.json)), ("msgpack", len(frame.msgpack))):
        box = Mailbox(LIMITS, msgspec.convert(codec, Codec), Tally())
        box.send_nowait(frame, 0.0)
        assert box.statistics().bytes == size
