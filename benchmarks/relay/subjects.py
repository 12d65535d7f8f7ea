"""Who relays: nobody, the plain bridge, and Roomcast."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import CORES, LOAD_CORE, pin
from benchmarks.peers.process import ROOT, Running, started
from benchmarks.peers.servers import FILES
from benchmarks.peers.subject import Subject, own_versions
from benchmarks.relay.tape import PATH, TOKEN
from server import __version__
from server.load.sockets import Broken
from server.load.target import HOST, Target, allow_files
from tests.processes import ends_within

ENDS_WITHIN = 5.0


class Double:
    """The double of Rev.ai: a process on the load's core."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.pid, self.port = process.pid, port
        self.url = f"ws://{HOST}:{port}{PATH}"


class Direct(Subject):
    """No relay: the speakers connect to the double."""

    name, label = "direct", "direct"
    about = "no relay: the speakers connect to the double"

    def version(self) -> str:
        """Name what the double stands on."""
        return own_versions("uvloop")


class Relay(Subject):
    """A relay in front of the double."""

    def __init__(self, double: Double) -> None:
        self.double = double


class Pipe(Relay):
    """What no relay can do without."""

    name, label = "pipe", "byte pipe"
    about = "bytes from socket to socket, unread, the least in Python; `benchmarks/relay/pipe.py`"

    def version(self) -> str:
        """Name what it stands on."""
        return own_versions("uvloop")

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "benchmarks.relay.pipe", str(port), str(self.double.port)]


class Bridge(Relay):
    """What everybody writes."""

    name, label = "bridge", "plain bridge"
    about = "FastAPI, `websockets.connect`, two tasks and `gather`; `benchmarks/relay/bridge.py`"

    def version(self) -> str:
        """Name the packages."""
        return own_versions("fastapi", "uvicorn", "websockets", "uvloop", "httptools")

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "benchmarks.relay.bridge", str(port), self.double.url]


class Lean(Relay):
    """Roomcast as it is meant to run."""

    name, label = "lean", "Roomcast (lean)"
    about = "`roomcast serve --dev --protocol lean`, its Rev.ai front and its Rev.ai engine"

    def __init__(self, double: Double) -> None:
        super().__init__(double)
        self.environ: Mapping[str, str] = {
            "ROOMCAST_ENGINES__ENABLED": "revai",
            "ROOMCAST_ENGINES__REVAI__URL": double.url,
            "ROOMCAST_ENGINES__REVAI__TOKEN": TOKEN,
            "ROOMCAST_ENGINES__REVAI__MAX_STREAMS": "1000",
            "ROOMCAST_DRAIN__WINDOW": "0",
        }

    def version(self) -> str:
        """Name Roomcast and what it stands on."""
        python = f"Python {platform.python_version()}"
        return f"{__version__}, {own_versions('uvicorn', 'websockets', 'uvloop')}, {python}"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Return the command line."""
        options = ["--dev", "--port", str(port), "--protocol", self.name]
        return [sys.executable, "-m", "server.cli", "serve", *options]


class Stock(Lean):
    """Roomcast behind the stock protocol class of uvicorn."""

    name, label = "stock", "Roomcast (stock)"
    about = "the same with `--protocol stock`"


@contextmanager
def doubling() -> Iterator[Double]:
    """Run the double on the load's core. Raises Broken if it does not come up."""
    command = [sys.executable, "-m", "benchmarks.relay.double"]
    try:
        pin(LOAD_CORE)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    finally:
        os.sched_setaffinity(0, CORES)

    assert process.stdout is not None
    try:
        port = process.stdout.readline()
        if not port:
            raise Broken("the double did not come up")

        yield Double(process, int(port))
    finally:
        process.terminate()
        if not ends_within(process, ENDS_WITHIN):
            process.kill()
            process.wait()

        process.stdout.close()


@contextmanager
def standing(subject: Subject, double: Double) -> Iterator[Running]:
    """Run a subject beside the double; for a direct connection that is the double itself.

    Raises Broken if it does not come up.
    """
    if isinstance(subject, Relay):
        with started(subject) as running:
            yield running
    else:
        allow_files(FILES)
        try:
            pin(LOAD_CORE)
            yield Running(subject, Target(double.port), double.pid)
        finally:
            os.sched_setaffinity(0, CORES)
