"""roomcast version."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click
import msgspec

from server import __version__

LIBRARIES = ("anyio", "fastapi", "msgspec", "pocketsphinx", "uvicorn", "uvloop", "websockets")


@click.command("version", short_help="Print the version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Print the version of Roomcast, and of what it stands on with --json."""
    if not as_json:
        click.echo(f"roomcast {__version__}")
        return

    versions = {"roomcast": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    click.echo(msgspec.json.format(msgspec.json.encode(versions)).decode())
