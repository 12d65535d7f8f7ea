"""Real processes for the tests: a free port, a wait with a deadline, and an end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import choice
from socket import create_server
from urllib.parse import urlencode
from urllib.request import urlopen

PORTS = range(10_000, 32_000)
WaitUntil = Callable[[Callable[[], bool]], None]


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on.

    It is below those that the kernel gives to whoever connects: one of these may be taken again
    before a server listens there.
    """
    while True:
        port = choice(PORTS)
        with suppress(OSError), create_server(("127.0.0.1", port)):
            return port


def fetch(url: str, **query: str) -> str:
    """Return the body of a GET. Raises OSError when refused, late, or no success."""
    with urlopen(f"{url}?{urlencode(query)}", timeout=5) as response:
        body: bytes = response.read()

    return body.decode()


def answers(url: str) -> bool:
    """Tell whether a GET succeeds."""
    try:
        fetch(url)
    except OSError:
        return False

    return True


@contextmanager
def running(log: Path, *command: str | Path) -> Iterator[WaitUntil]:
    """Run a process, its output in `log`; yields `wait_until`, which fails if the process ends."""

    def wait_until(check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not check():
            assert time.monotonic() < deadline, f"not within 30 s:\n{log.read_text()}"
            assert not ends_within(process, 0.05), f"{process.returncode}:\n{log.read_text()}"

    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            yield wait_until
        finally:
            process.terminate()
            if not ends_within(process, 30):
                process.kill()
                raise AssertionError(f"did not end on SIGTERM:\n{log.read_text()}")


def ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process to end; tell whether it did."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False

    return True
