"""roomcast bench: what it finds, how it says so, and when it fails."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.load.gauges import GAUGES, USAGE
from tests.e2e.test_tenants import TenantServer
from tests.server.commands import roomcast, running
from tests.servers import Server, serving
from tests.tokens import mint, tenant

RUNS = [
    ["fanout", "--rooms", "2", "--listeners", "3", "--rate", "50", "--seconds", "0.2"],
    ["fanout", "--listeners", "3", "--rate", "0", "--seconds", "0.2"],
    ["speak", "--speakers", "3", "--seconds", "0.3"],
    ["connect", "--connections", "20", "--at-once", "5", "--rate", "200"],
    ["soak", "--cycles", "30", "--at-once", "5"],
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes few connections, and gives up soon who does not read."""
    settings = {"limits__connections": 40, "limits__egress__age": 0.5, "drain__window": 0}
    settings |= {"speech__resume_grace": 0.5}
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(log, engines__enabled="echo", **settings) as running:
        yield running


def found(server: Server, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Make a run and return its JSON."""
    done = roomcast("bench", *arguments, "--json", ROOMCAST_URL=server.http)
    assert (done.returncode, done.stderr) == (status, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("run", [RUNS[0], RUNS[4]], ids=" ".join)
def test_a_run_is_a_table_that_fits_a_terminal(server: Server, run: list[str]) -> None:
    done = roomcast("bench", *run, ROOMCAST_URL=server.http)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith(f"{run[0]}: ")
    assert lines[1].startswith(f"{server.http}, ")
    assert lines[-1].startswith("  ok: ")
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_a_run_is_json_with_what_the_server_used(server: Server, run: list[str]) -> None:
    report = found(server, *run, "--pid", str(server.process.pid))
    assert report["bench"] == run[0]
    assert (report["problems"], report["interrupted"]) == ([], False)
    assert 0 < report["seconds"] < 10
    assert report["load_percent"] > 0
    assert report["server_percent"] > 0
    (cost,) = (report[key] for key in report if key.startswith("server_us_per_"))
    assert cost > 0
    delays = [report[key] for key in report if key.endswith("_us")]
    assert delays
    assert all(0 < each["p50"] <= each["p99"] <= each["max"] for each in delays)
    if run == RUNS[0]:
        assert report["plan"]["rooms"] == 2
        assert report["published"] == 2 * 50 * 0.2
        assert report["deliveries"] == 3 * report["published"]


def test_a_soak_looks_at_everything_that_lives_on_a_server_with_tenants(tmp_path: Path) -> None:
    server = TenantServer(
        tmp_path / "log",
        tenants=msgspec.json.encode(tenant()).decode(),
        engines__enabled="echo",
        speech__resume_grace=0.5,
        drain__window=0,
    )
    server.start()
    try:
        options = ["--cycles", "60", "--at-once", "10", "--rate", "20", "--json"]
        call = ["bench", "soak", *options, "--pid", str(server.process.pid)]
        done = roomcast(*call, ROOMCAST_URL=server.http, ROOMCAST_TOKEN=mint())
        report = json.loads(done.stdout)
        assert (done.returncode, done.stderr, report["problems"]) == (0, "", [])
        names = [f"used_{name}" for name in USAGE] + list(GAUGES)
        assert all(f"{name}_left" in report for name in names)
        assert report["server_mb_base"] > 0
        assert report["server_mb_after"] > 0
        assert server.metric('roomcast_refusals_total{code="unauthorized"}') == 3
        assert server.metric('roomcast_connections_opened_total{kind="speak"}') == 3
        assert server.metric('roomcast_disconnects_total{code="1006"}') >= 6
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def test_listeners_that_stall_are_sent_away_and_nobody_else_notices(server: Server) -> None:
    many = ["--size", "20000", "--rate", "0", "--seconds", "1", "--listeners", "4"]
    report = found(server, "fanout", *many, "--stalled", "25%")
    assert sum(report["stalled"].values()) == 1
    assert "not sent enough to be sent away" not in report["stalled"]
    assert report["deliveries"] == 3 * report["published"]


def test_who_is_refused_is_counted_by_reason(server: Server) -> None:
    report = found(server, "connect", "--connections", "45", status=1)
    assert report["failures"] == {"HTTP 503 overload": 5}
    assert report["problems"] == ["5 HTTP 503 overload"]


def test_an_engine_that_does_not_exist_is_said(server: Server) -> None:
    done = roomcast("bench", "speak", "--engine", "no such", ROOMCAST_URL=server.http)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("\n  FAILED: ended early: HTTP 400 unknown_engine\n")


@pytest.mark.parametrize("run", [RUNS[0], RUNS[2], RUNS[4]], ids=" ".join)
def test_ctrl_c_ends_a_run_with_what_there_is(server: Server, run: list[str]) -> None:
    name, counter = run[0], partial(server.metric, "roomcast_deliveries_total")
    longer = ["--cycles", "1000000"] if name == "soak" else ["--seconds", "60"]
    before = counter()
    with running("bench", *run, *longer, "--json", environ={"ROOMCAST_URL": server.http}) as bench:
        wait_for(lambda: counter() > before + 10, bench.process.poll)
        assert bench.interrupt() == 130
        report = json.loads(bench.line())

    assert report["interrupted"]
    assert report["problems"] == []
    assert report["seconds"] < 30


def test_a_server_that_dies_is_a_failure(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", engines__enabled="echo")
    server.start()
    try:
        call = ["bench", "fanout", "--listeners", "2", "--url", server.http]
        with running(*call) as bench:
            delivered = partial(server.metric, "roomcast_deliveries_total")
            wait_for(lambda: delivered() > 4, bench.process.poll)
            server.kill()
            bench.until("FAILED: 2 cut off")
            bench.until("FAILED: ended early: cut off")
            assert bench.wait() == 1
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["fanout", "--stalled", "100%"], "'100%' is no share from 0% to 99%."),
        (["fanout", "--stalled", "0.5%"], "--stalled 0.5% of 100 listeners"),
        (["fanout", "--seconds", "nan"], "nan is not a number."),
        (["fanout", "--size", "8"], "8 is not in the range 19<=x<=60000."),
        (["fanout", "--rooms", "9999", "--listeners", "9999"], "99,980,002 connections are more"),
        (["speak", "--pid", "4194305"], "there is no process 4194305 on this machine"),
        (["soak", "--url", "nonsense"], "nonsense is not the address of a server"),
    ],
)
def test_a_wrong_call_is_one_sentence(call: list[str], said: str) -> None:
    done = roomcast("bench", *call)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]


def test_the_limit_of_files_is_raised_as_far_as_it_goes(server: Server) -> None:
    def limit(hard: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    call = ["bench", "connect", "--connections", "39", "--url", server.http]
    with running(*call, preexec_fn=limit(200)) as bench:
        bench.until("ok: ")
        assert bench.wait() == 0

    with running(*call, preexec_fn=limit(100)) as bench:
        assert "39 connections are more than the 36 that the limit of open files" in bench.note()
        assert bench.wait() == 2


def wait_for(fits: Callable[[], bool], ended: Callable[[], int | None]) -> None:
    """Wait for something while a process runs."""
    while not fits():
        assert ended() is None
