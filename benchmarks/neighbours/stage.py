"""The server on its core; on the other the quiet tenant, and behind it, at the lowest priority,
the loud one and a second server to be loud to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.machine import CORES, LOAD_CORE, SERVER_CORE, pin
from benchmarks.neighbours.quiet import ADDRESSES
from server.load.target import Target, allow_files
from tests.servers import ROOT, Server
from tests.tokens import OTHER_SECRET, mint, tenant

QUIET, LOUD = "acme", "other"
SOURCES = ("127.0.2.1", "127.0.2.2")
"""Where the loud tenant comes from."""
FILES = 2000
EXPIRES = 4_000_000_000


class TenantServer(Server):
    """A server as it is in production, with two tenants and the default quotas."""

    flags = ()

    def __init__(self, log: Path) -> None:
        tenants = tenant(QUIET) | tenant(LOUD, OTHER_SECRET)
        super().__init__(
            log,
            tenants=msgspec.json.encode(tenants).decode(),
            engines__enabled="echo",
            drain__window=0,
        )


class Noise:
    """The process of the loud tenant."""

    def __init__(self) -> None:
        good = mint(OTHER_SECRET, tenant=LOUD, exp=EXPIRES)
        wrong = mint("x" * 40, tenant=LOUD, exp=EXPIRES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.neighbours.noise"],
            cwd=ROOT,
            env=os.environ | {"NOISE": f"{good} {wrong} {','.join(SOURCES)}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._read()

    def begin(self, kind: str, port: int, seconds: float) -> None:
        """Begin to make a noise."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {port} {seconds}\n".encode())
        self._process.stdin.flush()

    def counts(self) -> dict[str, int]:
        """Wait for its end; return what came of it."""
        counts: dict[str, int] = msgspec.json.decode(self._read())
        return counts

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Stage(msgspec.Struct, frozen=True):
    """All that takes part but the quiet tenant, which is this process."""

    server: Server
    decoy: Server
    noise: Noise
    foremost: bool
    """Whether server and quiet tenant run before everything else on the machine."""

    @property
    def target(self) -> Target:
        """The server, for the quiet tenant."""
        target = Target(self.server.port)
        target.token, target.sources = mint(tenant=QUIET, exp=EXPIRES), ADDRESSES
        return target


@contextmanager
def standing() -> Iterator[Stage]:
    """Run it all for the length of a block, each part on its core."""
    allow_files(FILES)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        stack.callback(os.sched_setaffinity, 0, CORES)
        stack.callback(_schedule, os.getpid(), os.SCHED_OTHER)
        servers = []
        for core, name in ((SERVER_CORE, "server"), (LOAD_CORE, "decoy")):
            pin(core)
            server = TenantServer(folder / name)
            server.start()
            stack.callback(_end, server)
            servers.append(server)

        pin(LOAD_CORE)
        noise = Noise()
        stack.callback(noise.end)
        _schedule(servers[1].process.pid, os.SCHED_IDLE)
        foremost = _come_first(servers[0].process.pid)
        yield Stage(servers[0], servers[1], noise, foremost)


def _come_first(pid: int) -> bool:
    """Let a process and this one run before everything else; return whether that is allowed."""
    try:
        for each in (pid, os.getpid()):
            _schedule(each, os.SCHED_FIFO)
    except PermissionError:
        return False

    return True


def _schedule(pid: int, policy: int) -> None:
    """Have all threads of a process scheduled by a policy."""
    priority = os.sched_get_priority_min(policy)
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(task), policy, os.sched_param(priority))


def _end(server: Server) -> None:
    try:
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
