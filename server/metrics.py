"""What a node tells Prometheus: every label value comes from a set that is closed at the start.

Gauges and busy totals are plain numbers of `NodeStatistics`, read once a scrape, so that they cost
nothing between scrapes; rare events are counted by the observer. Nothing is labelled by room,
connection or user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Generic, TypeVar

import msgspec
from anyio import to_thread
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)

from actors.errors import CLOSES, REPLIES, Close
from actors.statistics import ChannelStatistics, EngineStatistics, NodeStatistics

STATES = ("connecting", "connected", "draining")
KINDS = ("speak", "listen", "connect")
PUBLISHES = ("message", "final", "partial")
CHANNELS = ("ingress", "upstream", "egress")
OTHER = "other"
"""What an unknown value of a closed set is counted as."""

CLOSE_CODES = (*(str(close.code) for close in CLOSES), OTHER)
REFUSAL_CODES = (*sorted({*REPLIES, *(close.reason for close in CLOSES)}), OTHER)

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Seconds; captions feel live below one and are of no use after thirty."""
LIFETIME_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
"""Seconds, from a client that cannot stay to one that listens all day."""

Values = Mapping[tuple[str, ...], float]
Child = TypeVar("Child", Counter, Histogram)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, statistics: Callable[[], NodeStatistics], version: str) -> None:
        """Read `statistics` at each scrape, on the event loop that calls `render`."""
        self._statistics = statistics
        self._version = version
        self._registry = CollectorRegistry()
        self.observer = MetricsObserver(self._registry)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def render(self) -> tuple[bytes, str]:
        """Return the exposition and its content type; only the text is made in a worker thread."""
        scrape = Scrape(self._statistics(), self._version, self._registry)
        return await to_thread.run_sync(generate_latest, scrape), CONTENT_TYPE_LATEST


class MetricsObserver:
    """Counts the rare events; an `actors.ports.Observer`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make every series of every closed set at zero."""
        opened = Counter(
            "roomcast_connections_opened", "Connections begun.", ["kind"], registry=registry
        )
        ended = Counter(
            "roomcast_disconnects", "Connections ended, by close code.", ["code"], registry=registry
        )
        refused = Counter(
            "roomcast_refusals", "Commands and requests refused.", ["code"], registry=registry
        )
        lasted = Histogram(
            "roomcast_connection_seconds",
            "How long a connection lasted.",
            ["kind"],
            buckets=LIFETIME_BUCKETS,
            registry=registry,
        )
        final = Histogram(
            "roomcast_final_latency_seconds",
            "From the end of the speech to the publish of its final transcript.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._unlogged = Counter(
            "roomcast_log_lines_dropped",
            "Log lines left out, as their cause had filled its share.",
            registry=registry,
        )
        self._cut = Counter(
            "roomcast_connections_cut",
            "Connections cut unread, of addresses that go on though they are refused.",
            registry=registry,
        )
        self._opened = Children(opened, (*KINDS, OTHER))
        self._ended = Children(ended, CLOSE_CODES)
        self._refused = Children(refused, REFUSAL_CODES)
        self._lasted = Children(lasted, (*KINDS, OTHER))
        self._stages = {"final": final}

    def connected(self, kind: str) -> None:
        """Count a connection that began."""
        self._opened[kind].inc()

    def disconnected(self, kind: str, close: Close, lasted: float) -> None:
        """Count a connection that ended after `lasted` seconds."""
        self._ended[str(close.code)].inc()
        self._lasted[kind].observe(lasted)

    def refused(self, code: str) -> None:
        """Count a command or a request that was refused."""
        self._refused[code].inc()

    def cut(self) -> None:
        """Count a connection that was cut before anything was read."""
        self._cut.inc()

    def unlogged(self) -> None:
        """Count a line that was not logged; safe in any thread."""
        self._unlogged.inc()

    def latency(self, stage: str, seconds: float) -> None:
        """Keep how long a stage took; a stage that has no histogram is not kept."""
        if histogram := self._stages.get(stage):
            histogram.observe(seconds)


class Children(Generic[Child]):
    """The series of a metric with one label: all exist from the start, and no more are made."""

    def __init__(self, metric: Child, values: Iterable[str]) -> None:
        """Make a series for each of `values`, of which one must be OTHER."""
        self._series: dict[str, Child] = {value: metric.labels(value) for value in values}

    def __getitem__(self, value: str) -> Child:
        """Return the series of this label value, or that of OTHER."""
        return self._series.get(value, self._series[OTHER])


class Scrape(msgspec.Struct, frozen=True):
    """One scrape: what the node counted, then what the registry did. Safe in any thread."""

    statistics: NodeStatistics
    version: str
    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by `generate_latest`."""
        yield _gauge(
            "build_info", "The version that runs; always 1.", {(self.version,): 1}, "version"
        )
        yield from _node(self.statistics)
        yield from _channels(self.statistics.channels)
        yield from _speech(self.statistics)

        for metric in self.registry.collect():
            # The text format has no creation time; the library would add a gauge for each series.
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


def _node(node: NodeStatistics) -> Iterator[Metric]:
    connections: Values = {key: node.connections.get(key, 0) for key in product(STATES, KINDS)}
    publishes: Values = {(kind,): node.publishes.get(kind, 0) for kind in PUBLISHES}
    yield _gauge("connections", "Connections open now.", connections, "state", "kind")
    yield _gauge("rooms", "Rooms joined by a connection of this node.", {(): node.rooms})
    yield _gauge("subscriptions", "Memberships of connections in rooms.", {(): node.subscriptions})
    yield _gauge("history_events", "Events kept for resume.", {(): node.history_events})
    yield _gauge("history_bytes", "Bytes of events kept for resume.", {(): node.history_bytes})
    yield _counter(
        "history_evicted", "Events let go early for a quota.", {(): node.history_evicted}
    )
    yield _gauge("ready", "1 while the publish path is proven to work.", {(): node.ready})
    yield _gauge("draining", "1 while the node stops.", {(): node.draining})
    yield _gauge("probe_age_seconds", "Since the last probe came back.", {(): node.probe_age})
    yield _counter("publishes", "Events published through this node.", publishes, "kind")
    yield _counter("published_bytes", "Bytes of messages.", {(): node.published_bytes})
    yield _counter("deliveries", "Events handed to a listener.", {(): node.deliveries})
    yield _counter("delivered_bytes", "Bytes handed to listeners.", {(): node.delivered_bytes})
    yield _counter(
        "slow_consumers",
        "Connections closed because they read too slowly.",
        {(): node.slow_consumers},
    )


def _speech(node: NodeStatistics) -> Iterator[Metric]:
    yield _gauge("resumable_sessions", "Speech whose connection was lost.", {(): node.resumable})
    yield _counter("unheard_bytes", "Audio that was lost with an engine.", {(): node.unheard_bytes})
    yield from _engines(node.engines)


def _channels(channels: Mapping[str, ChannelStatistics]) -> Iterator[Metric]:
    known = {(name,): channels.get(name, ChannelStatistics()) for name in CHANNELS}

    def values(read: Callable[[ChannelStatistics], float]) -> Values:
        return {name: read(channel) for name, channel in known.items()}

    egress: Values = {("egress",): known["egress",].bytes}
    yield _gauge("channel_depth", "Items waiting now.", values(lambda c: c.depth), "channel")
    yield _gauge("channel_bytes", "Bytes waiting now.", egress, "channel")
    yield _gauge(
        "channel_peak",
        "Most items that waited in one channel.",
        values(lambda c: c.peak),
        "channel",
    )
    yield _gauge(
        "channel_capacity", "Items one channel may hold.", values(lambda c: c.capacity), "channel"
    )
    yield _counter(
        "channel_dropped", "Items that nobody will take.", values(lambda c: c.dropped), "channel"
    )
    yield _counter(
        "channel_conflated", "Items replaced by newer.", values(lambda c: c.conflated), "channel"
    )
    yield _counter(
        "channel_waited", "Sends a full channel held up.", values(lambda c: c.waited), "channel"
    )


def _engines(engines: Mapping[str, EngineStatistics]) -> Iterator[Metric]:
    def values(read: Callable[[EngineStatistics], float]) -> Values:
        return {(name,): read(engine) for name, engine in engines.items()}

    yield _gauge("engine_streams", "Streams open now.", values(lambda e: e.streams), "engine")
    yield _gauge(
        "engine_streams_max",
        "Streams that may be open; 0 is no bound.",
        values(lambda e: e.max_streams),
        "engine",
    )
    yield _gauge(
        "engine_lag_seconds",
        "Audio that the stream furthest behind has yet to hear.",
        values(lambda e: e.lag),
        "engine",
    )
    yield _counter(
        "engine_audio_seconds", "Audio taken.", values(lambda e: e.audio_seconds), "engine"
    )
    yield _gauge(
        "engine_abandoned", "Streams whose code hangs.", values(lambda e: e.abandoned), "engine"
    )
    yield _counter("engine_losses", "Streams lost.", values(lambda e: e.losses), "engine")
    yield _counter(
        "engine_restarts", "Streams or workers replaced.", values(lambda e: e.restarts), "engine"
    )


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"roomcast_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)

    return family


def _counter(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = CounterMetricFamily(f"roomcast_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)

    return family
