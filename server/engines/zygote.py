"""The process that loads the model once and forks a decoding worker for every speaking stream.

Its one rule: a single thread and no event loop, so that a fork is safe. Model pages stay shared
between the workers. It ends when the server's end of the control socket closes, and a worker when
the server's end of its session closes; a worker outlives a zygote that dies.

    server --(control: length, AudioSpec, a socket)--> zygote --fork--> worker
    server --(session: length, PCM; 0 ends, FLUSH)---> worker
    server <-(session: length, Report)---------------- worker
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import msgspec

from actors.messages import AudioSpec, Recognition

if TYPE_CHECKING:
    from pocketsphinx import Decoder

LENGTH = struct.Struct("<I")
SESSION_BYTES = 32_768
"""Asked for each direction of a session's socket; Linux doubles it and counts its own overhead."""
FLUSH = 0xFFFF_FFFF
"""Length that asks for the final of what was said so far; no audio follows it."""
READY = b"\x01"
"""What the zygote writes to the control socket once it can fork."""
FLUSHED = b"flush"
"""What stands for that among the pieces of audio, by its identity."""
REPORTS_PER_SECOND = 10
"""Reports a worker makes for a second of audio, however large the pieces it comes in."""


class Report(msgspec.Struct, frozen=True):
    """What a worker tells of its session; the first report comes before any audio."""

    pid: int
    heard: float = 0.0
    """Seconds of audio worked through."""
    found: tuple[Recognition, ...] = ()
    done: bool = False
    """Nothing follows: the audio has ended and everything is reported."""


class Reports:
    """The server's side of the wire: bytes of a session's socket in, reports out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._buffer += data

    def next(self) -> Report | None:
        """Take the next report, or return None until more has been read."""
        if len(self._buffer) < LENGTH.size:
            return None

        (length,) = LENGTH.unpack_from(self._buffer)
        end = LENGTH.size + length
        if len(self._buffer) < end:
            return None

        body = bytes(self._buffer[LENGTH.size : end])
        del self._buffer[:end]
        return msgspec.msgpack.decode(body, type=Report)


def packed(body: bytes) -> bytes:
    """Return a message with its length before it."""
    return LENGTH.pack(len(body)) + body


def command(control: int) -> list[str]:
    """Return how to start a zygote that is asked through this descriptor."""
    return [sys.executable, "-P", "-m", "server.engines.zygote", str(control)]


def environment() -> dict[str, str]:
    """Return the zygote's environment: one thread, and this very package.

    With `-P` and the path, a `server` in the working directory is not mistaken for ours.
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": path}


def ask(control: socket.socket, spec: AudioSpec) -> socket.socket:
    """Ask for a worker and return the server's end of its session. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SESSION_BYTES)

        try:
            socket.send_fds(control, [packed(msgspec.msgpack.encode(spec))], [theirs.fileno()])
        except OSError:
            ours.close()
            raise

    return ours


def main() -> None:
    """Serve fork requests from the control socket whose descriptor is the first argument."""
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the server says when it is over.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    # Imported here, because the server imports this module too and must not load a decoder.
    from server.engines.recognizer import load

    decoder = load()
    gc.collect()
    gc.freeze()  # a collection would write to every object's page and so unshare it
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            control.sendall(READY)
        except BrokenPipeError:
            return  # the server has gone while the model was loaded

        while (request := _request(control)) is not None:
            session, spec = request
            with session:
                if os.fork() == 0:
                    control.close()
                    _become_worker(session, spec, decoder)


def _request(control: socket.socket) -> tuple[socket.socket, AudioSpec] | None:
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 1)
    if not head:
        return None

    (length,) = LENGTH.unpack(head)
    body = control.recv(length, socket.MSG_WAITALL)
    return socket.socket(fileno=descriptors[0]), msgspec.msgpack.decode(body, type=AudioSpec)


def _become_worker(session: socket.socket, spec: AudioSpec, decoder: Decoder) -> NoReturn:
    """Decode one session and exit; never return into the zygote's code."""
    status = 1
    try:
        os.nice(5)  # the server's loop goes first
        _decode(session, spec, decoder)
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the server has left the stream
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _decode(session: socket.socket, spec: AudioSpec, decoder: Decoder) -> None:
    from server.engines.recognizer import Recognizer

    recognizer = Recognizer(decoder, spec)
    pid, told = os.getpid(), 0.0
    step = spec.bytes_per_second // REPORTS_PER_SECOND
    _tell(session, Report(pid))
    with session.makefile("rb") as audio:
        while data := _read(audio):
            if data is FLUSHED:
                found = recognizer.flush()
                _tell(session, Report(pid, recognizer.heard, tuple(found)))
                continue

            for start in range(0, len(data), step):
                found = recognizer.feed(data[start : start + step])
                if found or recognizer.heard >= told + 1 / REPORTS_PER_SECOND:
                    told = recognizer.heard
                    _tell(session, Report(pid, told, tuple(found)))

    if data is not None:
        found = recognizer.finish()
        _tell(session, Report(pid, recognizer.heard, tuple(found), done=True))


def _read(audio: BinaryIO) -> bytes | None:
    """Return the next piece of audio, b"" at its end, FLUSHED, or None: the server has gone."""
    head = audio.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None

    (length,) = LENGTH.unpack(head)
    if length == FLUSH:
        return FLUSHED

    data = audio.read(length)
    return data if len(data) == length else None


def _tell(session: socket.socket, report: Report) -> None:
    session.sendall(packed(msgspec.msgpack.encode(report)))


if __name__ == "__main__":
    main()
