"""What a server has to say about itself to be measured."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.marker import WEBSOCKET, Pings
from benchmarks.peers.sockets import Script
from server.load.frames import TEXT, pack

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL = "`make bench-peers` installs it"


class Subject:
    """One server: how it is started, and what is said to it. The defaults fit a plain WebSocket."""

    name = ""
    """What it is called on the command line and in files."""
    label = ""
    """What it is called in tables."""
    about = ""
    """How it is run, in a few words."""
    forks = False
    """Whether the work is done by a child of the process that is started."""
    idle_steps: int | None = None
    """How many of the numbers of idle listeners it is asked to hold; all when not said."""
    mailbox = 0
    """Bytes that may wait for one listener, where the server has such a bound."""
    pings: tuple[Pings, ...] = (WEBSOCKET,)
    environ: Mapping[str, str] = {}
    listen = Script("/listen")
    """How a listener gets into the room."""
    publisher = Script("/publish")
    """How a publisher gets ready."""

    def missing(self) -> str:
        """Say why it cannot run here; nothing if it can."""
        return ""

    def version(self) -> str:
        """Say what exactly is measured."""
        raise NotImplementedError

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Return what starts it; files of its own go into the folder."""
        raise NotImplementedError

    def publication(self, payload: bytes) -> bytes:
        """Wrap a payload, as the publisher sends it."""
        return pack(TEXT, payload)

    def speaker(self, number: int) -> Script:
        """Return how a speaker gets ready to send audio."""
        raise NotImplementedError

    stop: bytes = pack(TEXT, b'{"type":"stop","id":1}')
    """What ends a speaker's audio; the answer says how many bytes came."""


def installed(*programs: str) -> str:
    """Say which programs are missing; nothing if none is."""
    missing = [name for name in programs if shutil.which(name, path=_path()) is None]
    return f"{', '.join(missing)} is not installed; {INSTALL}" if missing else ""


def program(name: str) -> str:
    """Return where a program is; Debian keeps servers where users do not look."""
    return shutil.which(name, path=_path()) or name


def said(*command: str) -> str:
    """Return what a command writes, its errors too. Raises OSError."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()


def package_version(name: str) -> str:
    """Return the version of a Debian package, or nothing."""
    return said("dpkg-query", "-W", "-f", "${Version}", name) if shutil.which("dpkg-query") else ""


def own_versions(*packages: str) -> str:
    """Return versions of packages of this environment."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
