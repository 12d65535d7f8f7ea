"""The benchmarks: what they print, when they fail, and a tiny run of each over a real server."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks import audio, connects, fanout, flood, latency
from benchmarks.report import Report, table


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


def test_a_tiny_run_over_a_real_server_finds_everything_in_place() -> None:
    reports = [
        fanout.run(fanout.Plan(listeners=(3,), steady=0.2, saturated=0.1, runs=1)),
        latency.run(latency.Plan(steps=10, listeners=3, publishes=2, rate=50, runs=1)),
        audio.run(audio.Plan(speakers=2, seconds=0.2, fast=0.1, runs=1)),
        connects.run(connects.Plan(connects=4, at_once=2, runs=1)),
        flood.run(flood.Plan(rate=100, seconds=0.1, runs=1)),
    ]
    for report in reports:
        assert report.problems == []
        assert report.rows
        assert all(row.median >= 0 for row in report.rows)
