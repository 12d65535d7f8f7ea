"""The runs of two tenants: what is left out, what is judged, and a tiny run over real servers."""

from __future__ import annotations

from benchmarks.neighbours import __main__ as command
from benchmarks.neighbours.noise import KINDS, TOGETHER
from benchmarks.neighbours.page import DESCRIBED, section
from benchmarks.neighbours.quiet import DISTURBED, Heard
from benchmarks.neighbours.quiet import Plan as Tenant
from benchmarks.neighbours.windows import ELSEWHERE, EVERY, HERE, QUIET, Plan, Pooled
from benchmarks.peers.runs import Run
from server.load.delays import Delays

TINY = Plan(
    rounds=1,
    seconds=0.2,
    lead=0.1,
    rest=0.05,
    tenant=Tenant(rooms=1, listeners=2, rate=50, speakers=1),
)


def test_a_message_is_left_out_if_something_else_had_a_core_meanwhile() -> None:
    looks = [(0, 0.0), (100, DISTURBED), (200, 3 * DISTURBED), (300, 3 * DISTURBED)]
    heard = Heard(looks, [(0, 1), (0, 2), (100, 500), (200, 3)], Delays())
    assert (len(heard.delays), heard.delays.percentile(100)) == (3, 3)
    assert round(heard.left_out) == 33


def test_a_noise_is_judged_by_that_at_the_second_server() -> None:
    pooled: Pooled = {("", QUIET): [Delays([100])]}
    found = [Run("", QUIET, 0, {"p50": 0.1}), Run("delivery", QUIET, 0, {}, ["1 lost"])]
    for kind, here in (("storm", 220), ("posts", 250)):
        pooled[kind, ELSEWHERE] = [Delays([200])]
        pooled[kind, HERE] = [Delays([here])]
        found += [Run(kind, state, 0, {"p50": 0.1}) for state in (ELSEWHERE, HERE)]

    made = section(found, pooled, Plan(), "2026-01-02 03:04 UTC")
    assert [verdict.met for verdict in made.targets] == [False, True, False, False, False]
    assert "was 2.00 to 2.00 times that with nobody there" in made.text
    assert [row[-2:] for row in made.rows] == [
        ["", ""],
        ["2.00", ""],
        ["2.20", "1.10"],
        ["2.00", ""],
        ["2.50", "1.25"],
    ]


def test_every_noise_is_described() -> None:
    assert set(DESCRIBED) == {*KINDS, *TOGETHER} == set(EVERY)


def test_a_tiny_run_over_real_servers_finds_everything_in_place() -> None:
    found = command.measure(TINY, ("publishes", "replays"))
    assert found.targets[-1].met
    here = {run.workload: run.values for run in found.runs if run.subject == HERE}
    assert here["publishes"]["loud publishes"] > 0
    assert here["replays"]["loud replays"] > 0
    assert all(values["p50"] > 0 for values in here.values())
