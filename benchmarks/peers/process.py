"""A subject's process, on a core of its own, and what it uses by the kernel's count."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection
from tempfile import TemporaryDirectory

import psutil

from benchmarks.machine import CORES, LOAD_CORE, SERVER_CORE, pin
from benchmarks.peers.subject import Subject
from server.load.sockets import HOST, Broken
from tests.processes import ends_within, free_port

ROOT = Path(__file__).parents[2]
READY_WITHIN = 30.0
SETTLE = 0.3
"""Seconds after the port answers until anything is measured."""
END_WITHIN = 5.0
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Running:
    """A subject that listens."""

    def __init__(self, subject: Subject, port: int, pid: int) -> None:
        self.subject, self.port, self.pid = subject, port, pid

    def cpu(self) -> float:
        """Return the CPU seconds of all threads so far."""
        files = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in files) / 1e9

    def resident(self) -> int:
        """Return the resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE


class Usage:
    """What a stretch of a run used."""

    cpu = 0.0
    """CPU seconds of the subject."""
    load = 0.0
    """CPU seconds of this process."""
    wall = 0.0
    """Seconds that passed."""
    others = 0.0
    """Seconds that somebody else used the two cores."""

    def shares(self) -> dict[str, float]:
        """Return how busy the subject, the load and all others were, in per cent of a core."""
        return {
            "server": 100 * self.cpu / self.wall,
            "load": 100 * self.load / self.wall,
            "others": 100 * self.others / self.wall,
        }


@contextmanager
def measured(running: Running) -> Iterator[Usage]:
    """Measure a block; the result is complete at its end. Garbage waits for the end too."""
    usage, began = Usage(), time.monotonic()
    cpu, own, busy = running.cpu(), time.process_time(), _busy()
    gc.disable()
    try:
        yield usage
    finally:
        gc.enable()

    usage.cpu, usage.load = running.cpu() - cpu, time.process_time() - own
    usage.wall = time.monotonic() - began
    usage.others = max(0.0, _busy() - busy - usage.cpu - usage.load)


@contextmanager
def started(subject: Subject) -> Iterator[Running]:
    """Run a subject for the length of a block. Raises Broken if it does not come up."""
    _raise_file_limit()
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
                _wait_until_ready(process, port, log)
                yield Running(subject, port, _worker(process.pid, subject.forks))
            finally:
                _end(process)
        finally:
            os.sched_setaffinity(0, CORES)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            create_connection((HOST, port), 1).close()
        except OSError:
            if time.monotonic() > deadline or ends_within(process, 0.05):
                raise Broken(f"it did not come up: {log.read_text()[-500:]}") from None
        else:
            time.sleep(SETTLE)
            return


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
    return sum(sum(each) - each[3] - each[4] for each in ticks) / TICK


def _raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
