"""roomcast speak."""

from __future__ import annotations

import time
from typing import Any

import anyio
import click
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from actors.messages import Ack, Error, Event, Speech, Transcript
from server.cli.audio import FRAME, Recording, open_recording
from server.cli.client import Ended, events, open_socket, socket_url
from server.cli.options import Failed, json_option, run, url_option

REPORT_EVERY = 1.0
"""Seconds between two lines of progress."""


@click.command("speak")
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
@click.option("--sample-rate", default=16000, show_default=True, help="Hertz of raw PCM.")
@click.option("--channels", default=1, show_default=True, help="Channels of raw PCM.")
@click.option("--engine", default="", help="Speech engine; the server's default if not given.")
@click.option("--name", default="", help="Name of the speaker.")
@url_option
@json_option
def command(
    file: str,
    room: str,
    pace: str,
    sample_rate: int,
    channels: int,
    **options: Any,
) -> None:
    """Stream FILE (WAV or raw PCM16; - for standard input) into a room, and print its finals."""
    recording = open_recording(file, sample_rate, channels)
    query = {
        "rate": recording.rate,
        "channels": recording.channels,
        "engine": options["engine"] or None,
        "name": options["name"] or None,
    }
    url = socket_url(options["url"], f"/v1/rooms/{room}/speak", query)
    run(Talk(recording, room, pace == "realtime", options["as_json"]).run, url)


class Talk:
    """One recording on its way into a room."""

    def __init__(self, recording: Recording, room: str, paced: bool, as_json: bool) -> None:
        self._recording, self._room = recording, room
        self._paced, self._as_json = paced, as_json
        self._sent = self._lag = 0.0
        self._finals = 0
        self._session: str | None = None
        self._done = False

    async def run(self, url: str) -> None:
        """Send everything and wait for the last final. Raises Failed."""
        socket = await open_socket(url)
        began = time.monotonic()
        async with socket, anyio.create_task_group() as tasks:
            await socket.send(_join(self._room))
            tasks.start_soon(self._report)
            tasks.start_soon(self._send, socket)
            await self._receive(socket)
            tasks.cancel_scope.cancel()

        took = time.monotonic() - began
        click.echo(f"{self._sent:.1f} s of audio, {self._finals} finals, {took:.1f} s", err=True)

    async def _send(self, socket: ClientConnection) -> None:
        began = time.monotonic()
        pieces = self._recording.frames
        try:
            while data := await anyio.to_thread.run_sync(next, pieces, b""):
                await socket.send(data)
                self._sent += len(data) / (self._recording.rate * self._recording.channels * 2)
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
                raise Failed(f"the server ended it: {ended.close.reason}") from None

    def _take(self, event: Event) -> None:
        if self._as_json:
            click.echo(msgspec.json.encode(event))

        match event:
            case Speech(state=state, session=session, lag=lag):
                self._session, self._lag = str(session), lag
                self._done = state == "ended"
            case Transcript(final=True, text=text) if text and self._is_own(event):
                self._finals += 1
                if not self._as_json:
                    click.echo(text)
            case Error(message=message):
                raise Failed(f"refused: {message}")
            case Ack(id="stop"):
                self._done = True

    def _is_own(self, event: Transcript) -> bool:
        return self._session is not None and event.segment.startswith(f"{self._session}.")

    async def _report(self) -> None:
        while True:
            await anyio.sleep(REPORT_EVERY)
            click.echo(f"\r{self._sent:7.1f} s sent, {self._lag:.1f} s behind ", nl=False, err=True)


def _join(room: str) -> str:
    command = {"type": "join", "room": room, "partials": False}
    return msgspec.json.encode(command).decode()
