"""A subject's process, on a core of its own, and what it uses by the kernel's count."""

from __future__ import annotations

import gc
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.machine import CORES, LOAD_CORE, SERVER_CORE, pin
from benchmarks.peers.servers import FILES
from benchmarks.peers.subject import Subject
from server.load import usage
from server.load.sockets import Broken
from server.load.target import Target, allow_files
from tests.processes import ends_within, free_port

ROOT = Path(__file__).parents[2]
READY_WITHIN = 30.0
SETTLE = 0.3
"""Seconds after the port answers until anything is measured."""
END_WITHIN = 5.0


class Running:
    """A subject that listens."""

    def __init__(self, subject: Subject, target: Target, pid: int) -> None:
        self.subject, self.target = subject, target
        self.process = usage.Process(pid)


class Stretch:
    """What a stretch of a run used."""

    def __init__(self, used: usage.Usage) -> None:
        self.used = used
        """What the subject and this process used."""
        self.helper = 0.0
        """CPU seconds of a process that is part of the load."""
        self.others = 0.0
        """Seconds that somebody else used the two cores."""

    def shares(self) -> dict[str, float]:
        """Return how busy the subject, the load and all others were, in per cent of a core."""
        return {
            "server": self.used.server_share,
            "load": self.used.load_share,
            "others": 100 * self.others / self.used.wall,
        }


@contextmanager
def measured(running: Running, helper: usage.Process | None = None) -> Iterator[Stretch]:
    """Measure a block; the result is complete at its end. Garbage waits for the end too."""
    busy, helped = _busy(), helper.cpu() if helper else 0.0
    gc.disable()
    try:
        with usage.measured(running.process) as used:
            yield (stretch := Stretch(used))
    finally:
        gc.enable()

    stretch.helper = helper.cpu() - helped if helper else 0.0
    stretch.others = max(0.0, _busy() - busy - used.server - used.load - stretch.helper)


@contextmanager
def started(subject: Subject) -> Iterator[Running]:
    """Run a subject for the length of a block. Raises Broken if it does not come up."""
    allow_files(FILES)
    port = free_port()
    with TemporaryDirectory() as name:
        folder = Path(name)
        command, log = subject.command(port, folder), folder / "log"
        pin(SERVER_CORE)
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | subject.environ,
                    stdout=output,
                    stderr=output,
                )

            try:
                pin(LOAD_CORE)
                target = _when_ready(process, port, log)
                yield Running(subject, target, _worker(process.pid, subject.forks))
            finally:
                _end(process)
        finally:
            os.sched_setaffinity(0, CORES)


def _when_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> Target:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            target = Target(port)
        except OSError:
            if time.monotonic() > deadline or ends_within(process, 0.05):
                raise Broken(f"it did not come up: {log.read_text()[-500:]}") from None
        else:
            time.sleep(SETTLE)
            return target


def _worker(pid: int, forks: bool) -> int:
    if not forks:
        return pid

    children = psutil.Process(pid).children()
    if not children:
        raise Broken("it has no worker")

    return children[0].pid


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    if not ends_within(process, END_WITHIN):
        process.kill()
        process.wait()


def _busy() -> float:
    """Return the seconds that the two cores were not idle so far."""
    names = {f"cpu{core}" for core in (SERVER_CORE, LOAD_CORE)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    ticks = [list(map(int, line[1:9])) for line in lines if line[0] in names]
    return sum(sum(each) - each[3] - each[4] for each in ticks) / usage.TICKS
