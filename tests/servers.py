"""A server process started through its command line, for the tests that need a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.processes import answers, ends_within, fetch, free_port

ROOT = Path(__file__).parents[1]
READY_WITHIN = 30.0
STOPPED_WITHIN = 40.0


class Server:
    """One server on a port that outlives its process, with settings by environment."""

    flags: tuple[str, ...] = ("--dev",)
    """What the command line says beside the port."""

    def __init__(self, log: Path, **settings: object) -> None:
        self.port, self.log = free_port(), log
        self._environ = os.environ | {
            f"ROOMCAST_{name.upper()}": str(value) for name, value in settings.items()
        }

    @property
    def http(self) -> str:
        """Address for HTTP, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Address for WebSockets, without a slash at the end."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """Everything that the process wrote."""
        return self.log.read_text()

    def start(self) -> None:
        """Start a process and wait until it is ready."""
        command = [sys.executable, "-m", "server.cli", "serve", *self.flags]
        command += ["--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environ, stdout=log, stderr=log
            )

        deadline = time.monotonic() + READY_WITHIN
        while not answers(f"{self.http}/readyz"):
            assert time.monotonic() < deadline, f"not ready:\n{self.output}"
            assert not ends_within(self.process, 0.05), f"it ended:\n{self.output}"

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask the process to stop."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        return self.process.wait(STOPPED_WITHIN)

    def stop(self) -> None:
        """Stop the process if it runs, and see that it ends well and has logged no bug."""
        if self.process.poll() is None:
            self.terminate()
            assert self.wait() == 0, self.output

        assert "Traceback" not in self.output, self.output
        assert '"error"' not in self.output, self.output

    def metric(self, name: str) -> float:
        """Return the value of one series, named as it is exposed."""
        for line in fetch(f"{self.http}/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series == name:
                return float(value)

        raise AssertionError(f"{name} is not exposed")

    def workers(self) -> list[psutil.Process]:
        """Return the decode workers: the children of the process that loaded the model."""
        zygotes = psutil.Process(self.process.pid).children()
        return [worker for zygote in zygotes for worker in zygote.children()]


@contextmanager
def serving(log: Path, **settings: object) -> Iterator[Server]:
    """Run a server for the length of a block; it must end well."""
    server = Server(log, **settings)
    server.start()
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
