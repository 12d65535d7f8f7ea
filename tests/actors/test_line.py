"""A session whose engine is lost, stuck, deaf or refuses: nothing is lost, nothing said twice."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused, UpstreamLost, find
from actors.limits import Ingress, Limits, Upstream
from actors.line import AT_ONCE
from actors.messages import Ack, AudioSpec, Gap, Recognition, Speaker, Speech
from actors.principal import Principal
from actors.roles import Subject
from actors.speech import GAPS, SpeechSession
from tests.actors.test_speech import FRAME, STEM, Speaking, numbered, speaking
from tests.autojump import settle
from tests.fakes import FakeEngine, FakeUpstream

pytestmark = pytest.mark.anyio
LOUD = (8000).to_bytes(2, "little") * 1600
"""A tenth of a second that may be speech."""


class Failover(Speaking):
    """A session with two engines."""

    def __init__(self, limits: Limits, first: FakeEngine, second: FakeEngine) -> None:
        super().__init__(limits, first)
        self.second = second
        subject = Subject("s", "t/a", "a", Speaker("1", "Ann"), AudioSpec(), transcripts=True)
        self.session = SpeechSession(subject, [first, second], None, self.outlet)
        self.session.holder = self


@asynccontextmanager
async def with_two(first: FakeEngine, second: FakeEngine) -> AsyncIterator[Failover]:
    """Run a session that has a second engine."""
    scene = Failover(Limits(), first, second)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.run)
        await settle()
        yield scene
        tasks.cancel_scope.cancel()


def texts(scene: Speaking) -> list[str]:
    """Return the texts of the finals that were published."""
    return [event.text for _, event in scene.outlet.published if event.final]


async def test_a_lost_engine_gets_again_what_no_final_covers() -> None:
    async with speaking() as scene:
        first = scene.stream
        await scene.hear(20)
        await settle()
        first.transcribe("one", end=1.0)
        first.transcribe("tw", segment=1, start=1.0, end=1.5, final=False)
        await settle()
        first.hang_up()
        await anyio.sleep(1)
        second = scene.stream
        assert second is not first
        assert first.left
        assert second.audio == b"".join(numbered(n * len(FRAME)) for n in range(10, 20))
        await scene.hear(5)
        await settle()
        second.transcribe("two", start=0.0, end=1.0)
        await settle()
        events = [event for _, event in scene.outlet.published]
        assert [(event.segment, event.revision, event.final) for event in events] == [
            (f"{STEM}.0", 0, True),
            (f"{STEM}.1", 0, False),
            (f"{STEM}.1", 1, True),
        ]
        assert (events[-1].start, events[-1].end, events[-1].words[0].start) == (1.0, 2.0, 1.0)
        assert scene.states == ["connecting", "ready", "lost", "recovered"]
        assert second.audio[-5 * len(FRAME) :] == b"".join(
            numbered(n * len(FRAME)) for n in range(20, 25)
        )


def the_words(first: float, after: float) -> Iterator[str]:
    """Name each tenth of a second from a time to before another."""
    return (str(n) for n in range(round(first * 10), round(after * 10)))


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from("fplw")), max_size=30))
async def test_whatever_is_lost_every_tenth_is_said_once_and_in_order(
    script: list[tuple[int, str]],
) -> None:
    """Speech in pieces; finals, partials, losses and waits between them, at any time."""
    async with speaking() as scene:
        said = 0.0
        for frames, then in [*script, (1, "w")]:
            await scene.hear(frames)
            await settle()
            stream, reached = scene.stream, scene.session.received / 32_000
            base = reached - stream.heard
            if then == "w":
                await anyio.sleep(1)
            elif stream.left:
                continue  # nobody has answered yet
            elif then == "l":
                stream.hang_up()
                await settle()
            elif reached > said:
                text = " ".join(the_words(said, reached))
                stream.transcribe(text, start=said - base, end=reached - base, final=then == "f")
                await settle()
                said = reached if then == "f" else said

        await anyio.sleep(30)
        stream, reached = scene.stream, scene.session.received / 32_000
        base = reached - stream.heard
        stream.transcribe(" ".join(the_words(said, reached)), start=said - base, end=reached - base)
        await settle()
        assert " ".join(texts(scene)).split() == list(the_words(0, reached))
        finals = [event for _, event in scene.outlet.published if event.final]
        assert all(a.end <= b.start for a, b in pairwise(finals))
        assert [event.segment for event in finals] == [f"{STEM}.{n}" for n in range(len(finals))]
        assert scene.gaps == []


async def test_audio_that_waits_for_a_lost_engine_holds_the_speaker_back() -> None:
    limits = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2))
    async with speaking(limits) as scene, anyio.create_task_group() as tasks:
        await scene.hear(4)
        await settle()
        scene.engine.broken = UpstreamLost("away")
        scene.stream.hang_up()
        tasks.start_soon(scene.hear, 20)
        await anyio.sleep(20)
        assert scene.session.received == (4 + 3 + 2 + 1) * len(FRAME)
        scene.engine.broken = None
        await anyio.sleep(10)
        assert scene.session.received == 24 * len(FRAME)
        assert scene.stream.audio == b"".join(numbered(n * len(FRAME)) for n in range(24))
        assert scene.gaps == []


async def test_under_drop_oldest_a_lost_engine_costs_the_oldest_audio_and_says_so() -> None:
    limits = Limits(upstream=Upstream(frames=5, policy="drop_oldest"))
    async with speaking(limits) as scene:
        await scene.hear(4)
        await settle()
        scene.engine.broken = UpstreamLost("away")
        scene.stream.hang_up()
        await settle()
        await scene.hear(20)
        assert scene.session.received == 24 * len(FRAME)
        scene.engine.broken = None
        await anyio.sleep(10)
        kept = [*range(4), *range(19, 24)]
        assert scene.stream.audio == b"".join(numbered(n * len(FRAME)) for n in kept)
        assert scene.gaps == [(4 * len(FRAME), 19 * len(FRAME) - 1)]


async def test_a_second_engine_takes_over_from_one_that_does_not_come_back() -> None:
    first, second = FakeEngine("first"), FakeEngine("second")
    async with with_two(first, second) as scene:
        await scene.hear(5)
        await settle()
        first.broken = UpstreamLost("away")
        scene.stream.hang_up()
        await anyio.sleep(2)
        assert second.streams[-1].audio == b"".join(numbered(n * len(FRAME)) for n in range(5))
        assert scene.session.engine is second
        states = [(e.state, e.engine) for e in scene.told if isinstance(e, Speech)]
        assert states[-1] == ("recovered", "second")
        assert scene.outlet.audio.losses == {"first": 2}


async def test_an_engine_that_refuses_the_key_is_passed_over_and_the_operator_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = FakeEngine("first"), FakeEngine("second")
    first.broken = Refused("engine_unauthorized", "the engine first refuses its key")
    async with with_two(first, second) as scene:
        assert scene.session.engine is second
        assert scene.states == ["connecting", "ready"]
        assert len(scene.accepted) == 1

    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("no stream was opened: the engine first refuses its key (1 ")


async def test_a_session_that_no_engine_takes_ends_with_the_reason_of_the_last_one() -> None:
    engine = FakeEngine()
    engine.broken = UpstreamLost("the engine fake cannot be reached")
    async with speaking(engine=engine) as scene:
        await anyio.sleep(Limits().upstream.open_within + 1)
        assert scene.failure is not None
        assert str(find(scene.failure, UpstreamLost)) == "the engine fake cannot be reached"


async def test_a_key_that_is_refused_later_ends_the_session_with_that() -> None:
    async with speaking() as scene:
        scene.engine.broken = Refused("engine_unpaid", "the engine fake wants money")
        scene.stream.hang_up()
        await anyio.sleep(1)
        assert scene.failure is not None
        refusal = find(scene.failure, Refused)
        assert refusal is not None
        assert refusal.code == "engine_unpaid"


async def test_an_engine_that_is_deaf_to_speech_is_replaced_and_one_that_hears_silence_is_not() -> (
    None
):
    async with speaking() as scene:
        scene.engine.acknowledges = False
        for _ in range(300):
            await scene.session.intake.hear(bytes(3200))
            await anyio.sleep(0.1)
            scene.session.line.watch(anyio.current_time())

        assert len(scene.engine.streams) == 1
        for _ in range(130):
            await scene.session.intake.hear(LOUD)
            await anyio.sleep(0.1)
            scene.session.line.watch(anyio.current_time())

        assert len(scene.engine.streams) == 2
        assert "limits.upstream.silent_within" in str(
            next(e.message for e in scene.told if isinstance(e, Speech) and e.state == "lost")
        )
        assert LOUD * 100 in scene.stream.audio, "what it has not answered is sent again"


async def test_an_engine_that_never_answers_is_tried_less_and_less_often() -> None:
    async with speaking() as scene:
        scene.engine.acknowledges = False
        for _ in range(1500):
            await scene.session.intake.hear(LOUD)
            await anyio.sleep(0.1)
            scene.session.line.watch(anyio.current_time())

        assert 3 <= len(scene.engine.streams) <= 5


async def test_what_is_too_old_to_be_sent_again_is_told_and_its_partial_becomes_a_final() -> None:
    limits = Limits(upstream=Upstream(replay=2))
    async with speaking(limits) as scene:
        scene.engine.acknowledges = False
        for _ in range(30):
            await scene.session.intake.hear(LOUD)
            await anyio.sleep(0.1)

        scene.stream.transcribe("the beginning", start=0.0, end=0.5, final=False)
        await settle()
        scene.stream.hang_up()
        await anyio.sleep(1)
        assert texts(scene) == ["the beginning"]
        assert len(scene.stream.audio) == 2 * 32_000
        (gap,) = [event for event in scene.told if isinstance(event, Gap)]
        assert (gap.first, gap.last, gap.reason) == (16_000, 32_000 - 1, "replay_full")
        assert scene.outlet.audio.unheard_bytes == 16_000


async def test_a_fast_speaker_gets_no_further_ahead_than_could_be_replayed() -> None:
    limits = Limits(upstream=Upstream(replay=8))
    async with speaking(limits) as scene, anyio.create_task_group() as tasks:
        scene.engine.acknowledges = False
        tasks.start_soon(scene.hear, 600)
        await settle()
        assert 2.0 <= scene.stream.heard <= 2.2
        await anyio.sleep(5)
        assert 6.9 <= scene.stream.heard <= 7.2, "a silent engine gets real time"
        scene.stream.transcribe("quick", end=7.0)
        await anyio.sleep(0.1)
        assert 8.9 <= scene.stream.heard <= 9.2
        tasks.cancel_scope.cancel()


async def test_a_flush_is_acknowledged_after_the_final_that_it_brought() -> None:
    async with speaking() as scene:
        await scene.hear(3)
        await scene.session.flush(7)
        assert scene.stream.flushes == 1
        assert [e for e in scene.told if e.__class__.__name__ == "Ack"] == []
        scene.stream.transcribe("so far", flushed=True)
        await settle()
        assert texts(scene) == ["so far"]
        assert scene.told[-1].__class__.__name__ == "Ack"
        assert scene.outlet.flushed == 1


async def test_a_flush_of_an_engine_that_cannot_is_acknowledged_at_once() -> None:
    async with speaking() as scene:
        scene.stream.flushable = False
        await scene.session.flush(7)
        assert scene.told[-1].__class__.__name__ == "Ack"


async def test_flushes_outlive_a_loss_and_the_end_of_the_session_answers_what_is_left() -> None:
    async with speaking() as scene:
        await scene.hear(3)
        await scene.session.flush(1)
        await scene.session.flush(2)
        scene.stream.hang_up()
        await anyio.sleep(1)
        assert scene.stream.flushes == 2
        scene.stream.transcribe("", flushed=True)
        await settle()
        scene.session.end()
        await settle()
        scene.stream.finish()
        await settle()
        acks = [e for e in scene.told if e.__class__.__name__ == "Ack"]
        assert len(acks) == 2


async def test_flushes_without_answers_are_bounded() -> None:
    async with speaking() as scene:
        for count in range(16):
            await scene.session.flush(count)

        with pytest.raises(Refused):
            await scene.session.flush(99)


async def test_a_speaker_may_be_told_its_own_words_with_their_place() -> None:
    first, second = FakeEngine("first"), FakeEngine("second")
    async with with_two(first, second) as scene:
        await scene.hear(3)
        await settle()
        scene.stream.transcribe("hel", final=False)
        scene.stream.transcribe("hello", revision=1)
        await settle()
        partial, final = [e for e in scene.told if e.__class__.__name__ == "Transcript"]
        assert getattr(final, "offset", None) == 2
        assert getattr(partial, "text", "") == "hel"


@pytest.mark.parametrize("lost", [False, True])
async def test_a_partial_that_nobody_ends_becomes_a_final_with_the_session(lost: bool) -> None:
    async with speaking(Limits(upstream=Upstream(lost_within=5))) as scene:
        await scene.hear(5)
        await settle()
        scene.stream.transcribe("half a sen", final=False)
        await settle()
        if lost:
            scene.engine.broken = UpstreamLost("gone for good")
            scene.stream.hang_up()
        else:
            scene.session.end()
            await settle()
            scene.stream.finish()

        await anyio.sleep(20)
        assert scene.over_at is not None
        assert texts(scene) == ["half a sen"]


async def test_an_engine_that_only_stammers_is_given_up() -> None:
    async with speaking(Limits(upstream=Upstream(lost_within=60))) as scene:
        for second in range(150):
            if scene.stream.heard and second % 13 == 0:
                scene.stream.transcribe("hm", end=0.1, final=False)

            scene.stream.stall()
            with anyio.move_on_after(0.5):
                await scene.session.intake.hear(LOUD)

            await anyio.sleep(1)
            scene.session.line.watch(anyio.current_time())
            if scene.over_at is not None:
                break

        assert scene.failure is not None
        assert find(scene.failure, UpstreamLost)
        assert scene.over_at is not None
        assert 60 <= scene.over_at <= 100


async def test_an_engine_that_is_mute_is_not_said_to_take_nothing() -> None:
    limits = Limits(upstream=Upstream(stalled_within=3, silent_within=3, replay=8))
    async with speaking(limits) as scene:
        scene.engine.acknowledges = False
        for _ in range(150):
            with anyio.move_on_after(0.1):
                await scene.session.intake.hear(LOUD)

            await anyio.sleep(0.1)
            scene.session.line.watch(anyio.current_time())

        messages = [str(e.message) for e in scene.told if isinstance(e, Speech) and e.message]
        assert messages
        assert all("did not answer" in each for each in messages if each != "UNSET")


async def test_a_flush_during_a_replay_is_asked_behind_it_and_once() -> None:
    async with speaking() as scene:
        await scene.hear(5)
        await settle()
        scene.engine.stalls = True
        scene.stream.hang_up()
        await anyio.sleep(1)
        assert scene.states[-1] == "recovered"
        await scene.session.flush(1)
        assert scene.stream.flushes == 0, "the replay has not been taken yet"
        scene.stream.resume()
        await settle()
        assert scene.stream.flushes == 1
        assert len(scene.stream.audio) == 5 * len(FRAME)


async def test_a_gap_while_nobody_holds_the_session_is_told_to_who_resumes() -> None:
    limits = Limits(upstream=Upstream(frames=2, policy="drop_oldest"))
    async with speaking(limits) as scene:
        await scene.hear(1)
        await settle()
        scene.stream.stall()
        await scene.hear(10)
        scene.session.detach(Principal("t"))
        scene.stream.resume()
        await settle()
        assert scene.gaps == []
        await scene.session.attach(scene)
        assert len(scene.gaps) == 1
        assert [e.__class__.__name__ for e in scene.told[-2:]] == ["Speech", "Gap"]


class Eager(FakeUpstream):
    """A stream that hands out what is there without a turn of the loop."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate, False)
        self.there: deque[Recognition] = deque()

    async def receive(self) -> Recognition:
        """Return what is there; wait only when nothing is."""
        return self.there.popleft() if self.there else await super().receive()


class EagerEngine(FakeEngine):
    """An engine with such streams."""

    @asynccontextmanager
    async def open(self, spec: AudioSpec) -> AsyncIterator[FakeUpstream]:
        """Open a stream."""
        stream = Eager(spec.bytes_per_second)
        self.streams.append(stream)
        try:
            yield stream
        finally:
            stream.leave()


async def test_an_engine_that_brings_much_at_once_leaves_others_their_turn() -> None:
    engine = EagerEngine()
    async with with_two(engine, FakeEngine()) as scene:
        await scene.hear(1)
        stream = engine.streams[0]
        assert isinstance(stream, Eager)
        stream.there += [Recognition(n, 0, True, "x", 0.0, 0.0) for n in range(4 * AT_ONCE)]
        stream.transcribe("x", segment=99)
        most = before = 0
        while before <= 4 * AT_ONCE:
            await checkpoint()
            found = len(scene.outlet.published)
            most, before = max(most, found - before), found

        # On trio this task is now the first, now the last of a turn.
        assert 1 < most <= 2 * AT_ONCE + 1


async def test_each_flush_is_asked_of_the_next_engine_however_soon_it_answers() -> None:
    async with speaking() as scene:
        await scene.hear(3)
        await scene.session.flush(1)
        await scene.session.flush(2)
        scene.engine.prompt = True
        scene.stream.hang_up()
        await anyio.sleep(1)
        assert scene.stream.flushes == 2
        acks = [e.id for e in scene.told if isinstance(e, Ack)]
        assert acks == [1, 2]


async def test_gaps_that_nobody_is_there_to_be_told_are_bounded() -> None:
    async with speaking() as scene:
        scene.session.detach(Principal("t"))
        for count in range(2 * GAPS):
            scene.session.hole(count * 20, count * 20 + 10, sent=False)

        await scene.session.attach(scene)
        assert len(scene.gaps) == GAPS
        assert scene.gaps[-1] == (2 * GAPS * 20 - 20, 2 * GAPS * 20 - 11)
