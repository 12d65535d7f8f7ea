"""What processes use, as Linux counts it: CPU to the nanosecond, resident memory.

A thread that has ended is forgotten with its CPU; a server keeps its threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
GONE = (FileNotFoundError, ProcessLookupError)


class Process:
    """A process of this machine, without its children."""

    def __init__(self, pid: int, root: Path = Path("/proc")) -> None:
        """Raises OSError if there is none, or none that may be looked at."""
        self._root = root / str(pid)
        self.cpu()

    def cpu(self) -> float:
        """Return the CPU seconds of all threads. Raises OSError when the process is gone."""
        used = 0
        for task in (self._root / "task").iterdir():
            with suppress(*GONE):
                used += int((task / "schedstat").read_text().split()[0])

        return used / 1e9 if used else sum(map(int, self._stat()[11:13])) / TICKS

    def waited(self) -> float:
        """Return for how long the main thread wanted a core that something else had.

        That is 0 where the kernel does not count it.
        """
        path = self._root / "schedstat"
        return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0

    def resident(self) -> int:
        """Return the bytes of resident memory. Raises OSError when the process is gone."""
        return int((self._root / "statm").read_text().split()[1]) * PAGE

    def _stat(self) -> list[str]:
        """Return the fields of `stat` from the third on; the second may have spaces in it."""
        return (self._root / "stat").read_text().rpartition(")")[2].split()


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


@contextmanager
def measured(process: Process | None) -> Iterator[Usage]:
    """Measure a block; the result is complete at its end, however it ends.

    Without a process, or when it is gone at the end, what it used stays 0.
    """
    usage = Usage()
    used, waited = (process.cpu(), process.waited()) if process else (0.0, 0.0)
    began, own = time.monotonic(), time.process_time()
    try:
        yield usage
    finally:
        usage.wall = time.monotonic() - began
        usage.load = time.process_time() - own
        with suppress(*GONE):
            if process is not None:
                usage.server, usage.waited = process.cpu() - used, process.waited() - waited
