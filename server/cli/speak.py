"""roomcast speak."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import anyio
import click
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from actors.messages import Ack, AnyEvent, Error, Gap, Speech, Transcript
from actors.roles import stem_of
from server.cli.audio import FRAME, Recording, open_recording, open_source
from server.cli.client import Ended, events, open_socket, room_url
from server.cli.options import Failed, json_option, run, url_option
from server.cli.terminal import StatusLine, printable, to_json

REPORT_EVERY = 0.5
"""Seconds between two looks at the progress."""
LOSSES = {
    "upstream_full": "the engine was too slow",
    "replay_full": "the engine was gone for too long",
}


@click.command("speak", short_help="Stream a WAV file, raw PCM or a pipe into a room.")
@click.argument("file")
@click.option("--room", required=True, help="Room to speak in.")
@click.option(
    "--rate",
    "pace",
    type=click.Choice(["realtime", "max"]),
    default="realtime",
    show_default=True,
    help="How fast to send.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(8000, 48000),
    default=16000,
    show_default=True,
    help="Hertz of raw PCM.",
)
@click.option(
    "--channels",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="Channels of raw PCM.",
)
@click.option("--engine", help="Speech engine; the server's default if not given.")
@click.option("--name", help="Name of the speaker.")
@url_option
@json_option
def command(file: str, room: str, url: str, sample_rate: int, channels: int, **more: Any) -> None:
    """Stream FILE (WAV or raw PCM16; - for standard input) into a room, and print its finals."""
    room_url(url, room, "speak")
    source = open_source(file)

    async def speak() -> None:
        recording = await open_recording(source, sample_rate, channels)
        query = {
            "rate": recording.rate,
            "channels": recording.channels,
            "engine": more["engine"],
            "name": more["name"],
        }
        socket = await open_socket(room_url(url, room, "speak", query))
        await Talk(recording, room, more["pace"] == "realtime", more["as_json"]).run(socket)

    run(speak)


class Talk:
    """One recording on its way into a room."""

    def __init__(self, recording: Recording, room: str, paced: bool, as_json: bool) -> None:
        self._recording, self._room = recording, room
        self._paced, self._as_json = paced, as_json
        self._progress = StatusLine(sys.stderr)
        self._sent = self._lag = self._lost = 0.0
        self._why = ""
        self._finals = 0
        self._session: str | None = None
        self._done = False

    async def run(self, socket: ClientConnection) -> None:
        """Send everything and wait for the last final. Raises Failed."""
        began = time.monotonic()
        try:
            async with socket, anyio.create_task_group() as tasks:
                tasks.start_soon(self._report)
                tasks.start_soon(self._send, socket)
                await self._receive(socket)
                tasks.cancel_scope.cancel()
        finally:
            self._progress.clear()

        took = time.monotonic() - began
        click.echo(f"{self._sent:.1f} s of audio, {self._finals} finals, {took:.1f} s", err=True)
        if self._lost:
            click.echo(f"{self._lost:.1f} s of it were not recognized: {self._why}", err=True)

        if self._recording.missing:
            click.echo(f"the file ends {self._recording.missing:.1f} s early", err=True)

    async def _send(self, socket: ClientConnection) -> None:
        began = time.monotonic()
        try:
            await socket.send(_join(self._room))
            while data := await self._recording.read():
                await socket.send(data)
                self._sent += len(data) / self._recording.bytes_per_second
                if self._paced:
                    await anyio.sleep(max(0.0, began + self._sent - FRAME - time.monotonic()))

            await socket.send('{"type":"stop","id":"stop"}')
        except ConnectionClosed:
            return  # the reason comes to the receiver

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async for event in events(socket):
                self._take(event)
        except Ended as ended:
            if not self._done:
                raise Failed(f"{ended}; {self._sent:.1f} s of audio were sent") from None

    def _take(self, event: AnyEvent) -> None:
        if self._as_json:
            self._progress.print(to_json(event))

        match event:
            case Speech(state=state, session=session, lag=lag):
                self._session, self._lag = str(session), lag
                self._done = state == "ended"
            case Gap(session=str(), first=first, last=last, reason=reason):
                self._lost += (last - first + 1) / self._recording.bytes_per_second
                self._why = LOSSES.get(reason, reason)
            case Transcript(final=True, text=text) if text and self._is_own(event):
                self._finals += 1
                if not self._as_json:
                    self._progress.print(printable(text))
            case Error(code="quota_exceeded", message=message, room=str()):
                self._progress.print(f"slowed: {printable(message)}", err=True)
            case Error(message=message):
                raise Failed(f"refused: {printable(message)}")
            case Ack(id="stop"):
                self._done = True

    def _is_own(self, event: Transcript) -> bool:
        return self._session is not None and event.segment.startswith(stem_of(self._session) + ".")

    async def _report(self) -> None:
        seconds = self._recording.seconds
        whole = "" if math.isinf(seconds) else f" of {seconds:.1f}"
        while self._progress.visible:
            await anyio.sleep(REPORT_EVERY)
            self._progress.show(f"{self._sent:.1f}{whole} s sent, {self._lag:.1f} s behind")


def _join(room: str) -> str:
    command = {"type": "join", "room": room, "partials": False}
    return msgspec.json.encode(command).decode()
