"""The load generator counts right: order, gaps and duplicates, over servers that lie."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.messages import Joined, Message, Transcript
from actors.wire import Frame, pack_frame
from server.load import soak
from server.load import target as target_module
from server.load.delays import FRESH, Delays
from server.load.frames import CLOSE, LARGEST, PING, TEXT, Ledger, pack, parse
from server.load.report import Report, table
from server.load.rooms import Listener, Room
from server.load.sockets import Broken, Socket
from server.load.speak import finals
from server.load.stage import Stage
from server.load.target import HOST, Target
from server.load.usage import Process
from tests.actors.node import transcript
from tests.servers import serving

STAMP = "1234567890123456789"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
STOPPED = "  stopped: nothing was wrong until then"
JOINED = Frame(Joined(room="a", epoch="e", offset=0)).json_frame


def message(offset: int) -> bytes:
    """Make a message as it goes over a socket."""
    event = Message(room="a", data=STAMP + "x" * 200, sender="", at=1.5, offset=offset, epoch="e")
    return Frame(event).json_frame


def verdict(offsets: Sequence[int], published: int) -> tuple[int, int, int]:
    """Return what a listener of these offsets has lost, got late and got twice."""
    ledger = Ledger(1)
    for offset in offsets:
        ledger.note(parse(message(offset)))

    return ledger.lost(published), ledger.late, ledger.twice


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[Target, list[str]]]:
    """Run a server that sends just this to whoever asks; yields it, and who asked."""
    peers: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4096):
            peers.append(writer.get_extra_info("peername")[0])
            writer.write(answer)
            await reader.read()

        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield await asyncio.to_thread(Target, port), peers


async def leave(sockets: Sequence[Socket]) -> None:
    """Cut connections, and wait until they are gone."""

    async def leave_one(socket: Socket) -> None:
        socket.cut()
        await socket.until(lambda: socket.lost)

    for socket in sockets:
        await leave_one(socket)


async def listen_to(stream: bytes, events: int, listeners: int = 2) -> Room:
    """Return what listeners make of a server that sends just this after the join."""
    room = Room("a")
    async with answering(ANSWER + JOINED + stream) as (target, _):
        await room.fill(target, listeners)
        room.published = events
        try:
            await room.complete()
        finally:
            await leave(room.listeners)

    return room


def test_frames_are_read_wherever_the_stream_is_cut() -> None:
    partial = transcript("s", final=False).json_frame
    final = Transcript(**msgspec.structs.asdict(transcript("s", final=True, text="x" * 300).event))
    last = Frame(msgspec.structs.replace(final, offset=3, epoch="e")).json_frame
    stream = message(1) + partial + pack_frame(PING, b"1234") + message(2) + last
    for cut in range(len(stream)):
        first = parse(stream[:cut])
        second = parse(stream[first.size :])
        assert first.offsets + second.offsets == [1, 0, 2, 3]
        assert first.stamps + second.stamps == [int(STAMP)] * 2
        assert first.others + second.others == [(PING, b"1234")]


def test_an_unbroken_run_is_clean() -> None:
    assert verdict([1, 2, 3], published=3) == (0, 0, 0)


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([1, 3], (1, 0, 0)),
        ([1, 2], (1, 0, 0)),
        ([2, 3], (1, 0, 0)),
        ([1, 3, 2], (0, 1, 0)),
        ([1, 2, 2, 3], (0, 0, 1)),
        ([1, 3, 3, 2, 2], (0, 1, 2)),
    ],
)
def test_each_violation_is_told_from_the_others(
    offsets: list[int], expected: tuple[int, int, int]
) -> None:
    assert verdict(offsets, published=3) == expected


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), max_size=30), st.integers(1, 12))
def test_the_ledger_agrees_with_sets_however_the_stream_is_batched(
    offsets: list[int], size: int
) -> None:
    ledger = Ledger(1)
    for start in range(0, len(offsets), size):
        ledger.note(parse(b"".join(map(message, offsets[start : start + size]))))

    seen = set(offsets)
    late = sum(
        offset not in offsets[:place] and any(other > offset for other in offsets[:place])
        for place, offset in enumerate(offsets)
    )
    assert ledger.lost(12) == 12 - len(seen)
    assert ledger.twice == len(offsets) - len(seen)
    assert ledger.late == late


def test_listeners_of_an_honest_server_have_nothing_to_report() -> None:
    stream = b"".join(map(message, range(1, 51)))
    room = asyncio.run(listen_to(stream, events=50))
    assert room.received == 100
    assert len(room.delays) == 100
    assert +room.audit() == {}


def test_a_server_that_loses_repeats_and_reorders_is_found_out() -> None:
    stream = b"".join(map(message, [1, 3, 2, 2, 5]))
    room = asyncio.run(listen_to(stream, events=5))
    assert room.audit() == {"lost": 2, "out of order": 2, "delivered twice": 2}


def test_a_listener_that_was_sent_away_is_told() -> None:
    cut = pack_frame(CLOSE, (4001).to_bytes(2, "big") + b"slow_consumer")
    room = asyncio.run(listen_to(message(1) + cut, events=1, listeners=1))
    assert +room.audit() == {"closed with 4001 slow_consumer": 1}


def test_nobody_waits_for_what_a_listener_that_was_sent_away_should_get() -> None:
    cut = pack_frame(CLOSE, (4001).to_bytes(2, "big") + b"slow_consumer")
    with pytest.raises(Broken, match="4001 slow_consumer"):
        asyncio.run(listen_to(message(1) + cut, events=2))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10**12), min_size=1), st.sampled_from([0, 50, 99]))
def test_a_percentile_is_one_of_the_delays_but_for_a_fifth_of_a_per_cent(
    values: list[int], percent: int
) -> None:
    delays = Delays(values)
    exact = sorted(values)[len(values) * percent // 100]
    assert delays.percentile(percent) == pytest.approx(exact, rel=0.002)
    assert delays.percentile(100) == max(values)


def test_many_delays_are_all_counted() -> None:
    delays = Delays()
    for _ in range(3):
        delays.add(range(1, FRESH))

    assert len(delays) == 3 * (FRESH - 1)
    assert len(Delays.merged([delays, Delays([10**9])])) == len(delays) + 1
    assert delays.largest < 10**9
    assert Delays().percentile(50) == 0


def test_a_client_frame_is_masked() -> None:
    assert pack(1, b"ab") == b"\x81\x82\x00\x00\x00\x00ab"
    assert pack(2, bytes(640))[:4] == b"\x82\xfe\x02\x80"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b'HTTP/1.1 503 No\r\nContent-Length: 19\r\n\r\n{"code":"overload"}',
            "HTTP 503 overload",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404"),
        (ANSWER + pack_frame(TEXT, b"[1]"), "sent what is no event of Roomcast"),
        (ANSWER + JOINED.replace(b"offset", b"0ffset"), "sent what is no event of Roomcast"),
        (ANSWER + pack_frame(CLOSE, (1012).to_bytes(2, "big") + b"restart"), "1012 restart"),
        (bytes(LARGEST + 1), "sent what is no event of Roomcast"),
    ],
)
def test_what_is_no_welcome_ends_a_run_with_a_reason(answer: bytes, said: str) -> None:
    async def listen() -> None:
        async with answering(answer) as (target, _):
            await Room("a").fill(target, 1)

    with pytest.raises(Broken, match=said):
        asyncio.run(listen())


def test_the_last_listener_is_waited_for() -> None:
    async def listen() -> Room:
        room = Room("a")
        async with answering(ANSWER + JOINED) as (target, _):
            await room.fill(target, 2)
            room.follow()
            quick, slow = room.listeners
            quick.data_received(message(1) + message(2))
            slow.data_received(message(1))
            first = len(room.last)
            slow.data_received(message(2))
            assert (first, len(room.last)) == (1, 2)
            await leave(room.listeners)

        return room

    assert asyncio.run(listen()).received == 4


def test_more_connections_than_an_address_has_ports_come_from_more_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect() -> list[str]:
        async with answering(ANSWER + JOINED) as (target, peers):
            sockets = [await target.open(lambda: Socket("/"), number) for number in range(4)]
            await leave(sockets)

        return peers

    monkeypatch.setattr(target_module, "PER_ADDRESS", 2)
    assert asyncio.run(connect()) == ["127.0.0.1"] * 2 + ["127.0.0.2"] * 2


def test_what_is_left_behind_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def compare(target: Target) -> Report:
        stage = Stage(target, Report("soak", target.http, soak.Plan()))
        before = await soak.held(stage)
        stays = await target.open(lambda: Listener(Room("stays")))
        await stays.event("joined")
        await soak.compare(stage, before)
        assert await stays.close()
        return stage.report

    monkeypatch.setattr(soak, "BACK_WITHIN", 0.1)
    with serving(tmp_path / "log", engines__enabled="echo") as server:
        report = asyncio.run(compare(Target(server.port)))

    kinds = ["connections", "rooms", "subscriptions"]
    left = [f"1 {kind} left behind" for kind in (*kinds, "open fds", "used connections")]
    assert set(report.problems) == {*left, "1 used rooms left behind"}
    assert table(report)[-6:] == [f"  FAILED: {each}" for each in report.problems]


@pytest.mark.parametrize(
    ("base", "cycles", "problems"),
    [
        (100, 100_000, ["the server has grown by 6.0 %"]),
        (100, 99_999, []),
        (101, 100_000, []),
        (0, 100_000, []),
    ],
)
def test_a_server_that_grows_over_many_cycles_is_told(
    base: int, cycles: int, problems: list[str]
) -> None:
    with create_server((HOST, 0)) as listening:
        target = Target(listening.getsockname()[1])

    report = Report("soak", target.http, soak.Plan())
    cycling = soak.Soak(Stage(target, report), soak.Plan())
    cycling.base, cycling.done = base * 1_000_000, cycles
    soak.weigh(report, 90_000_000, cycling, 106_000_000)
    assert report.problems == problems
    assert report.numbers["server_mb_before"] == 90
    assert report.numbers.get("server_mb_after") == (106 if base else None)


def test_a_run_that_was_stopped_promises_nothing() -> None:
    report = Report("soak", "http://a", soak.Plan(), interrupted=True)
    assert table(report)[1:] == ["http://a, 0.0 s, then stopped", "", STOPPED]


def test_the_cpu_of_a_process_is_that_of_its_threads() -> None:
    process, began = Process(os.getpid()), time.process_time()
    before = process.cpu()
    while time.process_time() - began < 0.1:
        pass

    assert process.cpu() - before == pytest.approx(time.process_time() - began, abs=0.02)
    assert process.resident() > 10_000_000
    assert process.waited() >= 0


def test_without_precise_clocks_the_ticks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "7" / "task").mkdir(parents=True)
    fields = ["S", *["0"] * 10, "150", "50", *["0"] * 30]
    (tmp_path / "7" / "stat").write_text(f"7 (a ) b) {' '.join(fields)}\n")
    assert Process(7, tmp_path).cpu() == 200 / os.sysconf("SC_CLK_TCK")
    with pytest.raises(FileNotFoundError):
        Process(8, tmp_path)


@pytest.mark.parametrize(("seconds", "expected"), [(0.18, 0), (0.2, 1), (1.0, 1), (1.2, 2)])
def test_the_finals_of_the_echo_engine_are_known(seconds: float, expected: int) -> None:
    assert finals(round(seconds * 32_000)) == expected
