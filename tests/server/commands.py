"""The command line as a process: run it to its end, or read it line by line while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from threading import Thread
from typing import IO, Any
from urllib.request import Request, urlopen

from websockets.sync.server import ServerConnection, serve

from tests.servers import ROOT, Server

WITHIN = 20.0
"""Seconds that anything may take; what takes longer is broken, not slow."""


def roomcast(
    *arguments: str | Path, stdin: bytes | IO[bytes] = b"", **environ: object
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        _command(arguments),
        env=_environ(environ),
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        **given,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


class Running:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def line(self) -> str:
        """Return the next line of standard output; empty at its end."""
        assert self.process.stdout is not None
        return read_line(self.process.stdout.fileno())

    def note(self) -> str:
        """Return the next line of standard error; empty at its end."""
        assert self.process.stderr is not None
        return read_line(self.process.stderr.fileno())

    def until(self, text: str) -> str:
        """Return the next line of standard output with a text in it."""
        while text not in (line := self.line()):
            assert line, f"it ended without {text!r}"

        return line

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(WITHIN)


@contextmanager
def running(
    *arguments: str | Path, environ: dict[str, object] | None = None, **streams: Any
) -> Iterator[Running]:
    """Start a command; it is killed at the end of the block if it still runs."""
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    options |= {"preexec_fn": _take_interrupts, **streams}
    with subprocess.Popen(
        _command(arguments), env=_environ(environ or {}), cwd=ROOT, bufsize=0, text=False, **options
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def read_line(fd: int) -> str:
    """Read up to a line feed, or to the end."""
    line = b""
    while not line.endswith(b"\n"):
        assert select([fd], [], [], WITHIN)[0], f"nothing came after {line!r}"
        byte = os.read(fd, 1)
        if not byte:
            break

        line += byte

    return line.decode()


@contextmanager
def piping() -> Iterator[tuple[int, IO[bytes]]]:
    """Give a pipe: the descriptor to read from, and the file to write to."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0) as file:
        yield reading, file


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give a terminal: our end, and the one for a command."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", 0), os.fdopen(theirs, "wb", 0):
        yield ours, theirs


def publish(server: Server, room: str, data: object) -> None:
    """Publish a message to a room."""
    body = json.dumps({"data": data}).encode()
    with urlopen(Request(f"{server.http}/v1/rooms/{room}/messages", body), timeout=5):
        return


@contextmanager
def pretending(*scripts: list[object]) -> Iterator[tuple[str, list[str]]]:
    """Run a WebSocket server that plays one script to each connection, and then takes no more.

    A script holds events, texts and, last, a close code. Yields its address and the paths asked.
    """
    asked: list[str] = []
    waiting = iter(scripts)

    def play(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)
        for step in next(waiting, [4500]):
            if isinstance(step, int):
                connection.close(step, "because")
            else:
                connection.send(step if isinstance(step, str) else json.dumps(step))

    with serve(play, "127.0.0.1", 0, close_timeout=1) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", asked
        finally:
            server.shutdown()
            thread.join(WITHIN)


def write_wav(path: Path, pcm: bytes, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    """Write a WAV file."""
    with wave.open(str(path), "wb") as wav:
        wav.setparams((channels, width, rate, 0, "NONE", ""))
        wav.writeframes(pcm)

    return path


def _command(arguments: tuple[str | Path, ...]) -> list[str]:
    return [sys.executable, "-m", "server.cli", *map(str, arguments)]


def _environ(changes: dict[str, object]) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST_")}
    return plain | {"TERM": "xterm"} | {key: str(value) for key, value in changes.items()}


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
