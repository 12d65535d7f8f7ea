"""The runs of relays: no byte is lost unseen, and a tiny run over the double and the bridge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from benchmarks.peers import runs
from benchmarks.peers.render import render
from benchmarks.peers.runs import Everything, Facts, Run, Section
from benchmarks.relay import __main__ as command
from benchmarks.relay.client import Choir
from benchmarks.relay.double import Hypotheses, Stream
from benchmarks.relay.page import section
from benchmarks.relay.tape import FINAL, FRAME_BYTES, Tape, frame, read_mark
from benchmarks.relay.turn import Plan
from server.load.target import HOST, Target
from tests.test_peers import MACHINE

TINY = Plan(rounds=1, speakers=(3,), stagger=100, seconds=0.4)
AUDIO = b"".join(frame(number, speaker=7) for number in range(6))


class Dropping(Stream):
    """A provider that one frame of audio never reaches."""

    def _hear(self, audio: bytes) -> None:
        if audio[:4] != frame(5, 0)[:4]:
            super()._hear(audio)


class Repeating(Stream):
    """A provider whose finals come twice."""

    def _say(self, message: bytes) -> None:
        for _ in range(1 + message.startswith(b'{"type":"final"')):
            super()._say(message)


class Silent(Stream):
    """A provider that never ends."""

    def _end(self, text: str | bytes) -> None:
        return


async def sing(provider: Callable[[], Stream], ticks: int) -> tuple[Choir, Counter[str]]:
    """Let two speakers speak to a provider; return them and what they find wrong."""
    loop, choir = asyncio.get_running_loop(), Choir(2, stagger=1000)
    async with await loop.create_server(provider, HOST, 0) as server:
        await choir.open(Target(server.sockets[0].getsockname()[1]))
        choir.measure(range(ticks))
        choir.metronome.start()
        await choir.metronome.until(ticks)
        choir.metronome.stop()
        await choir.end(within=0.1)

    return choir, choir.audit()


@pytest.mark.parametrize("size", [1, 3, 639, 640, 641, 1280, len(AUDIO)])
def test_audio_is_checked_however_it_is_cut(size: int) -> None:
    tape, reached = Tape(), list[int]()
    for start in range(0, len(AUDIO), size):
        reached += tape.take(AUDIO[start : start + size])

    tape.end()
    assert (reached, tape.frames, tape.wrong) == ([1, 2, 3, 4, 5, 6], 6, 0)


@pytest.mark.parametrize(
    "audio",
    [
        AUDIO[:700] + AUDIO[701:],
        AUDIO[:700] + b"!" + AUDIO[701:],
        AUDIO[:-1],
        AUDIO + AUDIO[-FRAME_BYTES:],
        AUDIO[:FRAME_BYTES] + AUDIO[2 * FRAME_BYTES :],
        AUDIO[: 3 * FRAME_BYTES] + frame(3, speaker=8),
    ],
    ids=["lost byte", "changed byte", "lost end", "frame twice", "lost frame", "somebody else's"],
)
def test_what_is_wrong_with_the_audio_is_seen(audio: bytes) -> None:
    tape = Tape()
    tape.take(audio)
    tape.end()
    assert tape.wrong > 0


def test_results_are_those_of_the_protocol_and_end_with_the_mark_of_their_frame() -> None:
    hypotheses = Hypotheses(start=3.0)
    said = [hypotheses.at(frames, wrong=0) for frames in range(1, 2 * FINAL + 1)]
    events = [msgspec.json.decode(message) for message in said if message]
    assert [event["type"] for event in events] == (["partial"] * 4 + ["final"]) * 2
    assert [(event["ts"], event["end_ts"]) for event in events[4:6]] == [(3.0, 4.0), (4.0, 4.2)]
    assert [each["value"] for each in events[3]["elements"]] == ["f20e0", "f40e0"]
    final = events[4]["elements"]
    assert "".join(each["value"] for each in final) == "f20e0 f40e0 f50e0."
    assert final[2] == {
        "type": "text",
        "value": "f40e0",
        "ts": 3.4,
        "end_ts": 3.8,
        "confidence": 1.0,
    }
    assert hypotheses.final(2 * FINAL, wrong=0) == b""
    with pytest.raises(ValueError, match="no mark"):
        read_mark("hello")


def test_speakers_of_an_honest_provider_have_nothing_to_report() -> None:
    choir, found = asyncio.run(sing(Stream, ticks=420))
    assert found == {}
    assert [(each.sent, each.heard) for each in choir.speakers] == [(21, 21), (0, 0)]
    assert len(choir.delays) == 2


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (Dropping, {"bytes lost": FRAME_BYTES, "frames damaged": 5}),
        (Repeating, {"finals delivered twice": 1}),
        (Silent, {"streams not ended in time": 2, "finals lost": 1, "bytes lost": FRAME_BYTES}),
    ],
)
def test_what_a_relay_does_wrong_is_found_out(
    provider: type[Stream], expected: dict[str, int]
) -> None:
    assert asyncio.run(sing(provider, ticks=210))[1] == expected


def test_the_section_is_made_of_the_runs_alone() -> None:
    costs: dict[str, runs.Values] = {"direct": {}, "bridge": {"cost": 40.0}, "lean": {"cost": 24.0}}
    found = Everything(MACHINE, runs.Plan(), subjects=[Facts(x, x.title(), "", "1") for x in costs])
    for place, (name, cost) in enumerate(costs.items()):
        for count in (50, 200):
            values = {"p50": 1.0 + place, "p99": 5.0 + place, "lost": 0.0, **cost}
            found.runs.append(Run(f"relay-{count}", name, 0, values))

    found.runs[-1].problems.append("3 finals lost")
    made = section(found, Plan(), "2026-01-02 03:04 UTC")
    page = render(found, [msgspec.json.decode(msgspec.json.encode(made), type=Section)])
    assert "| 50 | Lean | 24.0 | 0.60 | 3.00 | 7.00 |  | 2.00 | 2.00 |" in page
    assert "- Lean, 200 speakers, round 1: 3 finals lost." in page
    assert [verdict.met for verdict in made.targets] == [True, True, False, False, True, False]
    assert made.targets[-1].measured == "wrong in 1 of 2 runs"


def test_a_quick_run_over_the_double_and_the_bridge_finds_everything_in_place() -> None:
    found = command.measure(TINY, ("direct", "bridge"))
    assert found.everything is not None
    assert [run.problems for run in found.everything.runs] == [[], []]
    assert [run.values["lost"] for run in found.everything.runs] == [0, 0]
    assert found.everything.runs[1].values["cost"] > 0
    assert len(found.rows) == 2
