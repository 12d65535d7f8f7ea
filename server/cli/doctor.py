"""roomcast doctor: is this machine fit to run the server?"""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import anyio
import click
import msgspec

from actors.errors import Refused
from actors.messages import AudioSpec
from server.address import url_of
from server.cli.options import Failed, config_option, json_option, load_settings, run
from server.cli.serve import take_address
from server.engines.configured import make_catalog
from server.engines.embedded import EmbeddedEngine
from server.settings import Settings

RESERVED_FILES = 200
"""Files that the server needs besides its connections."""
ENGINE_WITHIN = 20.0


class Check(msgspec.Struct, frozen=True):
    """One look at the machine."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    found: str


@click.command("doctor", short_help="Check whether this machine is fit to run the server.")
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """Check Python, the event loop, the port, the file limit and the speech engine."""
    failed = []
    for check in checks(load_settings(config)):
        line = msgspec.json.encode(check).decode()
        click.echo(line if as_json else f"{check.verdict:5} {check.name:9} {check.found}")
        if check.verdict == "fail":
            failed.append(check.name)

    if failed:
        raise Failed(f"the server could not run here as it is configured: {', '.join(failed)}")


def checks(settings: Settings) -> Iterator[Check]:
    """Look at one thing after the other; the engine, last, takes a moment."""
    yield check_python()
    yield check_loop()
    yield check_port(settings)
    yield check_files(settings)
    yield from check_engines(settings)
    if "embedded" in settings.engines.enabled:
        yield run(check_engine, settings)


def check_python() -> Check:
    """Name the interpreter and the machine."""
    cores = os.cpu_count() or 1
    return Check("python", "ok", f"{platform.python_version()} on {cores} cores")


def check_loop() -> Check:
    """Say whether the fast event loop is there."""
    if importlib.util.find_spec("uvloop") is None:
        return Check("loop", "fail", "uvloop is missing; install the locked dependencies")

    return Check("loop", "ok", "uvloop")


def check_port(settings: Settings) -> Check:
    """Say whether the address can be listened on."""
    try:
        sockets = take_address(settings)
    except Failed as failed:
        return Check("port", "fail", f"{failed.message} (server.port)")

    found = ", ".join(map(url_of, sockets))
    for each in sockets:
        each.close()

    return Check("port", "ok", f"{found} is free")


def check_files(settings: Settings) -> Check:
    """Say whether the limit of open files lets all connections in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.limits.connections + RESERVED_FILES
    found = f"{soft} open files allowed"
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return Check("files", "ok", found)

    return Check(
        "files", "warn", f"{found}, limits.connections needs {needed}; try ulimit -n {hard}"
    )


def check_engines(settings: Settings) -> Iterator[Check]:
    """Say of each other engine whether it is configured; nobody is dialled."""
    try:
        engines = make_catalog(settings.engines).engines
    except ValueError as error:
        yield Check("engines", "fail", str(error))
        return

    for name, engine in engines.items():
        if name == "embedded":
            continue

        try:
            engine.check(AudioSpec())
        except Refused as refused:
            yield Check(name, "warn", refused.message)
        else:
            yield Check(name, "ok", "configured")


async def check_engine(settings: Settings) -> Check:
    """Load the embedded engine and open a stream."""
    engine = EmbeddedEngine(settings.engines.embedded.max_streams or None)
    began = time.monotonic()
    verdict = Check("engine", "fail", f"not ready after {ENGINE_WITHIN:g} s")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        with anyio.move_on_after(ENGINE_WITHIN):
            await engine.wait_ready()
            async with engine.open(AudioSpec()):
                took = time.monotonic() - began
                verdict = Check(
                    "engine", "ok", f"embedded, ready in {took:.1f} s, {engine.max_streams} streams"
                )

        tasks.cancel_scope.cancel()

    return verdict
