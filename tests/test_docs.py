"""The documentation names what there is: no code, command, event or field is missing or made up."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from actors.commands import AnyCommand
from actors.errors import CLOSES, REPLIES
from actors.lifecycle import diagram
from actors.messages import AnyEvent
from actors.refusals import FORBIDDEN_MOST, FORBIDDEN_WITHIN
from server import metrics
from server.arrivals import ADDRESSES
from server.door import FLOOD
from server.frames import FRAGMENT_BYTES, FRAGMENTS
from server.http import FLUSH_WITHIN, HEAD_WITHIN
from server.inlet import PIECE, PIECES
from server.jwks import BYTES, WITHIN
from server.logs import LINES, LONGEST
from server.logs import WITHIN as LOGGED_WITHIN
from server.ports import PINGS, TURN
from server.requests import BODY_WITHIN
from server.settings import Settings, schema
from server.tokens import GRANTS, LENGTH, TRIED
from server.upgrade import HEAD_BYTES, HEADERS

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


def rows(title: str) -> dict[str, str]:
    """Return the rows of the table under a title, by their first cell."""
    section = PROTOCOL.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return {line.split("|")[1].strip().strip("`"): line for line in lines}


@pytest.mark.parametrize(("title", "union"), [("Commands", AnyCommand), ("Events", AnyEvent)])
def test_every_message_is_described_with_every_field(title: str, union: object) -> None:
    described = rows(title)
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(union)}
    assert described.keys() == kinds.keys()
    for tag, kind in kinds.items():
        for field in msgspec.structs.fields(kind):
            if (title, field.encode_name) != ("Commands", "id"):
                assert f"`{field.encode_name}`" in described[tag], (tag, field.encode_name)


def test_every_close_code_is_described_with_its_reason_and_whether_to_come_back() -> None:
    described = rows("Close codes")
    assert described.keys() == {"1001", *(str(close.code) for close in CLOSES)}
    for close in CLOSES:
        cells = [cell.strip() for cell in described[str(close.code)].split("|")]
        assert cells[2:4] == [f"`{close.reason}`", "yes" if close.retry else "no"]


def test_every_error_code_is_described_with_its_status() -> None:
    described = rows("Error codes")
    assert described.keys() == REPLIES.keys()
    for code, status in REPLIES.items():
        assert f"| {status} |" in described[code]


def test_the_diagram_is_that_of_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PROTOCOL


def test_what_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert all((ROOT / link).exists() for link in links)


SECURITY = (ROOT / "docs" / "security.md").read_text()


def cells(first: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with a cell."""
    lines = SECURITY.split(f"\n| {first} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_limit_of_the_security_model_is_a_setting_with_this_default() -> None:
    rows = cells("setting")
    assert len(rows) > 20
    for name, default, _ in rows:
        value: Any = Settings()
        for step in name.strip("`").split("."):
            value = getattr(value, step)

        assert default == f"{value:g}" or default == str(value), name


FIXED: dict[str, tuple[float, ...]] = {
    "the head of a request": (HEAD_BYTES, HEADERS, HEAD_WITHIN),
    "a body": (BODY_WITHIN, FLUSH_WITHIN),
    "trailers and extensions of chunks": (HEAD_BYTES,),
    "requests that come at once": (PIECE,),
    "a body at a time": (PIECES, PIECE),
    "connections that are cut": (FLOOD, 1),
    "a token": (LENGTH, GRANTS),
    "keys of a tenant that are tried for a token without `kid`": (TRIED,),
    "pings of a peer, and pongs that nobody asked for": (PINGS,),
    "frames of a connection at a time": (TURN,),
    "fragments of a message": (FRAGMENTS, FRAGMENT_BYTES),
    "forbidden commands": (FORBIDDEN_MOST, FORBIDDEN_WITHIN),
    "log lines of one cause": (LINES, LOGGED_WITHIN, LONGEST),
    "addresses that are remembered for `limits.arrivals`": (ADDRESSES,),
    "a set of keys behind `jwks`": (BYTES, WITHIN),
}


def test_every_fixed_bound_of_the_security_model_is_that_of_the_code() -> None:
    rows = {what: bound for what, bound, _ in cells("what")}
    assert rows.keys() == FIXED.keys()
    for what, numbers in FIXED.items():
        assert re.findall(r"\d+", rows[what]) == [f"{number:.0f}" for number in numbers], what


def test_every_setting_and_metric_that_the_security_model_names_exists() -> None:
    settings = schema()["$defs"]
    named = re.findall(r"`((?:limits|server|quotas|engines)\.[a-z_.]+)`", SECURITY)
    assert named
    for name in named:
        section = settings["Settings"]
        for step in name.split("."):
            reference = section["properties"][step]
            section = settings.get(reference.get("$ref", "").rpartition("/")[2], {})

    observed = inspect.getsource(metrics)
    for metric in re.findall(r"`(roomcast_[a-z_]+)_total`", SECURITY):
        assert f'"{metric}"' in observed
