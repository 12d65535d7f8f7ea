"""What was measured, as it is kept in a file: every run with its numbers, and where and when."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

import msgspec

from benchmarks.machine import CORES
from benchmarks.report import processor

Values = dict[str, float]


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    rounds: int = 3
    """Times that each subject has its turn."""
    size: int = 128
    """Bytes of a payload."""
    listeners: int = 1000
    rate: float = 20.0
    """Publishes a second at the steady pace."""
    paced: float = 3.0
    """Seconds at the steady pace."""
    publishes: int = 50
    """Publishes to a server that does nothing else."""
    pause: float = 0.05
    """Seconds between two of those."""
    last_within: float = 5.0
    """Seconds that they may take together; a slow server gets fewer."""
    offered: float = 1000.0
    """Publishes a second that are more than a server can deliver."""
    most: float = 16_000.0
    """Publishes a second up to which a server is offered twice as many, while it delivers all."""
    window: int = 64
    """Publishes that may be on their way at a time when more is offered than delivered."""
    saturated: float = 3.0
    """Seconds of that."""
    accepts: int = 2000
    """Connections to open and close."""
    idle: tuple[int, ...] = (10_000, 18_000)
    """Listeners to weigh."""
    scale: tuple[int, ...] = (100, 1000, 10_000, 18_000)
    """Listeners to deliver to, at the same number of deliveries a second."""
    scaled: float = 3.0
    """Seconds of that for each number."""
    speakers: int = 50
    audio: float = 4.0
    """Seconds that they talk; before it they are silent for half as long."""
    crowd: int = 2000
    """Listeners of whom some stop reading."""
    stalled: float = 0.1
    """Share of them that does."""
    calm: float = 5.5
    """Seconds before that; enough publishes for one alone not to be the 99th percentile."""
    strain: tuple[float, float] = (5.5, 9.0)
    """Seconds from then on, with small payloads and with large ones."""
    large: int = 32_768
    """Bytes of a large payload."""


QUICK = Plan(
    rounds=1,
    paced=1.5,
    publishes=15,
    saturated=1.5,
    accepts=500,
    idle=(2000, 4000),
    scale=(100, 1000, 4000),
    scaled=2.0,
    audio=2.0,
    crowd=500,
    calm=2.0,
    strain=(2.0, 9.0),
)


class Run(msgspec.Struct, frozen=True):
    """One subject's turn at one workload."""

    workload: str
    subject: str
    round: int
    values: Values
    problems: list[str] = []
    """What was lost, doubled, reordered or cut off."""


class Facts(msgspec.Struct, frozen=True):
    """A subject as it took part, or why it did not."""

    name: str
    label: str
    about: str
    version: str
    missing: str = ""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    kernel: str
    memory: int
    """Bytes."""
    python: str
    """What the load ran on."""


class Everything(msgspec.Struct):
    """A whole run of `python -m benchmarks.peers`."""

    machine: Machine
    plan: Plan
    at: dict[str, str] = {}
    """When each workload was measured."""
    subjects: list[Facts] = []
    runs: list[Run] = []

    def of(self, workload: str, subject: str) -> list[Run]:
        """Return the runs of a subject, round by round."""
        return [run for run in self.runs if (run.workload, run.subject) == (workload, subject)]

    def update(self, later: Everything) -> None:
        """Let the workloads of another file take the place of the same ones here."""
        self.runs = [run for run in self.runs if run.workload not in later.at] + later.runs
        self.at |= later.at
        known = {facts.name: facts for facts in self.subjects}
        self.subjects = list((known | {facts.name: facts for facts in later.subjects}).values())


class Verdict(msgspec.Struct, frozen=True):
    """A target and what became of it."""

    target: str
    measured: str
    met: bool | None
    """Nothing when it was not measured."""


class Section(msgspec.Struct, frozen=True):
    """A section of the results that other programs leave in a file of their own."""

    title: str
    text: str = ""
    columns: list[str] = []
    rows: list[list[str]] = []
    targets: list[Verdict] = []


def here() -> Machine:
    """Describe this machine."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    return Machine(
        processor=processor(),
        cores=len(CORES),
        kernel=f"{platform.system()} {kernel[0] if kernel else ''}".strip(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def now() -> str:
    """Return the date and time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def read(path: Path) -> Everything:
    """Read a file of runs. Raises OSError or msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Everything)


def write(everything: Everything, path: Path) -> None:
    """Write a file of runs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(everything)) + b"\n")


def read_sections(folder: Path) -> list[Section]:
    """Read what other programs have left, in the order of their files' names."""
    paths = sorted(folder.glob("*.json"))
    return [msgspec.json.decode(path.read_bytes(), type=Section) for path in paths]
