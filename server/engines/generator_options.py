"""The settings `engines.*` of the engines that run in threads and tasks of this process."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from actors.limits import Count, Seconds, Section
from server.engines.address import parse
from server.engines.options import Provider, Secret


class Bridge(Section, frozen=True):
    """What may wait between a stream and its generator, and how it is left."""

    audio_bytes: Count = 65_536
    """Bytes of audio that may wait to be pulled; beyond them a sender waits."""
    results: Count = 64
    """Results that may wait to be received; beyond them the generator waits."""
    leave_within: Seconds = 2.0
    """Seconds a generator has to end once its stream is left; then it is interrupted."""


class Generator(Section, frozen=True):
    """A generator of one's own."""

    call: str = ""
    """What makes results of audio, as `package.module:function`; empty leaves the engine
    unconfigured."""
    max_streams: Count = 100
    """Streams at a time, those included whose code hangs after they were left."""
    bridge: Bridge = Bridge()


class RevAiSdk(Provider, frozen=True):
    """Rev.ai, through the Python package that Rev.ai offers."""

    token: Secret = ""
    """Access token; empty leaves the engine unconfigured."""
    url: str = "wss://api.rev.ai"
    """Address of the service, without a path."""
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
    transcriber: str = ""
    """Model; empty leaves it to Rev.ai."""
    skip_postprocessing: bool = False
    """Whether finals come without punctuation, capitals and figures."""
    connect_within: Seconds = 5.0
    """Seconds for each step of connecting: TCP, TLS, a line of the answer to the upgrade."""
    silent_within: Seconds = 10.0
    """Seconds Rev.ai may be silent before it is sent a ping, and then to answer it; also those for
    which it may leave audio in a full buffer. Then it counts as lost."""
    bridge: Bridge = Bridge()

    def __post_init__(self) -> None:
        """Refuse an address that cannot be dialled."""
        parse(self.url)
