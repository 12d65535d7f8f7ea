"""roomcast listen."""

from __future__ import annotations

import random
import shutil
import sys
from typing import Any

import anyio
import click
import msgspec

from actors.messages import Closing, Error, Event, Gap, Joined, Message, Transcript
from server.cli.client import Ended, Unreachable, events, open_socket, socket_url
from server.cli.options import Failed, json_option, run, url_option

FIRST_RETRY = 0.5
LAST_RETRY = 15.0


@click.command("listen")
@click.argument("room")
@click.option("--since", metavar="EPOCH:OFFSET", help="Resume after this event.")
@click.option("--history", type=click.IntRange(0), help="Begin with this many earlier events.")
@click.option("--partials/--no-partials", default=True, help="Show words before they are final.")
@click.option("--once", is_flag=True, help="Do not come back when the connection ends.")
@url_option
@json_option
def command(room: str, url: str, as_json: bool, once: bool, **options: Any) -> None:
    """Print the captions of ROOM, come back when the server restarts, and miss nothing."""
    partials = options["partials"] and (as_json or sys.stdout.isatty())
    query = {"since": options["since"], "history": options["history"]}
    query["partials"] = None if partials else "false"
    base = socket_url(url, f"/v1/rooms/{room}/listen")
    run(Ear(base, query, as_json, once).run)


class Ear:
    """A listener that resumes where it was."""

    def __init__(self, url: str, query: dict[str, Any], as_json: bool, once: bool) -> None:
        self._url, self._query = url, query
        self._as_json, self._once = as_json, once
        self._failures = 0
        self._pending = ""

    async def run(self) -> None:
        """Listen until the server says not to come back. Raises Failed."""
        while True:
            try:
                await self._listen()
            except Unreachable:
                if self._once or "since" not in self._seen():
                    raise
            except Ended as ended:
                if self._once or not ended.close.retry:
                    raise Failed(f"the server ended it: {ended.close.reason}") from None

            pause = random.uniform(0, min(LAST_RETRY, FIRST_RETRY * 2**self._failures))
            self._failures = min(self._failures + 1, 10)
            await anyio.sleep(pause)

    async def _listen(self) -> None:
        socket = await open_socket(socket_url(self._url, "", self._query))
        async with socket:
            async for event in events(socket):
                self._failures = 0
                self._note(event)
                if self._as_json:
                    click.echo(msgspec.json.encode(event))
                else:
                    self._show(event)

    def _seen(self) -> dict[str, Any]:
        return {name: value for name, value in self._query.items() if value is not None}

    def _note(self, event: Event) -> None:
        """Remember the place to resume from."""
        if isinstance(event, Joined | Transcript | Message) and isinstance(event.offset, int):
            self._query |= {"since": f"{event.epoch}:{event.offset}", "history": None}

    def _show(self, event: Event) -> None:
        match event:
            case Transcript(final=False):
                self._write(self._line(event), final=False)
            case Transcript(text=text) if text:
                self._write(self._line(event), final=True)
            case Message(data=data):
                self._write(msgspec.json.encode(data).decode(), final=True)
            case Gap(first=first, last=last, reason=reason):
                self._write(f"[{max(0, last - first + 1)} events are lost: {reason}]", final=True)
            case Joined(recovered=True):
                self._write("[back, nothing missed]", final=True)
            case Error(message=message) | Closing(message=message):
                click.echo(message, err=True)

    def _line(self, event: Transcript) -> str:
        line = f"{event.speaker.name}: {event.text}" if event.speaker.name else event.text
        return "".join(each if each.isprintable() else "?" for each in line)

    def _write(self, line: str, final: bool) -> None:
        """Write a line; a partial stays on the terminal's last line until its final replaces it."""
        if not sys.stdout.isatty():
            click.echo(line)
            return

        width = shutil.get_terminal_size().columns
        click.echo(
            "\r\x1b[K" + (line if final else f"\x1b[2m{line[-width + 1 :]}\x1b[0m"), nl=final
        )
