"""roomcast demo: a server, a recorded speaker and a listener, to see the whole of it at once."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import anyio
import click
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from actors.messages import AnyEvent, Closing, Error, Transcript
from server.address import url_of
from server.cli.accuracy import read_transcripts, word_error_rate
from server.cli.audio import FRAME
from server.cli.client import Ended, events, open_socket, room_url
from server.cli.options import Bad, Failed, load_settings, run
from server.cli.serve import take_address
from server.cli.terminal import StatusLine, printable
from server.settings import override

RECORDINGS = "/usr/share/pocketsphinx/test/data/librivox"
ROOM = "demo"
PAUSE = 1.0
"""Seconds of silence after each recording."""
START_WITHIN = STOP_WITHIN = 30.0
HEAR_WITHIN = 20.0
"""Seconds that the last finals may take."""
WORST = 0.35
"""Word error rate above which the demo counts as failed."""


class Utterance(msgspec.Struct):
    """One recording and where it lies in the session's audio."""

    said: str
    pcm: bytes
    begins: float
    """Seconds from the start of the session."""
    ends: float
    heard: list[str] = []
    """Texts of the finals that lie in it."""


@click.command("demo", short_help="Play recorded speech into a room of a server of its own.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--recordings",
    default=RECORDINGS,
    type=click.Path(path_type=Path),
    help="Folder with WAV files and their `transcription`.",
)
@click.option("--exit", "leave", is_flag=True, help="End after the recordings, with a verdict.")
def command(host: str, port: int, recordings: Path, leave: bool) -> None:
    """Start a server, play recorded speech into a room, print the captions, leave the page up."""
    utterances = read_recordings(recordings)
    with server(host, port) as (url, process):
        click.echo(f"the page is at {url}/?room={ROOM}\n")
        rate = run(play, url, utterances)
        report(utterances, rate)
        if not leave:
            click.echo(f"\nthe page stays up at {url}/?room={ROOM} - Ctrl-C ends it")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()

            return

    if rate > WORST or not all(utterance.heard for utterance in utterances):
        raise Failed("the captions are not good enough")


def read_recordings(folder: Path) -> list[Utterance]:
    """Read every recording that the folder's `transcription` names. Raises Bad."""
    try:
        said = read_transcripts(folder / "transcription")
    except (OSError, UnicodeDecodeError):
        said = {}

    if not said:
        raise Bad(
            f"no recordings in {folder}; Debian has them in the package pocketsphinx-testdata"
        )

    utterances: list[Utterance] = []
    at = 0.0
    for name, text in sorted(said.items()):
        pcm = _read_pcm(folder / f"{name}.wav")
        length = len(pcm) / 32000
        utterances.append(Utterance(text, pcm, at, at + length))
        at += length + PAUSE

    return utterances


def _read_pcm(path: Path) -> bytes:
    try:
        with wave.open(str(path)) as wav:
            if wav.getparams()[:3] != (1, 2, 16000):
                raise Bad(f"{path}: mono 16-bit PCM at 16000 Hz is needed")

            return bytes(wav.readframes(wav.getnframes()))
    except OSError as error:
        raise Bad(f"{path}: {error.strerror}") from None
    except (wave.Error, EOFError):
        raise Bad(f"{path} is no WAV file that can be read") from None


@contextlib.contextmanager
def server(host: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a development server for the length of the demo, also if SIGTERM ends the demo."""
    flags = ["--host", host, "--port", str(port)]
    settings = override(load_settings(None), server={"host": host, "port": port})
    first, *others = take_address(settings)
    url = url_of(first)
    for each in (first, *others):
        each.close()

    command = [sys.executable, "-m", "server.cli", "serve", "--dev", *flags]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            wait_ready(url, process)
            yield url, process
        except Failed:
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines():
                click.echo(printable(line), err=True)

            raise
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, in good order if it will."""
    process.terminate()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server takes connections. Raises Failed."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), direct.open(f"{url}/readyz", timeout=1):
            return

        time.sleep(0.05)

    raise Failed("the server did not start; its own message is above")


async def play(url: str, utterances: list[Utterance]) -> float:
    """Speak the recordings in real time, listen to the room, and return the word error rate."""
    ear = await open_socket(room_url(url, ROOM, "listen"))
    mouth = await open_socket(
        room_url(url, ROOM, "speak", {"name": "Recording", "engine": "embedded"})
    )
    done = anyio.Event()
    async with ear, mouth, anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, ear, utterances)
        tasks.start_soon(_watch, mouth, done)
        await _speak(mouth, utterances)
        with anyio.move_on_after(HEAR_WITHIN):
            await done.wait()
            await (await ear.ping())  # what was published before the pong has come

        tasks.cancel_scope.cancel()

    return word_error_rate(
        [each.said for each in utterances], [" ".join(each.heard) for each in utterances]
    )


async def _speak(socket: ClientConnection, utterances: list[Utterance]) -> None:
    """Send the recordings, each with a pause; who watches the socket says how it ended."""
    began = time.monotonic()
    size, sent = int(32000 * FRAME), 0.0
    with contextlib.suppress(ConnectionClosed):
        for utterance in utterances:
            pcm = utterance.pcm + bytes(int(32000 * PAUSE))
            for start in range(0, len(pcm), size):
                await socket.send(pcm[start : start + size])
                sent += FRAME
                await anyio.sleep(max(0.0, began + sent - time.monotonic()))

        await socket.send('{"type":"stop","id":1}')


async def _listen(socket: ClientConnection, utterances: list[Utterance]) -> None:
    line = StatusLine(sys.stdout)
    try:
        async for event in events(socket):
            if isinstance(event, Transcript):
                _hear(event, utterances, line)
    except Ended as ended:
        raise Failed(str(ended)) from None
    finally:
        line.clear()


def _hear(event: Transcript, utterances: list[Utterance], line: StatusLine) -> None:
    """Show a caption; a final goes to the recording that it lies in."""
    if not event.final:
        line.show(printable(event.text))
    elif event.text:
        line.print(f"{event.start:6.1f} s  {printable(event.text)}")
        middle = (event.start + event.end) / 2
        nearest = min(utterances, key=lambda each: _distance(each, middle))
        nearest.heard.append(event.text)


def _distance(utterance: Utterance, at: float) -> float:
    return max(utterance.begins - at, at - utterance.ends, 0.0)


async def _watch(socket: ClientConnection, done: anyio.Event) -> None:
    """Wait for the end of the speech; an error on the way ends the demo."""
    try:
        async for event in events(socket):
            _check(event)
    except Ended as ended:
        if ended.close.code != 1000:
            raise Failed(str(ended)) from None

        done.set()


def _check(event: AnyEvent) -> None:
    if isinstance(event, Error | Closing) and getattr(event, "code", None) != 1000:
        raise Failed(printable(event.message))


def report(utterances: list[Utterance], rate: float) -> None:
    """Print what came back of what was said."""
    back = sum(bool(each.heard) for each in utterances)
    click.echo(f"\n{back} of {len(utterances)} utterances came back, word error rate {rate:.2f}")
