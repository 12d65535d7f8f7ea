"""How well recognized words match the words that were said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_LINE = re.compile(r"<s> (?P<text>.*) </s> \((?P<name>.*)\)")
SAME = {"mister": "mr", "missus": "mrs"}
"""Spellings that the recordings' transcripts and the recognizer's dictionary do not share."""


def read_transcripts(path: Path) -> dict[str, str]:
    """Read a Sphinx transcript file: what was said, by the name of the recording."""
    found = (_LINE.match(line) for line in path.read_text().splitlines())
    return {match["name"]: match["text"] for match in found if match}


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Count the words to insert, delete or replace to get one from the other (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))

    return row[-1]


def words(text: str) -> list[str]:
    """Split a text into words as they are compared."""
    return [SAME.get(word, word) for word in re.findall(r"[a-z']+", text.lower())]


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Return the word errors for each word that was said, over all texts; texts go in pairs."""
    errors = sum(word_errors(words(a), words(b)) for a, b in zip(said, heard, strict=True))
    return errors / max(1, sum(len(words(text)) for text in said))
