"""The subjects in Python: Roomcast with either protocol class, and three others."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.limits import Egress
from benchmarks.peers.marker import ENGINE_IO, WEBSOCKET
from benchmarks.peers.servers import FILES, SocketIo
from benchmarks.peers.sockets import Script
from benchmarks.peers.subject import HERE, INSTALL, ROOT, Subject, own_versions, said
from server import __version__
from server.load.frames import TEXT, pack

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""An interpreter that has the peers' packages."""
VERSIONS = "import sys; from importlib.metadata import version as v; " + (
    "print(', '.join(f'{name} {v(name)}' for name in sys.argv[1:]))"
)
ROOM = "peers"


class Stock(Subject):
    """Roomcast behind the stock protocol class of uvicorn."""

    name, label = "stock", "Roomcast (stock)"
    about = "`roomcast serve --dev --protocol stock`, its echo engine, limits.connections raised"
    idle_steps: int | None = 1
    mailbox = Egress().bytes
    environ = {  # noqa: RUF012  never changed
        "ROOMCAST_ENGINES__ENABLED": "echo",
        "ROOMCAST_LIMITS__CONNECTIONS": str(FILES),
        "ROOMCAST_DRAIN__WINDOW": "0",
    }
    listen = Script(f"/v1/rooms/{ROOM}/listen", (b"", re.compile(rb'"type":"joined".*?\}')))
    publisher = Script("/v1/connect", (b"", re.compile(rb'"type":"hello".*?\}')))

    def version(self) -> str:
        """Name Roomcast and what it stands on."""
        python = ".".join(map(str, sys.version_info[:3]))
        return f"{__version__}, {own_versions('uvicorn', 'uvloop')}, Python {python}"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Return the command line."""
        options = ["--dev", "--port", str(port), "--protocol", self.name]
        return [sys.executable, "-m", "server.cli", "serve", *options]

    def publication(self, payload: bytes) -> bytes:
        """Make a command."""
        return pack(TEXT, b'{"type":"publish","room":"%b","data":"%b"}' % (ROOM.encode(), payload))

    def speaker(self, number: int) -> Script:
        """Speak into a room of its own, to the engine that only counts."""
        path = f"/v1/rooms/{ROOM}-{number}/speak?engine=echo"
        ready = re.compile(rb'"state":"ready".*?\}')
        return Script(path, (b"", ready))


class Lean(Stock):
    """Roomcast as it is meant to run."""

    name, label = "lean", "Roomcast (lean)"
    about = "`roomcast serve --dev --protocol lean`, its echo engine, limits.connections raised"
    idle_steps = None


class PlainFastApi(Subject):
    """The fan-out that a FastAPI application writes by hand."""

    name, label = "fastapi", "FastAPI loop"
    about = (
        "a list of WebSockets and `await send_text` for each; uvicorn with uvloop and httptools, "
        "its defaults but quiet and without compression"
    )
    script = "plain_fastapi.py"
    packages: tuple[str, ...] = ("fastapi", "uvicorn", "uvloop", "httptools", "websockets")

    def missing(self) -> str:
        """Say whether the packages are there."""
        return "" if PYTHON.exists() else f"{self.packages[0]} is not installed; {INSTALL}"

    def version(self) -> str:
        """Name the packages and Python."""
        python = said(str(PYTHON), "--version")
        return f"{said(str(PYTHON), '-c', VERSIONS, *self.packages)}, {python}"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Start the script."""
        return [str(PYTHON), str(HERE / "apps" / self.script), str(port)]

    def speaker(self, number: int) -> Script:
        """Speak into a handler that hands the audio to a stream."""
        return Script("/speak")


class PythonSocketIo(PlainFastApi):
    """Socket.IO in Python."""

    name, label = "python-socketio", "python-socketio"
    about = "ASGI on uvicorn with uvloop; a room, WebSocket transport only"
    script = "socketio_asgi.py"
    packages = ("python-socketio", "python-engineio", "uvicorn", "uvloop")
    pings = (ENGINE_IO, WEBSOCKET)
    listen, publisher = SocketIo.listen, SocketIo.publisher
    publication = SocketIo.publication


class Channels(PlainFastApi):
    """Django Channels."""

    name, label = "channels", "Django Channels"
    about = "Daphne, a group of the in-memory layer"
    script = "channels_daphne.py"
    packages = ("channels", "daphne", "django", "twisted")
