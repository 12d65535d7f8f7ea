"""roomcast config: check, show, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import tomli_w
from msgspec.inspect import DictType, Metadata, StructType, Type, type_info

from actors.limits import Section
from server.cli.doctor import check_engines
from server.cli.options import Bad, config_option, load_settings
from server.settings import schema

HIDDEN = "***"


def veiled(section: Section) -> Section:
    """Return a section with every secret that is set hidden."""
    kind = type_info(type(section))
    assert isinstance(kind, StructType)
    changes: dict[str, Any] = {}
    for field in kind.fields:
        value = getattr(section, field.name)
        if isinstance(value, Section):
            changes[field.name] = veiled(value)
        elif value and is_secret(field.type):
            changes[field.name] = HIDDEN
        elif isinstance(value, str) and "://" in value and "?" in value:
            changes[field.name] = f"{value.partition('?')[0]}?{HIDDEN}"  # keys stand there, too
        elif isinstance(field.type, DictType) and is_secret(field.type.value_type):
            changes[field.name] = dict.fromkeys(value, HIDDEN)

    return msgspec.structs.replace(section, **changes)


def is_secret(kind: Type) -> bool:
    """Return whether a setting is marked as one that nobody is shown."""
    return isinstance(kind, Metadata) and bool((kind.extra_json_schema or {}).get("writeOnly"))


@click.group("config")
def command() -> None:
    """Look at the settings."""


@command.command("check")
@config_option
def check(config: Path | None) -> None:
    """Say whether the settings can be used; status 2 and the place of the error if not."""
    settings = load_settings(config)
    for each in check_engines(settings):
        if each.verdict == "fail":
            raise Bad(each.found)

        if each.verdict == "warn":
            click.echo(f"warning: {each.found}", err=True)

    click.echo("the settings are good")


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def show(config: Path | None, as_json: bool) -> None:
    """Print every setting with its value in force; a secret only as ***."""
    tree: dict[str, Any] = msgspec.to_builtins(veiled(load_settings(config)))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(tree)).decode())
    else:
        click.echo(tomli_w.dumps(tree), nl=False)


@command.command("schema")
def print_schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema())).decode())
