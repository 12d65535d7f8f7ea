"""What is wrong with a table of settings, in a sentence that begins with the place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec.inspect import DictType, LiteralType, StructType, Type, VarTupleType, type_info

from actors.limits import Section

ANY = "[...]"
"""How msgspec names the entry of a table whose names are free."""


def explain(
    error: msgspec.ValidationError,
    root: type[Section],
    names: Sequence[str] = (),
    tree: Any = None,
) -> str:
    """Turn msgspec's words into a sentence; `names` leads from the root to what was converted.

    With the `tree` that was converted, entries of tables are called by their names.
    """
    message, _, below = str(error).partition(" - at `$")
    steps = re.findall(r"[a-z_]+|\[\.\.\.\]", ".".join(names) + below.rstrip("`"))
    path = "".join(_named(below.rstrip("`"), type_info(root), tree))
    place = (".".join(names) + path).lstrip(".")
    kind = _kind(root, steps)
    if message.startswith("Object contains unknown field"):
        assert isinstance(kind, StructType)
        known = [field.name for field in kind.fields]
        return unknown([place] if place else [], message.split("`")[1], known)

    if message.startswith("Invalid enum value"):
        assert isinstance(kind, LiteralType)
        return f"{place} must be one of {', '.join(map(str, kind.values))}"

    if message.startswith("Expected"):
        wanted = message.removeprefix("Expected ").replace("object", "section")
        return f"{place} must be {wanted.replace(', got ', ', not ')}"

    return f"{place}: {message}" if ANY in below else message


def unknown(section: Sequence[str], name: str, known: Sequence[str]) -> str:
    """Say that there is no such setting in a section, and what it may have been meant to be."""
    prefix = "".join(f"{each}." for each in section)
    near = get_close_matches(name, known, 1)
    if near:
        return f"there is no setting {prefix}{name}; did you mean {prefix}{near[0]}?"

    return f"there is no setting {prefix}{name}; there are {', '.join(known)}"


def _kind(root: type[Section], steps: Sequence[str]) -> Type:
    """Return the type at a path."""
    kind: Type = type_info(root)
    for step in steps:
        if isinstance(kind, DictType):
            kind = kind.value_type
        elif isinstance(kind, StructType):
            kind = next(field.type for field in kind.fields if field.name == step)

        if isinstance(kind, VarTupleType):
            kind = kind.item_type

    return kind


def _named(path: str, kind: Type, tree: Any) -> Iterator[str]:
    """Yield the steps of a path, with the name of the first wrong entry for each that is open."""
    for step in re.findall(r"\.[a-z_]+|\[\d+\]|\[\.\.\.\]", path):
        if step == ANY and isinstance(kind, DictType):
            kind = kind.value_type
            name, tree = _first_wrong(tree, kind)
            yield f".{name}" if name else ANY
        else:
            name = step[1:]
            tree = tree.get(name) if isinstance(tree, dict) else None
            if isinstance(kind, StructType):
                kind = next((each.type for each in kind.fields if each.name == name), kind)

            yield step


def _first_wrong(table: Any, kind: Type) -> tuple[str, Any]:
    """Return the name and the value of the first entry that cannot be converted."""
    if isinstance(kind, StructType) and isinstance(table, dict):
        for name, value in table.items():
            try:
                msgspec.convert(value, kind.cls)
            except msgspec.ValidationError:
                return str(name), value

    return "", None
