"""The server speaks WebSocket as RFC 6455 has it, by the judgement of Autobahn|Testsuite."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.conformance.autobahn import NO_RUNNER, RUNNER, SUITES, Run, Suite, Verdict, run
from tests.protocols import PROTOCOLS
from tests.servers import serving

FINE, BAD = Verdict("OK", "OK", 1), Verdict("FAILED", "OK", 1)


@pytest.mark.skipif(not RUNNER.exists(), reason=NO_RUNNER)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_case_fails_but_those_allowed(protocol: str, tmp_path: Path) -> None:
    suite = SUITES["fast"]
    settings = PROTOCOLS[protocol] | suite.settings
    with serving(tmp_path / "server", engines__enabled="echo", **settings) as server:
        found = run(suite, protocol, server, tmp_path)

    click.echo(f"\n{found}")
    assert found.failures(suite) == [], f"{found}; the reports are in {tmp_path}"


@pytest.mark.parametrize(
    ("second", "failures"),
    [
        (FINE, []),
        (Verdict("NON-STRICT", "INFORMATIONAL", 1), []),
        (BAD, ["1.2: behavior FAILED, close OK"]),
        (Verdict("OK", "WRONG CODE", 1), ["1.2: behavior OK, close WRONG CODE"]),
        (Verdict("UNIMPLEMENTED", "OK", 1), ["1.2: behavior UNIMPLEMENTED, close OK"]),
        (None, ["1 cases have no verdict"]),
    ],
)
def test_a_bad_verdict_and_a_missing_one_are_failures(
    second: Verdict | None, failures: list[str]
) -> None:
    suite = Suite(cases=["*"], count=3, within=1, allowed={"1.3": "a reason"})
    cases = {"1.1": FINE, "1.3": BAD} | ({"1.2": second} if second else {})
    assert Run("stock", 1, cases).failures(suite) == failures


def test_a_run_counts_its_verdicts_and_names_those_that_are_not_ok() -> None:
    cases = {"1": FINE, "2": FINE, "3": Verdict("NON-STRICT", "OK", 1), "4": BAD}
    counted = "stock: 4 cases, 1.5 s: 2 OK, 1 NON-STRICT (3), 1 FAILED (4)"
    assert str(Run("stock", 1.5, cases)) == counted
