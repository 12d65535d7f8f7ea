"""roomcast config: check, show, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import tomli_w

from server.cli.options import config_option, load_settings
from server.settings import schema


@click.group("config")
def command() -> None:
    """Look at the settings."""


@command.command("check")
@config_option
def check(config: Path | None) -> None:
    """Say whether the settings can be used; status 2 and the place of the error if not."""
    load_settings(config)
    click.echo("the settings are good")


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def show(config: Path | None, as_json: bool) -> None:
    """Print every setting with its value in force."""
    tree: dict[str, Any] = msgspec.to_builtins(load_settings(config))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(tree)).decode())
    else:
        click.echo(tomli_w.dumps(tree), nl=False)


@command.command("schema")
def print_schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema())).decode())
