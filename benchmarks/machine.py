"""The server under load: a process of its own on a core of its own, and what it uses.

The load runs in this process, on another core where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from server.load import usage
from server.load.usage import Usage
from tests.servers import Server, serving

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


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


def measured(subject: Server) -> AbstractContextManager[Usage]:
    """Measure a block; the result is complete at its end."""
    return usage.measured(usage.Process(subject.process.pid))


def resident(subject: Server) -> int:
    """Return the resident memory of the server's process, in bytes."""
    return usage.Process(subject.process.pid).resident()
