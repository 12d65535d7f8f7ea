"""Every number the engine obeys, with its unit: the sections `limits.*` of the settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Amount = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen table of settings; an unknown name in it is an error."""


class Ingress(Section, frozen=True):
    """What one speaker's socket may hold in the server before it is read no further."""

    frames: Count = 32
    """Audio frames between the socket and the actor; then the socket is not read (backpressure)."""
    early_bytes: Count = 131_072
    """Bytes of audio that may wait for the first `start`."""


class Upstream(Section, frozen=True):
    """What waits for a speech engine."""

    frames: Count = 64
    """Audio frames between the actor and the engine."""
    policy: Literal["block", "drop_oldest"] = "block"
    """When full: `block` loses nothing and slows the client, `drop_oldest` bounds the delay."""
    open_within: Seconds = 10.0
    """Seconds for an engine to accept a stream, all attempts together."""
    stalled_within: Seconds = 10.0
    """Seconds an engine may leave waiting audio untouched; then it counts as lost."""
    silent_within: Seconds = 10.0
    """Seconds an engine may be silent while it is sent what may be speech; then it counts as lost.
    Doubled each time that this brings no answer either."""
    replay: Seconds = 15.0
    """Seconds of audio, not yet covered by a final, that a lost engine's successor is sent."""
    lost_within: Seconds = 60.0
    """Seconds for which a lost engine is dialled again; then the session ends."""
    end_within: Seconds = 20.0
    """Seconds an engine may take to return what is left after the end of the audio."""


class Egress(Section, frozen=True):
    """What one listener's mailbox may hold before the listener is closed as too slow."""

    messages: Count = 1024
    """Events waiting for the socket."""
    bytes: Count = 1_048_576
    """Bytes of encoded events waiting for the socket."""
    age: Seconds = 10.0
    """Seconds the oldest waiting event may have waited."""
    flush_within: Seconds = 5.0
    """Seconds a closing connection has to take what is queued; then it is cut."""


class History(Section, frozen=True):
    """What a room remembers, and how much of it one resume may replay."""

    messages: Count = 1000
    """Finals and messages kept in a room."""
    bytes: Count = 4_194_304
    """Bytes kept in a room, for an event's JSON and MessagePack together."""
    age: Seconds = 600.0
    """Seconds an event is kept."""
    replay: Count = 300
    """Events that one resume or `history=` may ask for; at most half of `egress.messages`."""
    replay_bytes: Count = 524_288
    """Bytes that one resume may replay; at most half of `egress.bytes`."""


class Arrivals(Section, frozen=True):
    """How fast connections may be opened and wrong credentials brought; 0 is no bound. An address
    is one of IPv4, or a /64 of IPv6, of which a /48 may open connections and be refused as often as
    five. Nothing holds in development mode without tenants."""

    per_address: Amount = 20
    """WebSocket upgrades a second from one address; more are refused with 429."""
    per_address_burst: Count = 100
    """WebSocket upgrades at once from one address."""
    per_node: Amount = 500
    """WebSockets a second that this node accepts of those who bring a good credential; more are
    refused with 503. Of those who have yet to bring one half as many are, and count apart."""
    per_node_burst: Count = 1000
    """WebSockets that this node accepts at once; likewise."""
    failures_per_address: Amount = 20
    """Tokens, tickets and keys a second from one address that are not accepted; after more, no
    credential from there is looked at, and all are refused with 429."""
    failures_burst: Count = 100
    """Such failures at once from one address."""
    refusals_per_address: Amount = 20
    """Such refusals with 429 a second to one address; after more, its connections are cut before
    anything is read."""
    refusals_burst: Count = 100
    """Such refusals at once to one address."""


class SpeechLimits(Section, frozen=True):
    """What a speech session outlives."""

    resume_grace: Annotated[float, msgspec.Meta(ge=0)] = 15.0
    """Seconds for which the session of a lost connection can be resumed; 0 ends it at once."""


class Limits(Section, frozen=True):
    """Every limit of the engine."""

    connections: Count = 16_000
    """Connections on this node; the next is refused with 503."""
    unauthenticated: Count = 1000
    """Connections with `?auth=message` that have yet to send their token; one more is refused with
    503."""
    auth_within: Seconds = 5.0
    """Seconds that such a connection has to send its token; then it is closed with 4500."""
    rooms: Count = 100_000
    """Rooms on this node that have a listener or a history."""
    rooms_per_connection: Count = 64
    """Rooms one connection may have joined."""
    text_bytes: Count = 65_536
    """Bytes of one command, or of one published body."""
    audio_bytes: Count = 65_536
    """Bytes of one binary audio frame."""
    speech_idle: Seconds = 60.0
    """Seconds a started speech session may go without audio."""
    errors_burst: Count = 100
    """Error replies a connection may earn at once; then it is closed with 4503."""
    errors_per_second: Seconds = 5.0
    """Error replies a second a connection may earn for ever."""
    presence: Count = 200
    """People of a room up to which presence tells of each; of more, the number alone."""
    revocations: Count = 1000
    """Revoked subjects and tokens kept for one tenant; one more is refused."""
    publish_keys: Count = 10_000
    """Idempotency keys kept for one tenant, each for five minutes; one more is refused with 503."""
    tickets: Count = 10_000
    """Unused tickets kept for one tenant, each for at most half a minute; one more is refused with
    503."""
    arrivals: Arrivals = Arrivals()
    ingress: Ingress = Ingress()
    upstream: Upstream = Upstream()
    egress: Egress = Egress()
    history: History = History()

    def __post_init__(self) -> None:
        """Refuse a replay that could not fit the mailbox of the listener who asks for it."""
        if 2 * self.history.replay > self.egress.messages:
            raise ValueError("limits.history.replay must be at most half of limits.egress.messages")

        if 2 * self.history.replay_bytes > self.egress.bytes:
            raise ValueError(
                "limits.history.replay_bytes must be at most half of limits.egress.bytes"
            )
