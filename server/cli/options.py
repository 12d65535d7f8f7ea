"""What several commands share: settings, the server's address, errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from server.settings import URL_VARIABLE, BadSettings, Settings, load

DEFAULT_URL = "http://127.0.0.1:8000"

config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with settings; ROOMCAST_CONFIG names one too.",
)
url_option = click.option(
    "--url",
    default=DEFAULT_URL,
    envvar=URL_VARIABLE,
    show_default=True,
    help=f"The server; {URL_VARIABLE} names one too.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line.")


def load_settings(path: Path | None) -> Settings:
    """Read the settings, or end the command with status 2 and the reason."""
    try:
        return load(path)
    except BadSettings as error:
        raise Bad(str(error)) from None


class Bad(click.ClickException):
    """The call or the settings are wrong."""

    exit_code = 2


class Failed(click.ClickException):
    """What was asked for did not work."""

    exit_code = 1


def run(work: Callable[..., Any], *args: Any) -> Any:
    """Run async work to its end; raises a user's error as it is, out of any group."""
    import anyio

    try:
        return anyio.run(work, *args)
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def first_of(error: BaseException) -> BaseException:
    """Return the error inside a group, a user's error before any other."""
    while isinstance(error, BaseExceptionGroup):
        told = error.subgroup(click.ClickException)
        error = (told or error).exceptions[0]

    return error
