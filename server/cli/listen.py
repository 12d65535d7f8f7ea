"""roomcast listen."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import anyio
import click
import msgspec

from actors.messages import AnyEvent, Error, Gap, Joined, Message, Transcript
from server.cli.client import Ended, events, open_socket, room_url
from server.cli.options import Failed, Unreachable, json_option, run, url_option
from server.cli.terminal import StatusLine, printable, to_json

FIRST_RETRY = 0.5
LAST_RETRY = 15.0
"""Seconds; a connection that held longer starts the retries from the first again."""

LOSSES = {
    "epoch_changed": "the server has started anew, without its history",
    "expired": "they are too old for the server's history",
    "too_far": "they are more than one resume replays",
    "ahead": "the server's history ends before them",
}


@click.command("listen", short_help="Print the captions of a room, across restarts of the server.")
@click.argument("room")
@click.option("--since", metavar="EPOCH:OFFSET", help="Resume after this event.")
@click.option("--history", type=click.IntRange(0), help="Begin with this many earlier events.")
@click.option("--partials/--no-partials", default=True, help="Show words before they are final.")
@click.option("--once", is_flag=True, help="Do not come back when the connection ends.")
@url_option
@json_option
def command(room: str, url: str, as_json: bool, once: bool, **options: Any) -> None:
    """Print the captions of ROOM, come back when the server restarts, and miss nothing.

    What is said goes to standard output; what became of the connection, to standard error.
    """
    line = StatusLine(sys.stdout)
    query = {"since": options["since"], "history": options["history"]}
    query["partials"] = None if options["partials"] and (as_json or line.visible) else "false"
    room_url(url, room, "listen")
    run(Ear((url, room), query, line, as_json, once).run)


class Ear:
    """A listener that resumes where it was."""

    def __init__(
        self,
        place: tuple[str, str],
        query: dict[str, Any],
        line: StatusLine,
        as_json: bool,
        once: bool,
    ) -> None:
        self._place, self._query, self._line = place, query, line
        self._as_json, self._once = as_json, once
        self._failures = 0
        self._joined: Joined | None = None

    async def run(self) -> None:
        """Listen until the server says not to come back. Raises Failed."""
        try:
            while True:
                pause = await self._listen()
                await anyio.sleep(pause)
        finally:
            self._line.clear()

    async def _listen(self) -> float:
        """Listen over one connection; return for how long to stay away. Raises Failed."""
        began = time.monotonic()
        pause = after = 0.0
        try:
            async with await open_socket(room_url(*self._place, "listen", self._query)) as socket:
                async for event in events(socket):
                    self._take(event)
        except Unreachable:
            if self._once or self._joined is None:
                raise
        except Ended as ended:
            if self._once or not ended.close.retry:
                raise Failed(str(ended)) from None

            pause, after = ended.pause, ended.close.retry_after
            self._note(f"{ended}; coming back")

        if time.monotonic() - began > LAST_RETRY:
            self._failures = 0

        longest = max(pause, min(LAST_RETRY, FIRST_RETRY * 2**self._failures))
        self._failures = min(self._failures + 1, 10)
        return after + random.uniform(0, longest)

    def _take(self, event: AnyEvent) -> None:
        self._remember(event)
        if self._as_json:
            click.echo(to_json(event))
        else:
            self._show(event)

    def _remember(self, event: AnyEvent) -> None:
        """Keep the place to resume from; a join that owes a replay does not move it."""
        match event:
            case Joined(epoch=epoch, offset=offset):
                self._joined = event
                if self._query["since"] is None:
                    self._resume_after(epoch, offset)
            case Gap(epoch=str(epoch), last=last) if self._joined is not None:
                self._resume_after(epoch, max(last, self._joined.offset))
            case Transcript(epoch=str(epoch), offset=int(offset)):
                self._resume_after(epoch, offset)
            case Message(epoch=str(epoch), offset=int(offset)):
                self._resume_after(epoch, offset)

    def _resume_after(self, epoch: str, offset: int) -> None:
        self._query |= {"since": f"{epoch}:{offset}", "history": None}

    def _show(self, event: AnyEvent) -> None:
        match event:
            case Transcript(final=False):
                self._line.show(_caption(event))
            case Transcript(text=""):
                self._line.clear()
            case Transcript():
                self._line.print(_caption(event))
            case Message(data=data):
                self._line.print(to_json(data))
            case Gap():
                self._note(_loss(event))
            case Joined(recovered=True):
                self._note("back, nothing is lost")
            case Error(message=message):
                self._note(printable(message))

    def _note(self, text: str) -> None:
        self._line.print(f"[{text}]", err=True)


def _caption(event: Transcript) -> str:
    name = event.speaker.name
    return printable(f"{name}: {event.text}" if name else event.text)


def _loss(gap: Gap) -> str:
    if gap.session is not msgspec.UNSET:
        return "some of a speaker's audio is lost: the speech engine is too slow"

    count = gap.last - gap.first + 1
    lost = f"{count} events are lost" if count > 0 else "anything said meanwhile is lost"
    return f"back, {lost}: {LOSSES[gap.reason]}"
