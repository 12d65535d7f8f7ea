"""The settings: defaults, then a TOML file, then ROOMCAST_SECTION__KEY variables; all strict."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from actors.limits import Count, Limits, Seconds, Section

PREFIX = "ROOMCAST_"
FILE_VARIABLE = "ROOMCAST_CONFIG"
"""Names the TOML file when the command line does not."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class BadSettings(Exception):
    """The settings cannot be used; the message says where and why."""


class Server(Section, frozen=True):
    """Where the server listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8000
    """TCP port; 0 takes a free one."""
    expose_dev: bool = False
    """Whether `dev` may listen on an address that is not loopback."""
    ping_interval: Seconds = 15.0
    """Seconds between WebSocket pings of the server."""
    ping_timeout: Seconds = 10.0
    """Seconds a peer has to answer a ping; then it counts as gone."""


class Drain(Section, frozen=True):
    """How the server stops."""

    window: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    """Seconds over which closings are spread when there are many."""
    within: Seconds = 30.0
    """Seconds that everything together may take; then what is left is cut."""


class Embedded(Section, frozen=True):
    """The speech engine that comes with the server."""

    max_streams: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Speaking streams at a time; 0 means four for each core."""


class Echo(Section, frozen=True):
    """The engine for tests and load: it answers without listening."""

    max_streams: Count = 10_000
    """Speaking streams at a time."""


class Engines(Section, frozen=True):
    """The speech engines."""

    enabled: tuple[str, ...] = ("embedded", "echo")
    """Engines that clients may name; the first is used when they name none."""
    embedded: Embedded = Embedded()
    echo: Echo = Echo()


class Settings(Section, frozen=True):
    """Everything that can be set."""

    dev: bool = False
    """One open tenant, `dev`, without tokens; for a developer's own machine."""
    server: Server = Server()
    limits: Limits = Limits()
    drain: Drain = Drain()
    engines: Engines = Engines()


def load(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises BadSettings, naming the file or variable and the path in it."""
    path = path or environ.get(FILE_VARIABLE)
    tree = _read(Path(path)) if path else {}
    source = str(path) if path else "the defaults"
    _convert(tree, source)
    variables = sorted(key for key in environ if key.startswith(PREFIX) and key != FILE_VARIABLE)
    for key in variables:
        _put(tree, key, environ[key])
        _convert(tree, key)

    return _convert(tree, source)


def override(settings: Settings, **changes: Mapping[str, Any]) -> Settings:
    """Return the settings with whole keys of sections replaced, as the command line does."""
    replaced = {
        section: msgspec.structs.replace(getattr(settings, section), **keys)
        for section, keys in changes.items()
    }
    return msgspec.structs.replace(settings, **replaced)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the settings file."""
    return msgspec.json.schema(Settings)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None


def _put(tree: dict[str, Any], key: str, value: str) -> None:
    *parents, leaf = key.removeprefix(PREFIX).lower().split("__")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise BadSettings(f"{key}: {parent} is a value, not a section")

    node[leaf] = [item.strip() for item in value.split(",")] if leaf == "enabled" else value


def _convert(tree: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{source}: {error}") from None
