"""The server under load: a process of its own on a core of its own, and what it uses.

The load runs in this process, on another core where there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.servers import Server, serving

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


class Usage:
    """What a stretch of a run used."""

    def __init__(self) -> None:
        self.server = 0.0
        """CPU seconds of the server's process, without its children."""
        self.load = 0.0
        """CPU seconds of this process."""
        self.wall = 0.0
        """Seconds that passed."""
        self.waited = 0.0
        """Seconds that the server wanted its core while something else on the machine had it."""

    @property
    def server_share(self) -> float:
        """Per cent of a core that the server used."""
        return 100 * self.server / self.wall

    @property
    def load_share(self) -> float:
        """Per cent of a core that the load used; near 100 the load is what was measured."""
        return 100 * self.load / self.wall


def pin(core: int) -> None:
    """Keep this process, and those that it starts from here on, on one core."""
    os.sched_setaffinity(0, {core})


@contextmanager
def server(**settings: object) -> Iterator[Server]:
    """Run a server, with the echo engine alone unless the settings say otherwise.

    Its end does not wait for connections that were cut a moment before.
    """
    defaults: dict[str, object] = {"engines__enabled": "echo", "drain__window": 0}
    with TemporaryDirectory() as folder:
        pin(SERVER_CORE)
        try:
            running = serving(Path(folder) / "log", **defaults | settings)
            with running as subject:
                pin(LOAD_CORE)
                yield subject
        finally:
            os.sched_setaffinity(0, CORES)


@contextmanager
def measured(subject: Server) -> Iterator[Usage]:
    """Measure a block; the result is complete at its end."""
    process, usage = psutil.Process(subject.process.pid), Usage()
    began, used, own = time.monotonic(), cpu_seconds(process), time.process_time()
    waited = wait_seconds(process)
    yield usage
    usage.server = cpu_seconds(process) - used
    usage.waited = wait_seconds(process) - waited
    usage.load = time.process_time() - own
    usage.wall = time.monotonic() - began


def cpu_seconds(process: psutil.Process) -> float:
    """Return the user and system time of a process, to the hundredth of a second."""
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_seconds(process: psutil.Process) -> float:
    """Return how long a process has been kept off its core; 0 where the kernel does not count."""
    path = Path(f"/proc/{process.pid}/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0


def resident(subject: Server) -> int:
    """Return the resident memory of the server's process, in bytes."""
    return int(psutil.Process(subject.process.pid).memory_info().rss)
