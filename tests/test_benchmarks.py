"""The load harness counts right: order, gaps and duplicates, over a real server and a lying one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.messages import Joined, Message, Transcript
from actors.wire import Frame, pack_frame
from benchmarks import __main__ as command
from benchmarks import audio, connects, fanout, latency
from benchmarks.report import Report, percentile, table
from server.load.frames import CLOSE, PING, Ledger, pack, parse
from server.load.sockets import HOST, Tally, open_listeners
from tests.actors.node import transcript

STAMP = "1234567890123456789"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
JOINED = Frame(Joined(room="a", epoch="e", offset=0)).json_frame


def message(offset: int) -> bytes:
    """Make a message as it goes over a socket."""
    event = Message(room="a", data=STAMP + "x" * 200, sender="", at=1.5, offset=offset, epoch="e")
    return Frame(event).json_frame


def verdict(offsets: Sequence[int], published: int) -> tuple[int, int, int]:
    """Return what a listener of these offsets has lost, got late and got twice."""
    ledger = Ledger(1)
    for offset in offsets:
        ledger.note(parse(message(offset)))

    return ledger.lost(published), ledger.late, ledger.twice


async def listen_to(stream: bytes, events: int, listeners: int = 2) -> Tally:
    """Return what listeners make of a server that sends just this after the join."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER + JOINED + stream)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        tally = Tally()
        await open_listeners(server.sockets[0].getsockname()[1], "a", listeners, tally)
        await tally.reach(events * listeners)
        for listener in tally.listeners:
            listener.transport.close()
            await listener.ended

    return tally


def test_frames_are_read_wherever_the_stream_is_cut() -> None:
    partial = transcript("s", final=False).json_frame
    final = Transcript(**msgspec.structs.asdict(transcript("s", final=True, text="x" * 300).event))
    last = Frame(msgspec.structs.replace(final, offset=3, epoch="e")).json_frame
    stream = message(1) + partial + pack_frame(PING, b"1234") + message(2) + last
    for cut in range(len(stream)):
        first = parse(stream[:cut])
        second = parse(stream[first.size :])
        assert first.offsets + second.offsets == [1, 0, 2, 3]
        assert first.stamps + second.stamps == [int(STAMP)] * 2
        assert first.others + second.others == [(PING, b"1234")]


def test_an_unbroken_run_is_clean() -> None:
    assert verdict([1, 2, 3], published=3) == (0, 0, 0)


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([1, 3], (1, 0, 0)),
        ([1, 2], (1, 0, 0)),
        ([2, 3], (1, 0, 0)),
        ([1, 3, 2], (0, 1, 0)),
        ([1, 2, 2, 3], (0, 0, 1)),
        ([1, 3, 3, 2, 2], (0, 1, 2)),
    ],
)
def test_each_violation_is_told_from_the_others(
    offsets: list[int], expected: tuple[int, int, int]
) -> None:
    assert verdict(offsets, published=3) == expected


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), max_size=30), st.integers(1, 12))
def test_the_ledger_agrees_with_sets_however_the_stream_is_batched(
    offsets: list[int], size: int
) -> None:
    ledger = Ledger(1)
    for start in range(0, len(offsets), size):
        ledger.note(parse(b"".join(map(message, offsets[start : start + size]))))

    seen = set(offsets)
    late = sum(
        offset not in offsets[:place] and any(other > offset for other in offsets[:place])
        for place, offset in enumerate(offsets)
    )
    assert ledger.lost(12) == 12 - len(seen)
    assert ledger.twice == len(offsets) - len(seen)
    assert ledger.late == late


def test_listeners_of_an_honest_server_have_nothing_to_report() -> None:
    stream = b"".join(map(message, range(1, 51)))
    tally = asyncio.run(listen_to(stream, events=50))
    assert tally.received == 100
    assert len(tally.delays) == 100
    assert tally.problems(published=50) == []


def test_a_server_that_loses_repeats_and_reorders_is_found_out() -> None:
    stream = b"".join(map(message, [1, 3, 2, 2, 5]))
    tally = asyncio.run(listen_to(stream, events=5, listeners=2))
    assert tally.problems(published=5) == ["2 lost", "2 out of order", "2 delivered twice"]


def test_a_listener_that_was_cut_off_is_told() -> None:
    cut = pack_frame(CLOSE, (4001).to_bytes(2, "big") + b"slow_consumer")
    tally = asyncio.run(listen_to(message(1) + cut, events=1, listeners=1))
    assert tally.problems(published=2) == ["1 lost", "1 interrupted"]


def test_a_violation_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Report("good"), Report("bad")
    bad.check("1 x 2", ["1 lost"])
    monkeypatch.setattr(command, "BENCHMARKS", {"good": lambda _: good, "bad": lambda _: bad})
    assert command.main(["good"]) == 0
    assert command.main(["bad"]) == 1
    assert "VIOLATION: 1 x 2: 1 lost" in capsys.readouterr().out


def test_a_report_shows_the_median_and_the_range_of_its_runs() -> None:
    report = Report("b")
    report.add("m", "us", [30.0, 10.0, 20.0])
    assert report.rows[0].median == 20.0
    assert "20.0 us" in table(report)
    assert "10.0 - 30.0" in table(report)


@pytest.mark.parametrize(("percent", "expected"), [(50, 51), (99, 100), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: int, expected: int) -> None:
    assert percentile(range(1, 101), percent) == expected


def test_a_client_frame_is_masked() -> None:
    assert pack(1, b"ab") == b"\x81\x82\x00\x00\x00\x00ab"
    assert pack(2, bytes(640))[:4] == b"\x82\xfe\x02\x80"


def test_a_tiny_run_over_a_real_server_finds_everything_in_place() -> None:
    reports = [
        fanout.run(fanout.Plan(listeners=(3,), steady=0.2, saturated=0.1, runs=1)),
        latency.run(latency.Plan(steps=10, listeners=3, publishes=2, rate=50, runs=1)),
        audio.run(audio.Plan(speakers=2, seconds=0.2, fast=0.1, runs=1)),
        connects.run(connects.Plan(connects=4, at_once=2, runs=1)),
    ]
    for report in reports:
        assert report.problems == []
        assert report.rows
        assert all(row.median >= 0 for row in report.rows)
