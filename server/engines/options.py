"""The settings `engines.*` of the engines behind a WebSocket of somebody else."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from actors.limits import Count, Seconds, Section
from server.engines.address import allows, parse

Secret = Annotated[str, Meta(extra_json_schema={"writeOnly": True})]
"""A value that is never shown: a key, a token, a header that carries one."""
Scalar = str | bool | int | float
SecretValue = Annotated[Scalar | tuple[str, ...], Meta(extra_json_schema={"writeOnly": True})]
Milliseconds = Annotated[int, Meta(ge=0)]
BINARY_EMPTY = "binary-empty"
"""Stands for an empty binary message where the end of the audio is told."""
OURS = frozenset({"encoding", "sample_rate", "channels", "language", "multichannel", "callback"})
"""Parameters of Deepgram that say what is sent, or that would send the answers elsewhere."""
SET = frozenset({"model", "punctuate", "smart_format", "interim_results", "endpointing"})
"""Parameters of Deepgram that have settings of their own."""


class Provider(Section, frozen=True):
    """What the engines have in common; its repr shows no values, for some are secret."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Connection(Section, frozen=True):
    """How the connection to a provider is kept."""

    connect_within: Seconds = 5.0
    """Seconds for the name, TCP, TLS, the upgrade and the provider's word that it is ready."""
    send_within: Seconds = 5.0
    """Seconds a provider may leave audio in a full buffer; then it counts as lost."""
    ping_interval: Seconds = 5.0
    """Seconds between pings; a provider that is silent from one to the next counts as lost."""
    buffer_bytes: Count = 65_536
    """Bytes of audio that may wait for the socket; beyond them a sender waits."""
    message_bytes: Count = 1_048_576
    """Bytes of one message of the provider; a longer one ends the connection."""
    gather_ms: Annotated[float, Meta(ge=0, le=100)] = 5.0
    """Milliseconds that audio waits for that of other streams, to leave together, which saves a
    fifth of the CPU; 0 sends each frame at once."""


class RevAi(Provider, frozen=True):
    """Rev.ai, or whatever speaks its streaming protocol."""

    token: Secret = ""
    """Access token; empty leaves the engine unconfigured."""
    url: str = "wss://api.rev.ai/speechtotext/v1/stream"
    """Address of the service."""
    max_streams: Count = 10
    """Streams at a time; Rev.ai's own limit is ten until it is raised for an account."""
    language: str = ""
    """Language that is asked for; empty for the one that the session names."""
    metadata: Annotated[str, Meta(max_length=512)] = ""
    """Text that Rev.ai keeps with the job."""
    custom_vocabulary_id: str = ""
    """Id of a vocabulary made at Rev.ai beforehand."""
    filter_profanity: bool = False
    """Whether profanities lose all letters but the first."""
    remove_disfluencies: bool = False
    """Whether `uh` and `um` are left out."""
    detailed_partials: bool = False
    """Whether the words of partials have times and confidences."""
    max_segment_duration_seconds: Annotated[int, Meta(ge=0)] = 0
    """Seconds after which a final comes at the latest; 0 leaves it to Rev.ai."""
    transcriber: str = ""
    """Model; empty leaves it to Rev.ai."""
    enable_speaker_switch: bool = False
    """Whether a change of speaker begins a new final."""
    skip_postprocessing: bool = False
    """Whether finals come without punctuation, capitals and figures."""
    priority: Literal["", "speed", "accuracy"] = ""
    """What finals are made for; empty leaves it to Rev.ai."""
    max_connection_wait_seconds: Annotated[int, Meta(ge=0)] = 0
    """Seconds that Rev.ai may look for a free worker; 0 leaves it to Rev.ai. No longer than
    `connection.connect_within` in any case."""
    delete_after_seconds: Annotated[int, Meta(ge=-1)] = -1
    """Seconds after which Rev.ai deletes the job; -1 leaves it to the account."""
    connection: Connection = Connection()

    def __post_init__(self) -> None:
        """Refuse an address that cannot be dialled."""
        parse(self.url)


class Deepgram(Provider, frozen=True):
    """Deepgram `/v1/listen`, or whatever speaks it."""

    key: Secret = ""
    """API key; empty leaves the engine unconfigured."""
    url: str = "wss://api.deepgram.com/v1/listen"
    """Address of the service."""
    max_streams: Count = 50
    """Streams at a time; Deepgram's own limit is fifty for pay as you go."""
    language: str = ""
    """Language that is asked for; empty for the one that the session names."""
    model: str = "nova-3"
    """Model that listens."""
    punctuate: bool = True
    """Whether texts have punctuation and capitals."""
    smart_format: bool = False
    """Whether dates, sums and the like are written as one reads them."""
    interim_results: bool = True
    """Whether there are partials."""
    endpointing: Milliseconds = 300
    """Milliseconds of silence that end an utterance; 0 turns that off."""
    parameters: dict[str, SecretValue] = field(default_factory=dict)
    """Any other parameter of the query; a list repeats it."""
    connection: Connection = Connection()

    def __post_init__(self) -> None:
        """Refuse an address that cannot be dialled, and parameters that are not for the table."""
        parse(self.url)
        for name in sorted((OURS | SET) & self.parameters.keys()):
            why = "has a setting of its own" if name in SET else "is not to be set"
            raise ValueError(f"engines.deepgram.parameters: {name} {why}")


class Vosk(Provider, frozen=True):
    """A vosk-server."""

    url: str = ""
    """Address, as in `ws://localhost:2700`; empty leaves the engine unconfigured."""
    max_streams: Count = 100
    """Streams at a time."""
    words: bool = True
    """Whether finals have words with times and confidences."""
    phrases: tuple[str, ...] = ()
    """All that can be said, where that is known; empty for the whole vocabulary."""
    unanswered: Count = 256
    """Messages that may wait for the server's answer; beyond them a sender waits."""
    connection: Connection = Connection()

    def __post_init__(self) -> None:
        """Refuse an address that cannot be dialled."""
        if self.url:
            parse(self.url)


class Answers(Section, frozen=True):
    """Where a message of the provider has what: dotted paths, as in `alternatives.0.transcript`."""

    text: str = "text"
    """Path to the text of a final; of a partial too, if that has no path of its own."""
    partial: str = ""
    """Path to the text of a partial, where that differs."""
    final: str = ""
    """Path to what says that a text is final; empty: each `text` is."""
    final_equals: str = ""
    """What stands there in a final, written as JSON without quotes; empty for any true value."""
    start: str = ""
    """Path to the time at which the text begins."""
    end: str = ""
    """Path to the time at which it ends."""
    words: str = ""
    """Path to the list of words."""
    word: str = "word"
    """Path to a word's text, within the word."""
    word_start: str = "start"
    """Path to the time at which a word begins, within the word."""
    word_end: str = "end"
    """Path to the time at which it ends, within the word."""
    word_confidence: str = "confidence"
    """Path to a word's confidence from 0 to 1, within the word."""
    unit: Literal["seconds", "milliseconds"] = "seconds"
    """What the times count."""
    error: str = ""
    """Path to a text that tells of an error; the connection ends with it."""


class WebSocket(Provider, frozen=True):
    """Any engine behind a WebSocket: audio goes in as binary messages, JSON comes out."""

    url: str = ""
    """Address; {rate}, {channels}, {language} and {encoding} in its path and query stand for the
    session's. Empty leaves the engine unconfigured."""
    hosts: tuple[str, ...] = ()
    """Hosts that clients may name as `engine=wss://HOST/...`, with `:PORT` unless it is the usual
    one; such engines are spoken to as is set here."""
    max_streams: Count = 100
    """Streams at a time."""
    headers: dict[str, Secret] = field(default_factory=dict)
    """Headers of the upgrade; a host that a client names gets them only if it is that of `url`."""
    subprotocols: tuple[Secret, ...] = ()
    """Subprotocols that are offered."""
    first: Secret = ""
    """Text to begin with, with the same words in braces as in `url`; empty for none."""
    end: str = ""
    """Text that ends the audio, or `binary-empty`; empty: the connection is closed."""
    answers: Answers = Answers()
    connection: Connection = Connection()

    def __post_init__(self) -> None:
        """Refuse addresses that cannot be dialled."""
        if self.url:
            parse(self.url)

        for host in self.hosts:
            allows(host, parse("wss://localhost"))
