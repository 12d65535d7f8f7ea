"""Autobahn|Testsuite's fuzzing client against the echo of a server, and what it found."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from pathlib import Path

import msgspec

from tests.servers import ROOT, Server

RUNNER = ROOT / ".tools" / "wstest" / "wstest"
NO_RUNNER = "there is no Autobahn runner: `make conformance` builds it, or says why it cannot"
OURS = "lean"
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
BIG: dict[str, object] = {"limits__text_bytes": 2**24, "limits__audio_bytes": 2**24}


class Suite(msgspec.Struct, frozen=True):
    """Some of the cases, and how to run them."""

    cases: list[str]
    count: int
    """How many these are: fewer results mean that the server or the client gave up."""
    within: float
    """Seconds that all of them may take."""
    excluded: list[str] = []
    allowed: dict[str, str] = {}
    """Cases that may fail on uvicorn's stock class, each with the reason; on our own none may."""
    settings: dict[str, object] = {}
    """Settings of the server."""


FRAGMENTS = "the stock class refuses a message in more than 128 fragments with 1009"
SUITES = {
    "fast": Suite(
        cases=["*"],
        excluded=["9.*", "12.*", "13.*"],
        count=247,
        within=120,
        allowed={
            "7.1.5": "a close frame amid the fragments of a message may be answered with 1002: "
            "an endpoint only typically echoes the code (RFC 6455, section 5.5.1)"
        },
    ),
    "limits": Suite(
        cases=["9.*"],
        count=54,
        within=300,
        allowed={f"9.{part}.{n}": FRAGMENTS for part in (3, 4) for n in range(1, 6)},
        settings=BIG,
    ),
    "deflate": Suite(
        cases=["12.*", "13.*"],
        count=216,
        within=3600,
        settings={"server__deflate": True} | BIG,
    ),
}


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """What the suite says of one case, in its report's own words."""

    behavior: str
    behavior_close: str
    duration: int
    """Milliseconds, the client's own work included."""

    @property
    def word(self) -> str:
        """The verdict on what the server did, or on how it closed if only that was wrong."""
        both = (self.behavior, self.behavior_close)
        return next((word for word in both if word not in PASSED), self.behavior)


class Run(msgspec.Struct, frozen=True):
    """The verdicts on one server."""

    protocol: str
    seconds: float
    cases: dict[str, Verdict]

    def by_word(self) -> dict[str, list[str]]:
        """Return the cases of each verdict."""
        found = defaultdict(list)
        for case, verdict in self.cases.items():
            found[verdict.word].append(case)

        return dict(found)

    def failures(self, suite: Suite) -> list[str]:
        """Return what makes the run fail: a bad verdict that is not allowed, or a missing one."""
        bad = [
            f"{case}: behavior {verdict.behavior}, close {verdict.behavior_close}"
            for case, verdict in self.cases.items()
            if verdict.word not in PASSED and (self.protocol == OURS or case not in suite.allowed)
        ]
        missing = suite.count - len(self.cases)
        return [*bad, f"{missing} cases have no verdict"] if missing else bad

    def __str__(self) -> str:
        """Count the verdicts, and name the cases that are not just OK."""
        counts = [
            f"{len(cases)} {word}" + ("" if word == "OK" else f" ({' '.join(cases)})")
            for word, cases in self.by_word().items()
        ]
        return (
            f"{self.protocol}: {len(self.cases)} cases, {self.seconds:.1f} s: {', '.join(counts)}"
        )


def run(suite: Suite, protocol: str, server: Server, folder: Path) -> Run:
    """Run a suite against a server; the full reports stay in the folder."""
    spec = {
        "options": {"failByDrop": False},  # as the suite's own example has it
        "outdir": str(folder),
        "servers": [{"agent": protocol, "url": f"{server.ws}/v1/echo"}],
        "cases": suite.cases,
        "exclude-cases": suite.excluded,
    }
    (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
    command = (RUNNER, "--mode", "fuzzingclient", "--spec", folder / "spec.json")
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=log, timeout=suite.within, check=True)

    seconds = time.monotonic() - began
    index = (folder / "index.json").read_bytes()
    found = msgspec.json.decode(index, type=dict[str, dict[str, Verdict]])
    return Run(protocol, seconds, found[protocol])
