"""One speech session between its speaker, its engine and its room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Close, Refused, UpstreamLost, find
from actors.limits import Ingress, Limits, Upstream
from actors.messages import AnyEvent, AudioSpec, Gap, Speaker, Speech
from actors.roles import Subject, stem_of
from actors.speech import SpeechSession
from tests.actors.node import SECOND
from tests.autojump import settle
from tests.fakes import FakeEngine, FakeOutlet, FakeUpstream

pytestmark = pytest.mark.anyio
STEM = stem_of("s")
"""How the segments of the session begin."""
FRAME = b"\0" * (SECOND // 10)
"""A tenth of a second."""
TIGHT = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2, policy="block"))
LIVE = Limits(ingress=Ingress(frames=3), upstream=Upstream(frames=2, policy="drop_oldest"))


class Speaking:
    """A session that runs, with everything around it within reach."""

    def __init__(self, limits: Limits, engine: FakeEngine) -> None:
        self.engine, self.outlet = engine, FakeOutlet(limits)
        self.told: list[AnyEvent] = []
        subject = Subject("s", "t/a", "a", Speaker("1", "Ann"), AudioSpec())
        self.session = SpeechSession(subject, [engine], None, self.outlet)
        self.session.holder = self
        self.accepted: list[float] = []
        self.failure: Exception | None = None
        self.over_at: float | None = None
        self.closed: Close | None = None
        self.let_go = False

    @property
    def stream(self) -> FakeUpstream:
        """The engine's side."""
        return self.engine.streams[-1]

    @property
    def states(self) -> list[str]:
        """The states that the speaker was told."""
        return [event.state for event in self.told if isinstance(event, Speech)]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The holes that the speaker was told."""
        return [(event.first, event.last) for event in self.told if isinstance(event, Gap)]

    def tell(self, event: AnyEvent) -> None:
        """Keep what the speaker is told."""
        self.told.append(event)

    def close(self, close: Close) -> None:
        """Keep how the connection was closed."""
        self.closed = close

    def replaced(self) -> None:
        """Note that another connection has the session."""
        self.let_go = True

    def over(self, error: Exception | None) -> None:
        """Leave it to `run`, which knows already."""

    async def run(self) -> None:
        """Run the session and keep how it failed."""
        try:
            await self.session.run(lambda: self.accepted.append(anyio.current_time()))
        except Exception as error:
            self.failure = error

        self.over_at = anyio.current_time()

    async def hear(self, frames: int) -> None:
        """Speak for so many tenths of a second, each of them with other bytes."""
        for _ in range(frames):
            await self.session.intake.hear(numbered(self.session.received))


def numbered(position: int) -> bytes:
    """Make a frame that shows where it belongs."""
    return position.to_bytes(4, "big") + FRAME[4:]


@asynccontextmanager
async def speaking(
    limits: Limits | None = None, engine: FakeEngine | None = None
) -> AsyncIterator[Speaking]:
    """Run a session for the length of a test."""
    scene = Speaking(limits or Limits(), engine or FakeEngine())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.run)
        await settle()
        yield scene
        tasks.cancel_scope.cancel()


async def test_audio_goes_to_the_engine_and_words_to_the_room() -> None:
    async with speaking() as scene:
        await scene.hear(5)
        await settle()
        assert [frame.position for frame in scene.stream.frames] == [
            len(FRAME) * count for count in range(5)
        ]
        scene.stream.transcribe("he", final=False)
        scene.stream.transcribe("hello", revision=1, start=0.1, end=0.5)
        await settle()
        (key, partial), (_, final) = scene.outlet.published
        assert (key, partial.segment, partial.final) == ("t/a", f"{STEM}.0", False)
        assert (final.segment, final.revision, final.text) == (f"{STEM}.0", 1, "hello")
        assert (final.start, final.end, final.words[0].end) == (0.1, 0.5, 0.5)
        assert (final.speaker, final.language, final.room) == (Speaker("1", "Ann"), "en", "a")
        assert scene.states == ["connecting", "ready"]
        assert scene.accepted == [0]


async def test_the_end_of_the_audio_is_the_end_of_the_session_once_the_last_final_is_out() -> None:
    async with speaking() as scene:
        await scene.hear(2)
        scene.session.end()
        scene.session.end()
        await settle()
        assert (scene.stream.ended, scene.over_at) == (True, None)
        scene.stream.transcribe("last words")
        scene.stream.finish()
        await settle()
        assert [event.text for _, event in scene.outlet.published] == ["last words"]
        assert (scene.failure, scene.over_at, scene.stream.left) == (None, 0.0, True)


async def test_under_block_a_stalled_engine_holds_the_speaker_back_and_nothing_is_lost() -> None:
    async with speaking(TIGHT) as scene, anyio.create_task_group() as tasks:
        scene.stream.stall()
        tasks.start_soon(scene.hear, 20)
        await settle()
        in_channels = scene.session.intake.ingress.depth + scene.session.intake.upstream.depth
        assert in_channels == 3 + 2
        # one in the hand of the engine's feeder, and the one that `hear` still waits with
        assert scene.session.received == (in_channels + 1 + 1) * len(FRAME)
        await anyio.sleep(1000)
        assert scene.session.received == 7 * len(FRAME)
        scene.stream.resume()
        await settle()
        assert scene.session.received == 20 * len(FRAME)
        assert scene.stream.audio == b"".join(numbered(count * len(FRAME)) for count in range(20))
        assert scene.gaps == []
        assert scene.outlet.audio.ingress.dropped == scene.outlet.audio.upstream.dropped == 0
        assert scene.outlet.audio.ingress.waited > 0


async def test_a_frame_that_waits_when_the_audio_ends_is_not_lost() -> None:
    async with speaking(TIGHT) as scene, anyio.create_task_group() as tasks:
        scene.stream.stall()
        tasks.start_soon(scene.hear, 7)
        await settle()
        scene.session.end()
        scene.stream.resume()
        await settle()
        assert len(scene.stream.audio) == scene.session.received == 7 * len(FRAME)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=5))
async def test_under_drop_oldest_every_loss_is_told_and_times_stay_linear(
    script: list[tuple[int, bool]],
) -> None:
    async with speaking(LIVE) as scene:
        for frames, stalls in [*script, (1, False)]:
            if stalls:
                scene.stream.stall()
            else:
                scene.stream.resume()

            for _ in range(frames):
                await scene.hear(1)
                await settle()

        await settle()
        lost = sum(last - first + 1 for first, last in scene.gaps)
        heard = scene.stream.frames
        assert lost == scene.outlet.audio.upstream.dropped * len(FRAME)
        assert lost + len(scene.stream.audio) == scene.session.received
        missing = {
            position for first, last in scene.gaps for position in range(first, last, len(FRAME))
        }
        assert not missing & {frame.position for frame in heard}

        for count in range(len(heard)):
            scene.stream.transcribe("w", count, start=count / 10, end=(count + 1) / 10)

        await settle()
        for frame, (_, event) in zip(heard, scene.outlet.published, strict=True):
            begins = frame.position / SECOND
            word = event.words[0]
            assert [event.start, word.start] == pytest.approx([begins] * 2)
            assert [event.end, word.end] == pytest.approx([begins + 0.1] * 2)


async def test_a_slow_engine_under_drop_oldest_never_holds_the_speaker_back() -> None:
    async with speaking(LIVE) as scene:
        scene.stream.stall()
        for _ in range(50):
            await scene.hear(1)
            await settle()

        assert scene.session.received == 50 * len(FRAME)
        assert scene.session.intake.ingress.depth == 0
        assert scene.session.intake.upstream.depth == 2
        scene.stream.resume()
        await settle()
        # the engine has the frame that it had in hand, then the newest two
        assert [frame.position // len(FRAME) for frame in scene.stream.frames] == [0, 48, 49]
        assert scene.gaps == [(len(FRAME), 48 * len(FRAME) - 1)]


async def test_a_session_whose_engine_does_not_come_back_ends() -> None:
    async with speaking(TIGHT) as scene, anyio.create_task_group() as tasks:
        scene.stream.stall()
        tasks.start_soon(scene.hear, 12)
        await settle()
        scene.engine.broken = UpstreamLost("gone for good")
        scene.stream.hang_up()
        await anyio.sleep(70)
        assert scene.failure is not None
        assert find(scene.failure, UpstreamLost)
        assert scene.session.received == 12 * len(FRAME), "who waited has been let go"
        await scene.hear(1)
        assert scene.session.silence(99.0) == 0


async def test_an_engine_that_refuses_is_passed_on() -> None:
    engine = FakeEngine(max_streams=0)
    async with speaking(engine=engine) as scene:
        assert scene.failure is not None
        assert find(scene.failure, Refused)
        assert scene.states == ["connecting"]
        assert scene.accepted == []


async def test_an_engine_too_slow_to_open_is_lost() -> None:
    engine = FakeEngine()
    engine.slow_to_open = 11
    async with speaking(Limits(upstream=Upstream(open_within=10)), engine) as scene:
        await scene.hear(1)
        assert scene.session.lag == 0.1
        await anyio.sleep(12)
        assert isinstance(scene.failure, UpstreamLost)
        assert scene.over_at == 10


async def test_an_open_engine_has_all_the_time_it_wants() -> None:
    async with speaking() as scene:
        await anyio.sleep(1000)
        assert scene.over_at is None


@pytest.mark.parametrize("stalled", [False, True])
async def test_an_engine_that_never_finishes_is_lost(stalled: bool) -> None:
    async with speaking(Limits(upstream=Upstream(end_within=10))) as scene:
        await scene.hear(1)
        await settle()
        if stalled:
            scene.stream.stall()

        scene.session.end()
        await anyio.sleep(11)
        assert isinstance(scene.failure, UpstreamLost)
        assert scene.over_at == 10


async def test_an_abandoned_session_has_so_long_and_no_longer() -> None:
    async with speaking() as scene:
        scene.stream.stall()
        await scene.hear(1)
        scene.session.abandon(3)
        scene.session.abandon(5)
        await anyio.sleep(4)
        assert isinstance(scene.failure, UpstreamLost)
        assert scene.over_at == 3


async def test_a_session_abandoned_while_it_connects_keeps_its_deadline() -> None:
    engine = FakeEngine()
    engine.slow_to_open = 2
    async with speaking(engine=engine) as scene:
        scene.session.abandon(3)
        await anyio.sleep(4)
        assert scene.states == ["connecting", "ready"]
        assert scene.over_at == 3


async def test_lag_is_what_the_engine_has_yet_to_hear() -> None:
    async with speaking() as scene:
        await scene.hear(2)
        await settle()
        scene.stream.stall()
        await scene.hear(3)
        assert scene.session.lag == pytest.approx(0.3)
        scene.session.report()
        assert isinstance(report := scene.told[-1], Speech)
        assert (report.state, report.received, report.lag) == ("ready", 5 * len(FRAME), 0.3)
        assert (report.engine, report.session, report.room) == ("fake", "s", "a")
        assert scene.session.seconds == 0.5
        assert scene.session.told == pytest.approx(0.3)


async def test_silence_counts_from_the_newest_audio() -> None:
    async with speaking() as scene:
        await anyio.sleep(5)
        await scene.hear(1)
        assert scene.session.silence(15.0) == 10
        scene.session.end()
        assert scene.session.silence(15.0) == 0


async def test_who_waits_for_a_slow_engine_is_not_silent() -> None:
    async with speaking(TIGHT) as scene, anyio.create_task_group() as tasks:
        scene.stream.stall()
        tasks.start_soon(scene.hear, 7)
        await anyio.sleep(100)
        assert scene.session.silence(anyio.current_time()) == 0
        scene.stream.resume()
        await settle()
        assert scene.session.intake.ingress.depth == 0
        assert scene.session.silence(anyio.current_time()) == 0


async def test_the_delay_of_a_final_runs_from_the_last_sound_of_it() -> None:
    async with speaking() as scene:
        for _ in range(10):
            await scene.session.intake.hear(bytes(SECOND // 4))
            await anyio.sleep(0.25)

        scene.stream.transcribe("all of it", end=1.0)
        scene.stream.transcribe("only a hint", segment=1, end=1.5, final=False)
        scene.stream.transcribe("to the end", segment=1, end=2.5)
        scene.stream.transcribe("more than there was", segment=2, end=2.6)
        await settle()
        assert scene.outlet.watch.latencies == [2.5 - 0.75, 2.5 - 2.25, 2.5 - 2.25]


async def test_an_engine_that_ends_unasked_is_dialled_again() -> None:
    async with speaking() as scene:
        scene.stream.finish()
        await anyio.sleep(1)
        assert scene.failure is None
        assert len(scene.engine.streams) == 2
        assert scene.states == ["connecting", "ready", "lost", "recovered"]


@given(st.lists(st.sampled_from(["speak", "wait", "stall", "resume", "settle"]), max_size=40))
async def test_audio_keeps_its_order_whichever_way_it_takes(script: list[str]) -> None:
    """Past an idle engine's channels, through them, or after a wait: the engine hears the same."""
    async with speaking(TIGHT) as scene, anyio.create_task_group() as tasks:
        session, accepted = scene.session, 0
        for step in [*script, "resume", "settle"]:
            match step:
                case "speak":
                    accepted += session.intake.hear_nowait(numbered(session.received))
                case "wait" if session.intake.ingress.open:
                    accepted += 1
                    tasks.start_soon(session.intake.hear, numbered(session.received))
                    await settle()
                case "stall":
                    scene.stream.stall()
                case "resume":
                    scene.stream.resume()
                case "settle":
                    await settle()

        await settle()
        assert session.received == accepted * len(FRAME)
        assert scene.stream.audio == b"".join(numbered(n * len(FRAME)) for n in range(accepted))


async def test_an_engine_that_waits_hears_a_frame_within_the_call() -> None:
    async with speaking(TIGHT) as scene:
        await settle()
        assert scene.session.intake.hear_nowait(FRAME)
        assert len(scene.stream.audio) == len(FRAME)
        scene.stream.stall()
        await settle()
        room = 2 + 3  # upstream and ingress: nothing is in anybody's hand until the loop turns
        assert [scene.session.intake.hear_nowait(FRAME) for _ in range(room + 1)] == [
            True
        ] * room + [False]
        assert scene.session.received == (1 + room) * len(FRAME)
