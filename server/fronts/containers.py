"""Which container encoded audio comes in, by its first bytes."""

from __future__ import annotations

ENOUGH = 12
"""Bytes that tell every container apart."""


def container_of(head: bytes) -> str | None:
    """Name the container that begins so; None for what is none that we know."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm"

    if head.startswith(b"OggS"):
        return "ogg"

    if head.startswith(b"fLaC"):
        return "flac"

    return "wav" if head.startswith(b"RIFF") and head[8:12] == b"WAVE" else None
