"""The query of Deepgram's `/v1/listen`: what a client asks for."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from actors.commands import Start
from server.fronts.opening import SNIFF
from server.fronts.query import ADDRESS, RATES, Query, refused

ENCODINGS = {
    "linear16": "pcm_s16le",
    "mulaw": "mulaw",
    "alaw": "alaw",
    "opus": "ogg",
    "ogg-opus": "ogg",
    "flac": "flac",
    "": SNIFF,
}
"""Our names of the encodings that are taken."""
CONTAINERS = ("ogg", "flac", SNIFF)
TELEPHONE = 8000
"""Rate of mulaw and alaw where none is given."""
LONGEST_MODEL = 128


class Listen(msgspec.Struct, frozen=True):
    """What one connection asked for."""

    start: Start
    model: str
    interim: bool
    """Whether partials are wanted."""
    vad_events: bool
    """Whether the beginnings of speech are told."""
    utterance_ends: bool
    """Whether the ends of utterances are told."""
    endpoints: bool
    """Whether finals say that the speaker has paused."""


def read_listen(parameters: Mapping[str, str], request: str) -> Listen:
    """Read a query. Raises Refused, naming the parameter.

    Without a room it is one that only who knows the id of the request can name.
    """
    query = Query(parameters)
    query.whole("utterance_end_ms", 1000, range(1000, 60_001))
    if parameters.get("endpointing", "").lower() not in ("true", "false"):
        query.whole("endpointing", 10, range(60_001))

    return Listen(
        start=_read_start(query, request),
        model=query.text("model", "general", LONGEST_MODEL),
        interim=query.flag("interim_results"),
        vad_events=query.flag("vad_events"),
        utterance_ends="utterance_end_ms" in query,
        endpoints=parameters.get("endpointing", "").lower() != "false",
    )


def _read_start(query: Query, request: str) -> Start:
    named = query.text("encoding").lower()
    if named not in ENCODINGS:
        known = ", ".join(name for name in ENCODINGS if name)
        raise refused("encoding", f"must be one of {known}, or absent for a container")

    encoding = ENCODINGS[named]
    if named == "linear16" and "sample_rate" not in query:
        raise refused("sample_rate", "is needed for raw audio")

    rate: int | None = query.whole("sample_rate", TELEPHONE, RATES)
    if encoding in CONTAINERS and (encoding != SNIFF or "sample_rate" not in query):
        rate = None  # the container says it

    return Start(
        room=query.room(f"deepgram:{request}"),
        encoding=encoding,
        rate=rate,
        channels=query.whole("channels", 1, range(1, 3)),
        language=query.text("language", "en"),
        engine=query.text("engine", limit=ADDRESS),
        name=query.text("name"),
        transcripts=True,
    )
