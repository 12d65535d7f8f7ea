"""roomcast serve."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

import click
import msgspec

from server.address import check_exposure, listen, url_of
from server.cli.options import DEFAULT_URL, Bad, Failed, config_option, load_settings
from server.settings import BadSettings, Settings, override

DEV_BANNER = """\
  Roomcast {version}, development mode: one open tenant, no tokens. Do not expose it.

    page     {url}/
    speak    roomcast speak FILE --room lobby{suffix}
    listen   roomcast listen lobby{suffix}
    metrics  {url}/metrics

  Ctrl-C stops it.
"""
BANNER = """\
  Roomcast {version}, for tenants with tokens; roomcast token mint makes one.

    server   {url}/
    metrics  {url}/metrics

  Ctrl-C stops it.
"""


@click.command("serve", short_help="Run the server until Ctrl-C or SIGTERM, then drain it.")
@config_option
@click.option("--dev", is_flag=True, help="One open tenant, no tokens; loopback only.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 takes a free one.")
@click.option("--protocol", type=click.Choice(["lean", "stock"]), help="How WebSockets are spoken.")
@click.option("--expose", is_flag=True, help="Allow --dev on an address that is not loopback.")
def command(config: Path | None, dev: bool, expose: bool, **server: str | int | None) -> None:
    """Run the server until Ctrl-C or SIGTERM, then drain it; a second signal cuts the drain."""
    from server.serving import StartFailed, serve

    settings = with_flags(load_settings(config), dev, expose_dev=expose or None, **server)
    try:
        check_exposure(settings)
        sockets = take_address(settings)
        if sys.stderr is not None and sys.stderr.isatty():
            click.echo(banner(url_of(sockets[0]), settings.dev), err=True)

        serve(settings, sockets)
    except BadSettings as error:
        raise Bad(str(error)) from None
    except StartFailed:
        raise Failed("the server could not start; the log above says why") from None


def take_address(settings: Settings) -> list[socket.socket]:
    """Listen on the ports of the settings, the server's own first. Raises Failed."""
    ports = [(settings.server.port, "--port")]
    if settings.fronts.vosk.port:
        ports.append((settings.fronts.vosk.port, "fronts.vosk.port"))

    sockets: list[socket.socket] = []
    for port, choice in ports:
        try:
            sockets += listen(settings, port)
        except OSError as error:
            for sock in sockets:
                sock.close()

            hint = f"; choose another with {choice}" if error.errno == errno.EADDRINUSE else ""
            where = f"{settings.server.host}:{port}"
            raise Failed(f"cannot listen on {where}: {error.strerror}{hint}") from None

    return sockets


def with_flags(settings: Settings, dev: bool, **server: str | int | None) -> Settings:
    """Return the settings with what the command line says instead of its section `server`."""
    given = {name: value for name, value in server.items() if value is not None}
    return msgspec.structs.replace(override(settings, server=given), dev=dev or settings.dev)


def banner(url: str, dev: bool = True) -> str:
    """Say what runs and how to use it."""
    from server import __version__

    suffix = "" if url == DEFAULT_URL else f" --url {url}"
    text = DEV_BANNER if dev else BANNER
    return text.format(version=__version__, url=url, suffix=suffix)
