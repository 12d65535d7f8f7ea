"""roomcast serve."""

from __future__ import annotations

import errno
from pathlib import Path

import click
import msgspec

from server.cli.options import Bad, Failed, config_option, load_settings
from server.settings import BadSettings, Settings, override

BANNER = """\
  Roomcast {version}, development mode: one open tenant, no tokens, no quotas. Do not expose it.

    page     {url}/
    speak    roomcast speak FILE --room lobby{suffix}
    listen   roomcast listen lobby{suffix}
    metrics  {url}/metrics

  Ctrl-C stops it.
"""


@click.command("serve")
@config_option
@click.option("--dev", is_flag=True, help="One open tenant, no tokens; loopback only.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port.")
@click.option("--expose", is_flag=True, help="Allow --dev on an address that is not loopback.")
def command(
    config: Path | None, dev: bool, host: str | None, port: int | None, expose: bool
) -> None:
    """Run the server until Ctrl-C or SIGTERM, then drain it."""
    from server.serving import serve

    settings = with_flags(load_settings(config), dev, host, port, expose)
    if settings.dev:
        click.echo(banner(settings), err=True)

    try:
        serve(settings)
    except BadSettings as error:
        raise Bad(str(error)) from None
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise

        where = f"{settings.server.host}:{settings.server.port}"
        raise Failed(f"cannot listen on {where}: {error.strerror}") from None


def with_flags(
    settings: Settings, dev: bool, host: str | None, port: int | None, expose: bool
) -> Settings:
    """Return the settings with what the command line says instead."""
    flags = {"host": host, "port": port, "expose_dev": expose or None}
    given = {name: value for name, value in flags.items() if value is not None}
    return msgspec.structs.replace(override(settings, server=given), dev=dev or settings.dev)


def banner(settings: Settings) -> str:
    """Say what runs and how to use it."""
    from server import __version__

    url = f"http://{settings.server.host}:{settings.server.port}"
    suffix = "" if settings.server.port == 8000 else f" --url {url}"
    return BANNER.format(version=__version__, url=url, suffix=suffix)
