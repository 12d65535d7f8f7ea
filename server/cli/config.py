"""roomcast config: check, show, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import tomli_w
from msgspec.inspect import DictType, Metadata, StructType, Type, VarTupleType, type_info

from actors.limits import Section
from server.cli.doctor import check_engines
from server.cli.options import Bad, config_option, load_settings
from server.settings import BadSettings, Settings, schema

HIDDEN = "***"


def veiled(section: Section) -> dict[str, Any]:
    """Return the tree of a section with every secret that is set hidden."""
    kind = type_info(type(section))
    assert isinstance(kind, StructType)
    return {field.name: _veiled(getattr(section, field.name), field.type) for field in kind.fields}


def _veiled(value: Any, kind: Type) -> Any:
    if isinstance(value, Section):
        return veiled(value)

    if isinstance(kind, DictType):
        return {name: _veiled(each, kind.value_type) for name, each in value.items()}

    if isinstance(kind, VarTupleType):
        return [_veiled(each, kind.item_type) for each in value]

    if isinstance(value, str) and "://" in value and "?" in value and not is_secret(kind):
        return f"{value.partition('?')[0]}?{HIDDEN}"  # keys stand there, too

    return HIDDEN if value and is_secret(kind) else msgspec.to_builtins(value)


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

    _check_tenants(settings)

    click.echo("the settings are good")


def _check_tenants(settings: Settings) -> None:
    """Read the keys and the files of the tenants. Raises Bad."""
    from server.tenants import Tenants

    try:
        broken = Tenants(settings, quiet=True).broken
    except BadSettings as error:
        raise Bad(str(error)) from None

    if broken:
        raise Bad("\n".join(broken.values()))


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def show(config: Path | None, as_json: bool) -> None:
    """Print every setting with its value in force; a secret only as ***."""
    tree = veiled(load_settings(config))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(tree)).decode())
    else:
        click.echo(tomli_w.dumps(tree), nl=False)


@command.command("schema")
def print_schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema())).decode())
