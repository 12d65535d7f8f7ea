"""The runs beside other servers: the scanner misses nothing, the page says what was measured."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import runs
from benchmarks.peers.catalogue import SUBJECTS, TURNS, catalogue
from benchmarks.peers.goals import Goal, judge, spread, target
from benchmarks.peers.marker import ENGINE_IO, NATS, WEBSOCKET, payload, scan
from benchmarks.peers.render import render
from benchmarks.peers.runs import Everything, Facts, Machine, Plan, Run, Section, Verdict
from benchmarks.peers.sockets import READY, Marks, Member, Script, close_members
from server.load.frames import PONG, TEXT, Ledger
from server.load.target import HOST, Target

PINGS = (WEBSOCKET, ENGINE_IO, NATS)
PING = b"\x89\x04abcd"
MACHINE = Machine("a processor", 2, "Linux 6.1", 2**34, "CPython 3.11.2")
TINY = Plan(
    rounds=1,
    listeners=3,
    rate=50,
    paced=0.2,
    publishes=2,
    pause=0.01,
    offered=200,
    saturated=0.2,
    most=200,
    accepts=4,
    speakers=2,
    audio=0.4,
    scale=(2, 4),
    scaled=0.2,
)


def frame(number: int, size: int = 128) -> bytes:
    """Make a payload in a frame and some text, as a server sends it."""
    text = b'{"data":"' + payload(number, 10**18 + number, size) + b'"}'
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


def verdict(numbers: Sequence[int], published: int) -> tuple[int, int, int]:
    """Return what a listener of these numbers has lost, got late and got twice."""
    ledger = Ledger(1)
    for number in numbers:
        ledger.note(scan(frame(number)))

    return ledger.lost(published), ledger.late, ledger.twice


async def listen_to(stream: bytes, events: int) -> Marks:
    """Return what two listeners make of a server that sends just this, in small pieces."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # of who only looks whether it listens
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            for start in range(0, len(stream), 50):
                writer.write(stream[start : start + 50])
                await asyncio.sleep(0)

            await reader.readexactly(1)

        writer.close()

    tally = Marks(PINGS)
    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        members = await Target(port).open_many(lambda _: Member(Script("/"), tally), 2, READY)
        tally.listeners += members
        tally.published = events
        await tally.reach(2 * events)
        await close_members(members)

    return tally


def made_up() -> Everything:
    """Return two rounds of made-up runs."""
    costs = {"lean": [4.0, 6.0], "nchan": [8.0, 6.0], "floor": [4.0, 4.0]}
    return Everything(
        MACHINE,
        Plan(),
        at={"paced": "2026-01-02 03:04 UTC"},
        subjects=[Facts(name, name.title(), "run", "1.0") for name in costs]
        + [Facts("ws", "ws", "", "", "nobody installed it")],
        runs=[
            Run("paced", name, place, {"cost": cost, "load": 95.0, "server": 50.0})
            for name, pair in costs.items()
            for place, cost in enumerate(pair)
        ]
        + [Run("paced", "nchan", 2, {}, ["3 lost"])],
    )


@pytest.mark.parametrize("size", [34, 128, 16_384])
def test_a_payload_has_its_size_and_is_found(size: int) -> None:
    data = payload(7, 10**18, size)
    assert len(data) == size
    assert (scan(data).offsets, scan(data).stamps, scan(data).size) == ([7], [10**18], size)


def test_marks_and_pings_are_found_wherever_the_stream_is_cut_between_pings() -> None:
    stream = frame(1) + frame(2) + frame(3)
    for cut in range(len(stream)):
        first = scan(stream[:cut], PINGS)
        second = scan(stream[first.size :], PINGS)
        assert first.offsets + second.offsets == [1, 2, 3]
        assert first.others + second.others == []


def test_pings_are_told_from_lengths() -> None:
    size = 0x1089 - len(frame(1, 200)) + 204  # so that the length ends in the byte of a ping
    long = frame(1, size)
    assert long[2:4] == b"\x10\x89"
    assert scan(long, PINGS).others == []
    stream = PING + long + PING + frame(2)
    assert scan(stream, PINGS).others == [(PONG, b"abcd")] * 2
    assert scan(b"\x81\x012", PINGS).others == [(TEXT, b"3")]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3], (0, 0, 0)),
        ([1, 3], (1, 0, 0)),
        ([1, 2], (1, 0, 0)),
        ([1, 3, 2], (0, 1, 0)),
        ([1, 2, 2, 3], (0, 0, 1)),
    ],
)
def test_each_violation_is_told_from_the_others(
    numbers: list[int], expected: tuple[int, int, int]
) -> None:
    assert verdict(numbers, published=3) == expected


def test_listeners_of_an_honest_server_have_nothing_to_report() -> None:
    tally = asyncio.run(listen_to(b"".join(map(frame, range(1, 21))), events=20))
    assert +tally.audit() == Counter()
    assert len(tally.delays) == 40


def test_a_server_that_loses_repeats_and_reorders_is_found_out() -> None:
    tally = asyncio.run(listen_to(b"".join(map(frame, [1, 3, 2, 2, 5])), events=5))
    assert +tally.audit() == {"lost": 2, "out of order": 2, "delivered twice": 2}


def test_a_target_is_judged_by_the_median_of_the_ratios_of_each_round() -> None:
    found = made_up()
    half = judge(found, "paced", target("cost", Goal("cost", 0.75, base="nchan")), "lean")
    assert half == Verdict("cost: at most 0.75 x Nchan", "0.75 [0.50-1.00] x Nchan", True)
    dear = target("cost", Goal("cost", 4, "us"))
    assert judge(found, "paced", dear, "lean").met is False
    either = target("cost", Goal("cost", 4, "us"), Goal("cost", 1.3, base="floor"))
    assert judge(found, "paced", either, "lean").met is True
    assert judge(found, "paced", either, "ws").met is None


def test_the_page_is_made_of_the_runs_alone(tmp_path: Path) -> None:
    found = made_up()
    runs.write(found, tmp_path / "runs.json")
    page = render(found)
    assert render(runs.read(tmp_path / "runs.json")) == page
    assert "| Lean | 5.00 [4.00-6.00] | 1.25 [1.00-1.50] | 0.75 [0.50-1.00] |" in page
    assert "- Nchan: in round 3, 3 lost." in page
    assert "of the time, and the server was not: Lean, Nchan, Floor." in page
    assert "- ws did not take part: nobody installed it." in page
    assert "1.25 [1.00-1.50] x Floor | met |" in page


def test_other_programs_add_sections(tmp_path: Path) -> None:
    section = Section("Conformance", "A text.", ["a"], [["1"]], [Verdict("all", "half", False)])
    (tmp_path / "conformance.json").write_bytes(msgspec.json.encode(section))
    page = render(made_up(), runs.read_sections(tmp_path))
    assert "## Conformance\n\nA text.\n\n| a |\n| --- |\n| 1 |" in page
    assert "| Conformance | all | half | **missed** |" in page


def test_a_later_file_takes_the_place_of_the_same_workloads() -> None:
    found, later = made_up(), made_up()
    later.runs = [Run("paced", "lean", 0, {"cost": 1.0})]
    found.update(later)
    assert found.runs == later.runs


def test_every_workload_has_a_table_and_subjects() -> None:
    names = {subject.name for subject in SUBJECTS}
    assert {each.name for each in catalogue(Plan())} == set(command.WORKLOADS)
    assert all(names.issuperset(turn.subjects) for turn in TURNS)
    assert spread([]) == ""


def test_the_page_in_the_repository_is_that_of_its_runs() -> None:
    assert command.PAGE.read_text() == render(
        runs.read(command.RUNS), runs.read_sections(command.SECTIONS)
    )


def test_a_tiny_run_over_real_servers_finds_everything_in_place() -> None:
    subjects = {"stock"} | ({"floor"} if shutil.which("gcc") else set())
    workloads = {"paced", "saturated", "last", "accept", "audio", "scale"}
    found = command.measure(TINY, subjects | workloads, None)
    assert [run for run in found.runs if run.problems] == []
    assert {run.subject for run in found.runs} == subjects
    assert {run.workload for run in found.runs} >= workloads - {"scale"}
    assert all(run.values for run in found.runs)
    assert render(found)
