"""The command line. Exit codes: 0 done, 1 it failed, 2 the call or the settings are wrong."""

from __future__ import annotations

import importlib
from typing import NoReturn

import click

from server import __version__

COMMANDS = ("serve", "speak", "listen", "demo", "doctor", "config", "version")


class Lazy(click.Group):
    """Imports a command when it is used, so that none pays for another's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of a first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None

        module = importlib.import_module(f"server.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="roomcast")
def cli() -> None:
    """Roomcast: speakers stream audio, rooms of listeners read captions."""


def main() -> NoReturn:
    """Run the command line and exit."""
    cli(prog_name="roomcast")
    raise SystemExit(0)
