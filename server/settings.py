"""The settings: defaults, then a TOML file, then ROOMCAST_SECTION__KEY variables; all strict."""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec.inspect import DictType, ListType, VarTupleType, type_info

from actors import limits, quota
from actors.limits import Count, Limits, Seconds, Section, SpeechLimits
from actors.quota import Quotas
from server import tenant_settings
from server.engines import configured, generator_options, options
from server.engines.configured import Engines
from server.explain import explain, unknown
from server.forwarded import read_network
from server.fronts import options as vendors
from server.tenant_settings import Operator, Tenant, check_tenants, inherit

PREFIX = "ROOMCAST_"
FILE_VARIABLE = "ROOMCAST_CONFIG"
"""Names the TOML file when the command line does not."""
URL_VARIABLE = "ROOMCAST_URL"
"""Names the server to the commands that need one; no setting."""
TOKEN_VARIABLE = "ROOMCAST_TOKEN"
"""Holds the token for the commands that connect; no setting."""
SERVICE_LINK = re.compile(
    r"ROOMCAST_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)=|ROOMCAST_PORT=\w+:"
)
"""What Kubernetes sets in every pod beside a service that is called roomcast."""

SECTIONS = (limits, quota, options, generator_options, configured, vendors, tenant_settings)
"""Modules whose sections are among the settings."""
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
    protocol: Literal["lean", "stock"] = "lean"
    """How WebSockets are spoken: `lean` by the server itself, `stock` by uvicorn's own class."""
    deflate: bool = False
    """Whether clients may have messages deflated; `lean` deflates each once for all listeners."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-For` says where a request comes from; empty: nobody
    is believed, and a request comes from its peer."""

    def __post_init__(self) -> None:
        """Refuse what is neither an address nor a network."""
        for each in self.trusted_proxies:
            read_network(each)


class Drain(Section, frozen=True):
    """How the server stops."""

    window: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    """Seconds over which closings are spread when there are many."""
    within: Seconds = 30.0
    """Seconds that everything together may take; then what is left is cut."""


class Fanout(Section, frozen=True):
    """How what is published leaves for the listeners."""

    coalesce_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    """Milliseconds for which events are gathered into one write for each listener; 0 sends what
    came in one turn of the event loop."""


class Audio(Section, frozen=True):
    """How encoded audio is decoded."""

    max_decoders: Count = 1000
    """Speakers at a time whose audio has a container (WebM, Ogg, FLAC, WAV)."""


class Settings(Section, frozen=True):
    """Everything that can be set."""

    dev: bool = False
    """One open tenant, `dev`, without tokens; for a developer's own machine."""
    server: Server = Server()
    limits: Limits = Limits()
    speech: SpeechLimits = SpeechLimits()
    audio: Audio = Audio()
    fanout: Fanout = Fanout()
    drain: Drain = Drain()
    engines: Engines = Engines()
    fronts: vendors.Fronts = vendors.Fronts()
    quotas: Quotas = Quotas()
    """What a tenant may use that has no quotas of its own."""
    operator: Operator = Operator()
    tenants: dict[str, Tenant] = msgspec.field(default_factory=dict)
    """Who may come, by name."""
    tenants_directory: str = ""
    """Directory with a file NAME.toml for each further tenant, read again at SIGHUP."""

    def __post_init__(self) -> None:
        """Refuse names that no tenant can have, and engines that are not enabled."""
        check_tenants(self.tenants, self.engines.enabled)


def load(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises BadSettings, naming the file or variable and the path in it."""
    path = path or environ.get(FILE_VARIABLE)
    tree = read_table(Path(path)) if path else {}
    settings = _convert(tree, str(path))
    variables = sorted(key for key in environ if _is_setting(key, environ[key]))
    if not variables:
        return settings

    for key in variables:
        _put(tree, key, environ[key])

    return _convert(tree, ", ".join(variables))


def override(settings: Settings, **changes: Mapping[str, Any]) -> Settings:
    """Return the settings with whole keys of sections replaced, as the command line does."""
    replaced = {
        section: msgspec.structs.replace(getattr(settings, section), **keys)
        for section, keys in changes.items()
    }
    return msgspec.structs.replace(settings, **replaced)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the settings file, each setting with its description and unit."""
    document = msgspec.json.schema(Settings)
    for module in (*SECTIONS, sys.modules[__name__]):
        for name, texts in _field_texts(inspect.getsource(module)).items():
            properties = document["$defs"].get(name, {}).get("properties", {})
            for field, text in texts.items():
                if "$ref" not in properties[field]:
                    properties[field]["description"] = text

    return document


def _field_texts(source: str) -> dict[str, dict[str, str]]:
    """Read the strings that stand behind the fields of classes; Python itself forgets them."""
    return {
        node.name: {
            field.target.id: inspect.cleandoc(str(text.value.value))
            for field, text in pairwise(node.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises BadSettings."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSettings(f"{path}: {error}") from None


def _is_setting(key: str, value: str) -> bool:
    if not key.startswith(PREFIX) or key in (FILE_VARIABLE, URL_VARIABLE, TOKEN_VARIABLE):
        return False

    return SERVICE_LINK.match(f"{key}={value}") is None


def _put(tree: dict[str, Any], key: str, value: str) -> None:
    """Set what a variable says; a list is JSON or has commas, a table JSON. Raises BadSettings."""
    *parents, leaf = names = key.removeprefix(PREFIX).lower().split("__")
    hint = _hint(names, key)
    try:
        raw = _split(value, hint)
        parsed = msgspec.convert(raw, hint, strict=False)
    except msgspec.ValidationError as error:
        sentence = explain(error, Settings, names).removesuffix(", not `str`")
        raise BadSettings(f"{key}: {sentence}") from None
    except msgspec.DecodeError as error:
        kind = "table" if isinstance(type_info(hint), DictType) else "list"
        raise BadSettings(f"{key}: {'.'.join(names)} is no JSON {kind}: {error}") from None

    for parent in parents:
        tree = tree.setdefault(parent, {})

    # A table stays as it is written: what it leaves out may be set elsewhere.
    tree[leaf] = raw if isinstance(raw, dict) else parsed


def _hint(names: list[str], key: str) -> Any:
    """Return the type of the setting that a variable names. Raises BadSettings."""
    hint: Any = Settings
    for depth, name in enumerate(names):
        if not _is_section(hint):
            raise BadSettings(f"{key}: {'.'.join(names[:depth])} is a value, not a section")

        hints = get_type_hints(hint, include_extras=True)
        if name not in hints:
            raise BadSettings(f"{key}: {unknown(names[:depth], name, list(hints))}")

        hint = hints[name]

    if _is_section(hint):
        first = hint.__struct_fields__[0].upper()
        raise BadSettings(
            f"{key}: {'.'.join(names)} is a section; name a key in it, as in {key}__{first}"
        )

    return hint


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _split(value: str, hint: Any) -> Any:
    kind = type_info(hint)
    if isinstance(kind, DictType) or (
        isinstance(kind, VarTupleType | ListType) and value.lstrip().startswith("[")
    ):
        return msgspec.json.decode(value)

    if not isinstance(kind, VarTupleType | ListType):
        return value

    return [item.strip() for item in value.split(",") if item.strip()]


def _convert(tree: dict[str, Any], source: str) -> Settings:
    tree = _inherited(tree)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{source}: {explain(error, Settings, tree=tree)}") from None

    for path in _infinite(msgspec.to_builtins(settings), ""):
        raise BadSettings(f"{source}: {path} must be a finite number")

    return settings


def _inherited(tree: dict[str, Any]) -> dict[str, Any]:
    """Give every tenant the quotas and limits of the node where it has none of its own."""
    tenants = tree.get("tenants")
    if not isinstance(tenants, dict):
        return tree

    inherited = {name: inherit(each, tree) for name, each in tenants.items()}
    return {**{name: tree[name] for name in tree if name != "tenants"}, "tenants": inherited}


def _infinite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _infinite(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, float) and math.isinf(value):
        yield path
