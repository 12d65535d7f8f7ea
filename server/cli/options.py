"""What several commands share: settings, the server's address, errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from server.settings import TOKEN_VARIABLE, URL_VARIABLE, BadSettings, Settings, load

DEFAULT_URL = "http://127.0.0.1:8000"
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}

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
    help=f"The server; {URL_VARIABLE} names one too. {TOKEN_VARIABLE} holds the token for it.",
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


class Unreachable(Failed):
    """No server answers; trying again may help."""

    @classmethod
    def at(cls, where: str) -> Unreachable:
        """Say where, and what to do."""
        return cls(f"no server answers at {where}; `roomcast serve --dev` starts one")


def read_url(base: str) -> SplitResult:
    """Take the address of a server apart. Raises Bad."""
    try:
        parts = urlsplit(base)
        usable = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False

    if not usable:
        raise Bad(f"{base} is not the address of a server, like {DEFAULT_URL}")

    return parts


def place(parts: SplitResult) -> str:
    """Name the server of an address without any secret in it."""
    return parts.netloc.rpartition("@")[2]


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
