"""What a terminal may show: texts of others without control characters, and one line in place."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any, TextIO
from unicodedata import east_asian_width

import click
import msgspec

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls, line breaks, and what turns the direction of the text around."""


def printable(text: str) -> str:
    """Return a text as one line that cannot move the cursor, change colours or hide anything."""
    return _UNSAFE.sub(lambda found: " " if found[0].isspace() else "?", text)


def to_json(value: Any) -> str:
    """Encode a value as one line of JSON in which control characters are escaped."""
    line = msgspec.json.encode(value).decode()
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], line)


def tail(text: str, columns: int) -> str:
    """Return the end of a text that fits into so many columns."""
    start = len(text)
    while start > 0 and (columns := columns - _width(text[start - 1])) >= 0:
        start -= 1

    return text[start:]


def _width(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 1


class StatusLine:
    """A line that is replaced in place on a terminal; elsewhere it does not exist."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._shown = False
        self.visible = is_terminal(stream)
        """Whether anybody can see it."""

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.visible:
            columns = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K\x1b[2m{tail(text, columns)}\x1b[0m")
            self._shown = True

    def clear(self) -> None:
        """Remove the line, so that something else can be printed."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def print(self, text: str, err: bool = False) -> None:
        """Print a line that stays."""
        self.clear()
        click.echo(text, err=err)

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal on which a line can be replaced."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return stream is not None and not dumb and stream.isatty()
