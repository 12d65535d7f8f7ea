"""roomcast bench: load from a process of its own, and a check of all that comes back."""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

import click

from server.cli.client import BRING_A_TOKEN
from server.cli.options import (
    Bad,
    Unreachable,
    first_of,
    json_option,
    place,
    read_url,
    url_option,
)
from server.cli.terminal import StatusLine, printable, to_json
from server.settings import TOKEN_VARIABLE

if TYPE_CHECKING:
    from server.load.stage import Stage
    from server.load.target import Target
    from server.load.usage import Process

LOOK_EVERY = 0.5
"""Seconds between two looks at what is going on."""
COUNT = click.IntRange(1, 1_000_000)
SECONDS = click.FloatRange(0.1, 3600)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
Command = Callable[..., None]


def read_share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Read a part of a whole, like 10%. Raises click.BadParameter."""
    found = re.fullmatch(r"(\d{1,2}(?:\.\d+)?)%?", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no share from 0% to 99%.")

    return float(found[1]) / 100


def check_number(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse what is in no range and outside of none. Raises click.BadParameter."""
    if value != value:
        raise click.BadParameter("nan is not a number.")

    return value


def option(name: str, default: Any, kind: Any, text: str) -> Callable[[Command], Command]:
    """Declare an option that shows its default."""
    metavar = "NAME" if kind is str else "N"
    return click.option(
        name,
        default=default,
        type=kind,
        metavar=metavar,
        callback=check_number,
        show_default=True,
        help=text,
    )


def shared(command: Command) -> Command:
    """Add the options that all have."""
    pid = click.option(
        "--pid",
        metavar="N",
        type=click.IntRange(1),
        help="Process of the server, if it runs on this machine; reports its CPU and memory.",
    )
    return url_option(pid(json_option(command)))


@click.group("bench", short_help="Put load on a server; measure, and check what comes back.")
def command() -> None:
    """Put load on a running server; measure it, and check what comes back.

    Each run uses rooms of its own and checks order, gaps and duplicates of all that it gets. Exit
    code 1 says that something was lost, late, there twice or refused. Ctrl-C ends a run early with
    what was measured so far.
    """


@command.command("fanout", short_help="One publisher, rooms of listeners: deliveries and delays.")
@option("--rooms", 1, COUNT, "Rooms.")
@option("--listeners", 100, COUNT, "Listeners of each room.")
@option("--size", 128, click.IntRange(19, 60_000), "Bytes of a message.")
@option(
    "--rate",
    20.0,
    click.FloatRange(0, 100_000),
    "Messages a second to each room; 0: as many as they follow.",
)
@option("--seconds", 10.0, SECONDS, "How long.")
@click.option(
    "--stalled",
    default="0%",
    metavar="PERCENT",
    callback=read_share,
    show_default=True,
    help="Share of the listeners that stop reading.",
)
@shared
def fanout(url: str, pid: int | None, as_json: bool, **plan: Any) -> None:
    """Publish to rooms over one connection, and measure how long the listeners wait.

    With --rate 0 it publishes as much as the listeners follow, the most that the server can
    deliver. Stalled listeners stop reading: the server has to send them away sooner or later, and
    nobody else may notice.
    """
    _check_stalled(plan)
    perform("fanout", plan, url, pid, as_json)


@command.command("speak", short_help="Speakers in real time: frames, lag, time to transcript.")
@option("--speakers", 10, COUNT, "Speakers, each in a room of its own.")
@option("--seconds", 10.0, SECONDS, "How long.")
@option("--engine", "echo", str, "Speech engine.")
@shared
def speak(url: str, pid: int | None, as_json: bool, **plan: Any) -> None:
    """Send audio at the pace of real time, 50 frames a second from each speaker.

    The audio is 16-bit silence at 16 kHz, for which the engine `echo` has transcripts. Each speaker
    reads its own, and the server must have counted every byte.
    """
    perform("speak", plan, url, pid, as_json)


@command.command("connect", short_help="Connections that come and stay: how fast, how heavy.")
@option("--connections", 1000, COUNT, "Listeners of one room.")
@option("--at-once", 50, click.IntRange(1, 10_000), "Those that connect at a time, at most.")
@option("--rate", 0.0, click.FloatRange(0, 100_000), "Connects a second, at most; 0: no limit.")
@option("--hold", 0.0, click.FloatRange(0, 3600), "Seconds for which all of them stay.")
@shared
def connect(url: str, pid: int | None, as_json: bool, **plan: Any) -> None:
    """Open connections, hold them all, and close them."""
    perform("connect", plan, url, pid, as_json)


@command.command("soak", short_help="Clients that come and go: what do they leave behind?")
@option("--cycles", 1000, click.IntRange(1, 100_000_000), "Connections in all.")
@option("--at-once", 50, click.IntRange(1, 10_000), "Connections at a time.")
@option("--rooms", 4, click.IntRange(1, 1000), "Rooms.")
@option("--rate", 50.0, click.FloatRange(0.1, 100_000), "Messages a second to each room.")
@option("--engine", "echo", str, "Speech engine of those who speak.")
@shared
def soak(url: str, pid: int | None, as_json: bool, **plan: Any) -> None:
    """Connect, do something and leave again and again, while messages are published.

    Of 20 clients 16 listen, of whom two just break, two join rooms by commands, one speaks, and one
    is not let in. At the end whatever the server counts as living must be what it was before:
    connections, rooms, memberships, sessions, engine streams, what waits, open files; and what the
    tenant uses, if ROOMCAST_TOKEN gives `admin`.

    With --pid its memory is weighed before, after a tenth of the cycles, when all its caches are
    full, and at the end. Of 100,000 cycles and more the end may be 5% above the tenth.

    A server with tenants has to be told to let in so many: set its quotas publishes_per_second,
    commands_per_second and connections_per_address, and limits.arrivals.per_address, per_node and
    failures_per_address, to 0.
    """
    perform("soak", plan, url, pid, as_json)


def perform(name: str, options: dict[str, Any], url: str, pid: int | None, as_json: bool) -> None:
    """Make a run, print what was found, and end with its exit code."""
    parts = read_url(url)

    import uvloop

    from server.load.report import Report, table, to_builtins
    from server.load.stage import Stage

    work = importlib.import_module(f"server.load.{name}")
    plan = work.Plan(**options)
    _check_files(plan.connections)
    process, target = _find_process(pid), _find_server(parts)
    target.token = os.environ.get(TOKEN_VARIABLE, "").strip()
    report = Report(name, target.http, plan)
    uvloop.run(_conduct(Stage(target, report, process), work.run, plan))
    if not target.token and any("HTTP 401" in each for each in report.problems):
        report.notes.append(f"the server wants a token: {BRING_A_TOKEN}")

    if as_json:
        click.echo(to_json(to_builtins(report)))
    else:
        for line in table(report):
            click.echo(printable(line))

    if report.problems or report.interrupted:
        click.get_current_context().exit(1 if report.problems else 130)


async def _conduct(stage: Stage, run: Callable[..., Any], plan: Any) -> None:
    """Make a run, to its end or to a signal; a second one ends it at once."""
    from server.load.sockets import Broken, reason

    loop = asyncio.get_running_loop()

    def stop() -> None:
        stage.stop()
        for each in SIGNALS:
            loop.remove_signal_handler(each)

    for each in SIGNALS:
        loop.add_signal_handler(each, stop)

    telling = asyncio.create_task(_tell(stage))
    try:
        await run(stage, plan)
    except* (Broken, OSError, ValueError) as broken:
        stage.report.problems.append(f"ended early: {reason(first_of(broken))}")
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _tell(stage: Stage) -> None:
    """Show people who wait what is going on."""
    line, began = StatusLine(sys.stderr), time.monotonic()
    try:
        while line.visible:
            line.show(f"{stage.doing}, {time.monotonic() - began:.0f} s")
            await asyncio.sleep(LOOK_EVERY)
    finally:
        line.clear()


def _find_process(pid: int | None) -> Process | None:
    """Return the process of the server, if one is named. Raises Bad."""
    from server.load.usage import Process

    try:
        return None if pid is None else Process(pid)
    except OSError:
        raise Bad(f"there is no process {pid} on this machine that could be looked at") from None


def _find_server(parts: SplitResult) -> Target:
    """Find the server of an address. Raises Unreachable."""
    from server.load.target import Target

    tls = parts.scheme in ("https", "wss")
    try:
        port = parts.port or (443 if tls else 80)
        return Target(port, str(parts.hostname), parts.path.rstrip("/"), tls)
    except OSError:
        raise Unreachable.at(place(parts)) from None


def _check_files(connections: int) -> None:
    """See that this process may open so many connections. Raises Bad."""
    from server.load.target import allow_files

    allowed = allow_files(connections)
    if allowed < connections:
        raise Bad(
            f"{connections:,} connections are more than the {allowed:,} that the limit of open "
            "files leaves here; `ulimit -n`, as root, raises it"
        )


def _check_stalled(plan: dict[str, Any]) -> None:
    """See that a share of the listeners is some of them. Raises Bad."""
    if plan["stalled"] and not math.floor(plan["listeners"] * plan["stalled"]):
        share, listeners = f"{100 * plan['stalled']:g}%", plan["listeners"]
        raise Bad(f"--stalled {share} of {listeners} listeners is nobody; take more listeners")
