from __future__ import annotations

import random
import threading
from itertools import product

import anyio
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from actors.errors import CLOSES, NORMAL, REPLIES, SLOW_CONSUMER, Close
from actors.ports import Observer
from actors.statistics import ChannelStatistics, EngineStatistics, NodeStatistics
from server.metrics import Metrics

Series = dict[tuple[str, tuple[str, ...]], float]

CHANNELS = ("ingress", "upstream", "egress")
KINDS = ("speak", "listen", "connect")

BUSY = NodeStatistics(
    connections={("connected", "listen"): 7, ("draining", "speak"): 2},
    rooms=3,
    subscriptions=11,
    history_events=40,
    history_bytes=4096,
    channels={
        name: ChannelStatistics(
            depth=at + 1,
            bytes=at + 10,
            peak=at + 20,
            capacity=at + 30,
            dropped=at + 40,
            conflated=at + 50,
            waited=at + 60,
        )
        for at, name in enumerate(CHANNELS)
    },
    engines={
        "embedded": EngineStatistics(
            streams=2, max_streams=4, lag=1.5, audio_seconds=90.25, restarts=1
        )
    },
    publishes={"message": 5, "final": 6, "partial": 70},
    deliveries=123,
    delivered_bytes=45_678,
    slow_consumers=9,
    ready=True,
    draining=True,
    probe_age=0.5,
)


def metrics_of(node: NodeStatistics) -> Metrics:
    return Metrics(lambda: node, "1.2.3")


def scrape(metrics: Metrics) -> Series:
    """Return every sample of a scrape by name and label values, sorted by label name."""
    body, _ = anyio.run(metrics.render)
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def labels_of(series: Series, name: str) -> set[tuple[str, ...]]:
    return {labels for each, labels in series if each == name}


def test_every_series_exists_at_zero_from_the_first_scrape() -> None:
    series = scrape(metrics_of(NodeStatistics()))

    single = {(channel,) for channel in CHANNELS}
    observed = {(kind,) for kind in (*KINDS, "other")}
    connections = product(KINDS, ("connecting", "connected", "draining"))
    assert labels_of(series, "roomcast_connections") == set(connections)
    for name in ("depth", "peak", "capacity", "dropped_total", "conflated_total", "waited_total"):
        assert labels_of(series, f"roomcast_channel_{name}") == single

    assert labels_of(series, "roomcast_channel_bytes") == {("egress",)}
    assert labels_of(series, "roomcast_connections_opened_total") == observed
    assert labels_of(series, "roomcast_connection_seconds_count") == observed
    assert labels_of(series, "roomcast_publishes_total") == {("message",), ("final",), ("partial",)}
    assert labels_of(series, "roomcast_disconnects_total") == {
        *((str(close.code),) for close in CLOSES),
        ("other",),
    }
    assert labels_of(series, "roomcast_refusals_total") >= {(code,) for code in REPLIES}
    assert labels_of(series, "roomcast_refusals_total") >= {(close.reason,) for close in CLOSES}
    assert ("roomcast_final_latency_seconds_count", ()) in series

    loud = {key for key, value in series.items() if key[0].startswith("roomcast_") and value}
    assert loud == {("roomcast_build_info", ("1.2.3",))}


def test_every_number_of_the_node_comes_through() -> None:
    series = scrape(metrics_of(BUSY))

    plain = {
        "rooms": 3,
        "subscriptions": 11,
        "history_events": 40,
        "history_bytes": 4096,
        "ready": 1,
        "draining": 1,
        "probe_age_seconds": 0.5,
        "deliveries_total": 123,
        "delivered_bytes_total": 45_678,
        "slow_consumers_total": 9,
    }
    engine = {
        "streams": 2,
        "streams_max": 4,
        "lag_seconds": 1.5,
        "audio_seconds_total": 90.25,
        "restarts_total": 1,
    }
    expected: Series = {(f"roomcast_{name}", ()): value for name, value in plain.items()}
    expected |= {(f"roomcast_engine_{n}", ("embedded",)): value for n, value in engine.items()}
    expected |= {
        ("roomcast_connections", ("listen", "connected")): 7,
        ("roomcast_connections", ("speak", "draining")): 2,
        ("roomcast_publishes_total", ("message",)): 5,
        ("roomcast_publishes_total", ("final",)): 6,
        ("roomcast_publishes_total", ("partial",)): 70,
        ("roomcast_channel_bytes", ("egress",)): 12,
    }
    channel = {
        "depth": 1,
        "peak": 20,
        "capacity": 30,
        "dropped_total": 40,
        "conflated_total": 50,
        "waited_total": 60,
    }
    for (at, name), (field, first) in product(enumerate(CHANNELS), channel.items()):
        expected[f"roomcast_channel_{field}", (name,)] = first + at

    assert {key: series.get(key) for key in expected} == expected


def test_each_scrape_shows_the_numbers_of_its_moment() -> None:
    rooms = iter(range(1, 3))
    metrics = Metrics(lambda: NodeStatistics(rooms=next(rooms)), "1")

    assert scrape(metrics)["roomcast_rooms", ()] == 1
    assert scrape(metrics)["roomcast_rooms", ()] == 2


def test_statistics_are_read_on_the_event_loop_and_only_there() -> None:
    threads: list[int] = []

    def statistics() -> NodeStatistics:
        threads.append(threading.get_ident())
        return NodeStatistics()

    scrape(Metrics(statistics, "1"))
    assert threads == [threading.get_ident()]


def test_the_observer_counts_what_it_is_told() -> None:
    metrics = metrics_of(NodeStatistics())
    observer: Observer = metrics.observer
    observer.connected("listen")
    observer.connected("listen")
    observer.disconnected("listen", SLOW_CONSUMER, 42.0)
    observer.disconnected("speak", NORMAL, 2.0)
    observer.refused("engine_busy")
    observer.latency("final", 0.4)

    series = scrape(metrics)
    assert series["roomcast_connections_opened_total", ("listen",)] == 2
    assert series["roomcast_disconnects_total", ("4001",)] == 1
    assert series["roomcast_disconnects_total", ("1000",)] == 1
    assert series["roomcast_connection_seconds_sum", ("listen",)] == 42
    assert series["roomcast_connection_seconds_count", ("speak",)] == 1
    assert series["roomcast_refusals_total", ("engine_busy",)] == 1
    assert series["roomcast_final_latency_seconds_sum", ()] == 0.4
    assert series["roomcast_final_latency_seconds_bucket", ("0.3",)] == 0
    assert series["roomcast_final_latency_seconds_bucket", ("0.5",)] == 1


def test_a_stage_without_a_histogram_is_not_kept() -> None:
    metrics = metrics_of(NodeStatistics())
    before = set(scrape(metrics))
    metrics.observer.latency("no such stage", 1.0)

    assert set(scrape(metrics)) == before
    assert scrape(metrics)["roomcast_final_latency_seconds_count", ()] == 0


def test_ten_thousand_unknown_codes_make_no_series() -> None:
    metrics = metrics_of(NodeStatistics())
    before = set(scrape(metrics))
    dice = random.Random(1)
    for _ in range(10_000):
        text = f"made-up-{dice.getrandbits(64):x}"
        metrics.observer.connected(text)
        metrics.observer.refused(text)
        metrics.observer.disconnected(text, Close(dice.randrange(5000, 2**31), text), 1.0)

    assert set(scrape(metrics)) == before
    series = scrape(metrics)
    assert series["roomcast_connections_opened_total", ("other",)] == 10_000
    assert series["roomcast_refusals_total", ("other",)] == 10_000
    assert series["roomcast_disconnects_total", ("other",)] == 10_000
    assert series["roomcast_connection_seconds_count", ("other",)] == 10_000


def test_no_label_can_name_a_room_a_connection_or_a_user() -> None:
    body, _ = anyio.run(metrics_of(BUSY).render)
    names = {
        label
        for family in text_string_to_metric_families(body.decode())
        if family.name.startswith("roomcast_")
        for sample in family.samples
        for label in sample.labels
    }
    assert names == {"state", "kind", "channel", "engine", "code", "version", "le"}


def test_a_probe_that_never_came_back_is_infinitely_old() -> None:
    series = scrape(metrics_of(NodeStatistics(probe_age=float("inf"))))
    assert series["roomcast_probe_age_seconds", ()] == float("inf")


def test_the_process_and_the_interpreter_are_reported_too() -> None:
    names = {name for name, _ in scrape(metrics_of(NodeStatistics()))}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_max_fds"} <= names
    assert {"python_info", "python_gc_collections_total"} <= names
    assert not {name for name in names if name.endswith("_created")}


def test_the_content_type_is_that_of_the_text_format() -> None:
    _, content_type = anyio.run(metrics_of(NodeStatistics()).render)
    assert content_type.startswith("text/plain; version=")


def test_two_apps_in_one_process_do_not_clash() -> None:
    default = generate_latest(REGISTRY)
    one, two = metrics_of(NodeStatistics(rooms=1)), metrics_of(NodeStatistics(rooms=2))
    one.observer.connected("speak")

    assert scrape(one)["roomcast_rooms", ()] == 1
    assert scrape(two)["roomcast_rooms", ()] == 2
    assert scrape(one)["roomcast_connections_opened_total", ("speak",)] == 1
    assert scrape(two)["roomcast_connections_opened_total", ("speak",)] == 0
    assert b"roomcast" not in default
    assert b"roomcast" not in generate_latest(REGISTRY)
