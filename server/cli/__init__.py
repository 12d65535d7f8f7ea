"""The command line.

Exit codes: 0 done, 1 it failed, 2 the call or the settings are wrong, 130 Ctrl-C. A server that
was told to stop, by Ctrl-C or SIGTERM, and has drained is done.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from typing import NoReturn

import click

from server import __version__

COMMANDS = (
    "serve",
    "speak",
    "listen",
    "demo",
    "token",
    "bench",
    "doctor",
    "config",
    "version",
)


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
    """Run the command line and exit; what the terminal cannot show never ends a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

    if sys.argv[1:2] == ["serve"] and hasattr(signal, "SIGHUP"):
        # It asks a server to read again, and must not end one that has yet to learn how.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    try:
        status = cli.main(prog_name="roomcast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        status = 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise

        click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest goes at the exit
        status = 1

    raise SystemExit(status)
