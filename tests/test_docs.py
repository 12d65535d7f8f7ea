"""The documentation names what there is: no code, command, event or field is missing or made up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from actors.commands import AnyCommand
from actors.errors import CLOSES, REPLIES
from actors.lifecycle import diagram
from actors.messages import AnyEvent

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
