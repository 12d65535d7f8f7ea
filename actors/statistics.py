"""What a node counts about itself: frozen numbers, taken at one moment on the event loop.

Totals (said so below) only ever grow while the node lives: what a connection counted is kept
after it has left.
"""

from __future__ import annotations

import msgspec


class ChannelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One bounded channel, or all channels of a kind added together."""

    depth: int = 0
    """Items waiting now."""
    bytes: int = 0
    """Bytes waiting now; 0 where a channel is not bounded in bytes."""
    peak: int = 0
    """Most items that ever waited in a single channel."""
    capacity: int = 0
    """Items that a single channel may hold."""
    dropped: int = 0
    """Items lost because the channel was full, or with a connection that was cut (total)."""
    conflated: int = 0
    """Items replaced by a newer one of the same segment (total)."""
    waited: int = 0
    """Sends that had to wait because the channel was full (total)."""


class EngineStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One configured speech engine and the streams open to it."""

    streams: int = 0
    """Streams open now."""
    max_streams: int = 0
    """Streams that may be open at a time; 0 where nothing but the provider bounds them."""
    lag: float = 0.0
    """Seconds of audio that the stream furthest behind has yet to work through."""
    audio_seconds: float = 0.0
    """Seconds of audio that speakers sent for the engine (total)."""
    restarts: int = 0
    """Times that the engine was lost and brought back (total)."""
    abandoned: int = 0
    """Streams that were left and whose code hangs."""
    losses: int = 0
    """Streams that were lost before their end; their sessions dialled again (total)."""


class NodeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one node reports.

    The tables belong to this object: nobody changes them later, so another thread may read them.
    They may lack the keys that nothing has happened to.
    """

    connections: dict[tuple[str, str], int] = {}
    """Connections by state (`connecting`, `connected`, `draining`) and kind (`speak`, `listen`,
    `connect`)."""
    rooms: int = 0
    """Rooms that a connection of this node has joined."""
    subscriptions: int = 0
    """Memberships: a connection that joined three rooms counts three times."""
    history_events: int = 0
    """Events kept in the rooms' histories."""
    history_bytes: int = 0
    """Bytes of encoded events kept in the rooms' histories."""
    history_evicted: int = 0
    """Events let go before their time because a tenant had its quota of history."""
    channels: dict[str, ChannelStatistics] = {}
    """Channels by name: `ingress`, `upstream`, `egress`."""
    engines: dict[str, EngineStatistics] = {}
    """Speech engines by their configured name."""
    publishes: dict[str, int] = {}
    """Events published through this node by kind: `message`, `final`, `partial` (total)."""
    published_bytes: int = 0
    """Bytes of the messages among them, as MessagePack (total)."""
    deliveries: int = 0
    """Events handed to a listener's socket or mailbox (total)."""
    delivered_bytes: int = 0
    """Bytes of encoded events handed to a listener's socket or mailbox (total)."""
    slow_consumers: int = 0
    """Connections closed because they did not read fast enough (total)."""
    unheard_bytes: int = 0
    """Bytes of audio lost with an engine: there were more than is kept for a replay (total)."""
    resumable: int = 0
    """Speech sessions whose connection was lost and that wait to be resumed."""
    ready: bool = False
    """Whether a probe has gone through the publish path recently."""
    draining: bool = False
    """Whether the node refuses connections because it is about to stop."""
    probe_age: float = 0.0
    """Seconds since the last probe came back; infinite before the first one."""
