"""Encoded speech into PCM: beside ffmpeg, however it is cut, lost, resumed, damaged or blown up."""

from __future__ import annotations

import random
import re
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterable
from contextlib import suppress

import anyio
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.errors import Refused
from actors.messages import AudioSpec
from actors.ports import Decoder, Decoders
from server import decoding
from server.decoding import KNOWN, MediaDecoders
from server.decoding.container import AT_ONCE_BYTES
from server.decoding.demux import LOST_BYTES, Malformed, Packet
from server.decoding.lacing import unlace
from server.decoding.ogg import MIRROR
from server.decoding.pipeline import BACKLOG_BYTES, DEMUXERS, Pipeline
from tests.encoded import FORMATS, LIVE, PCM, SPEECH, WAVS, encoded, expected, ffmpeg, likeness

pytestmark = pytest.mark.anyio

CLUSTER = b"\x1f\x43\xb6\x75"
LOSSLESS = ("flac", "wav")
RESUMABLE = ["webm", "webm-opus", "ogg-opus", "flac"]
UNHEARD = {"webm": 0.3, "webm-opus": 0.3, "ogg-opus": 0.6, "flac": 0.8}
"""Seconds that a cut may cost beside what was cut out: a block, a page or two frames."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time on both: the threads do not know of any other."""
    return str(request.param)


def opened(encoding: str, rate: int = 16_000, channels: int = 1) -> Decoder:
    decoders: Decoders = MediaDecoders()
    decoder = decoders.open(AudioSpec(encoding=encoding, rate=rate, channels=channels))
    assert decoder is not None
    return decoder


async def decoded(encoding: str, pieces: Iterable[bytes]) -> bytes:
    decoder = opened(encoding)
    pcm = [await decoder.decode(piece) for piece in pieces]
    pcm.append(await decoder.end())
    assert await decoder.end() == b""
    decoder.close()
    return b"".join(pcm)


def ran(encoding: str, pieces: Iterable[bytes]) -> bytes:
    """Decode without a thread, for the many examples of a property."""
    pipeline = Pipeline(encoding)
    pcm = bytearray()
    for piece in pieces:
        pipeline.feed(piece)
        pcm += pipeline.work(10**9)

    pipeline.end()
    return bytes(pcm + pipeline.work(10**9) + pipeline.finish())


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def assert_like(encoding: str, pcm: bytes, reference: bytes) -> None:
    if encoding in LOSSLESS:
        assert pcm == reference
    else:
        assert abs(len(pcm) - len(reference)) <= 64  # two milliseconds
        assert likeness(pcm, reference) > 40


@pytest.mark.parametrize("encoding", FORMATS)
async def test_it_is_decoded_as_ffmpeg_decodes_it(encoding: str) -> None:
    data = encoded(FORMATS[encoding])
    pcm = await decoded(encoding, [data[at : at + 700] for at in range(0, len(data), 700)])

    assert_like(encoding, pcm, expected(FORMATS[encoding]))


@pytest.mark.parametrize("samples", WAVS)
@pytest.mark.parametrize("shape", ["-ar 16000 -ac 1", "-ar 44100 -ac 2"])
def test_wav_of_any_samples_is_decoded(samples: str, shape: str) -> None:
    options = f"-c:a pcm_{samples} {shape} -f wav"
    pcm = ran("wav", [encoded(options)])
    reference = expected(options)

    if shape.startswith("-ar 16000"):
        assert pcm == reference
    else:
        assert abs(len(pcm) - len(reference)) <= 64
        assert likeness(pcm, reference) > 40


def test_wav_that_tells_its_size_ends_there() -> None:
    tail = b"LIST" + struct.pack("<I", 6) + b"INFO!!"
    data = bytearray(encoded(FORMATS["wav"]) + tail)
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", len(SPEECH))

    assert ran("wav", [bytes(data)]) == SPEECH
    data[at : at + 4] = bytes(4)
    assert ran("wav", [bytes(data)]) == SPEECH + tail


@pytest.mark.parametrize("encoding", ["webm", "ogg", "flac", "wav"])
@settings(max_examples=15)
@given(places=st.lists(st.integers(0, 100_000), max_size=60))
@example(places=list(range(400)))
def test_cuts_do_not_matter(encoding: str, places: list[int]) -> None:
    data = encoded(FORMATS[encoding])

    assert ran(encoding, cut(data, places)) == ran(encoding, [data])


async def test_pcm_comes_with_the_bytes_that_complete_it() -> None:
    data = encoded(LIVE)
    at = [place for place in range(len(data)) if data.startswith(CLUSTER, place)]
    decoder = opened("webm")
    pcm = [len(await decoder.decode(piece)) for piece in cut(data, at)]
    decoder.close()

    assert pcm[0] == 0
    assert min(pcm[1:]) > 0
    assert sum(pcm) >= len(SPEECH) - 320 - 1280


async def test_a_blob_that_ends_within_the_next_block_is_not_held_back() -> None:
    data = encoded("-c:a libopus -b:a 32k -ar 48000 -f webm -live 1")
    blocks = re.finditer(rb"\xa3(?:[\x40-\x7f].|[\x81-\xff])\x81..\x80", data, re.DOTALL)
    decoder = opened("webm")
    pieces = cut(data, [block.start() + 1 for block in blocks])
    pcm = [len(await decoder.decode(piece)) for piece in pieces]
    decoder.close()

    assert len(pcm) > 100
    assert min(pcm[1:]) > 0


@pytest.mark.parametrize("encoding", [*FORMATS, "mulaw"])
async def test_a_recorder_that_goes_on_is_not_disturbed(encoding: str) -> None:
    data = encoded(FORMATS.get(encoding, "-ar 8000 -f mulaw"))
    whole = await decoded(encoding, [data])
    decoder = opened(encoding)
    pcm = b""
    for piece in cut(data, random.Random(1).sample(range(len(data)), 20)):
        pcm += await decoder.decode(piece)
        decoder.restart()

    assert pcm + await decoder.end() == whole
    decoder.close()


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("encoding", FORMATS)
async def test_a_recorder_that_was_started_anew_is_heard_from_its_beginning(
    encoding: str, told: bool
) -> None:
    data = encoded(FORMATS[encoding])
    whole = await decoded(encoding, [data])
    decoder = opened(encoding)
    first = await decoder.decode(data[: len(data) * 2 // 3 + 1])
    if told:
        decoder.restart()

    again = await decoder.decode(data) + await decoder.end()
    decoder.close()

    assert len(first) > len(whole) / 4
    assert 0 <= len(again) - len(whole) <= 64  # what the resampler of the first still held
    assert again.endswith(whole[-16_000:])


@pytest.mark.parametrize("encoding", RESUMABLE)
@settings(max_examples=25)
@given(start=st.floats(0.2, 0.6), size=st.floats(0.001, 0.3))
def test_a_recorder_of_which_bytes_were_lost_is_heard_again(
    encoding: str, start: float, size: float
) -> None:
    data = encoded(FORMATS[encoding])
    whole = ran(encoding, [data])
    left, right = int(len(data) * start), int(len(data) * (start + size)) + 1
    pcm = ran(encoding, [data[:left], *cut(data[right:], [50, 300])])

    lost = (len(whole) - len(pcm)) / 32_000
    assert lost <= size * len(whole) / 32_000 * 2 + UNHEARD[encoding]
    assert likeness(pcm[-8000:], whole[-8000:]) > 20


def packets(encoding: str, pieces: Iterable[bytes]) -> list[bytes]:
    demuxer = DEMUXERS[encoding](b"")
    found = []
    for piece in pieces:
        demuxer.feed(piece)
        while (item := demuxer.next()) is not None:
            found += [item.data] if isinstance(item, Packet) else []

    return found


@pytest.mark.parametrize(
    ("encoding", "share"), [("webm", 0.04), ("webm-opus", 0.04), ("ogg-opus", 0.0)]
)
def test_what_two_halves_make_is_not_heard(encoding: str, share: float) -> None:
    data, chance = encoded(FORMATS[encoding]), random.Random(1)
    sound, heard = set(packets(encoding, [data])), 0
    for _ in range(200):
        left, right = sorted(chance.sample(range(len(data) // 5, len(data)), 2))
        foreign = set(packets(encoding, [data[:left], data[right:]])) - sound
        assert len(foreign) <= 1
        heard += len(foreign)

    assert heard <= share * 200


@pytest.mark.parametrize("encoding", FORMATS)
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_damaged_bytes_are_refused_or_passed_over(encoding: str, seed: int, count: int) -> None:
    data, chance = bytearray(encoded(FORMATS[encoding])), random.Random(seed)
    for _ in range(count):
        data[chance.randrange(len(data))] = chance.randrange(256)

    with suppress(Malformed):
        assert len(ran(encoding, cut(bytes(data), [1000, 5000]))) < 3 * len(SPEECH)


@pytest.mark.parametrize("encoding", RESUMABLE)
@settings(max_examples=15)
@given(share=st.floats(0, 1))
def test_what_is_cut_off_is_decoded_up_to_there(encoding: str, share: float) -> None:
    data = encoded(FORMATS[encoding])
    whole = ran(encoding, [data])
    pcm = ran(encoding, [data[: int(share * len(data))]])

    assert len(pcm) <= len(whole) + 640
    assert not pcm or likeness(pcm[:-64], whole) > 40 or len(pcm) < 640


@pytest.mark.parametrize("encoding", sorted({*FORMATS} - {"opus"}))
async def test_what_is_another_format_is_refused_for_good(encoding: str) -> None:
    other = encoded(FORMATS["ogg" if encoding == "flac" else "flac"])
    decoder = opened(encoding)
    for _ in range(2):
        with pytest.raises(Refused, match="this is not") as refused:
            await decoder.decode(other)

    assert (refused.value.code, refused.value.field) == ("bad_audio", "encoding")
    decoder.close()
    assert await decoded(encoding, []) == b""
    assert await decoded(encoding, [b"", b""]) == b""


@pytest.mark.parametrize(
    ("encoding", "options", "reason"),
    [
        ("webm", "-c:a libvorbis -f webm", "holds no Opus, but A_VORBIS"),
        ("ogg", "-c:a libvorbis -f ogg", "Ogg holds no Opus"),
        ("webm", "-c:a libopus -ac 6 -f webm", "more than two channels"),
        ("wav", "-c:a adpcm_ms -f wav", "WAV of format 2"),
        ("flac", "-c:a flac -ac 6 -f flac", "6 channels"),
    ],
)
async def test_what_is_not_taken_is_named(encoding: str, options: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        await decoded(encoding, [encoded(options)])


async def test_what_libav_cannot_decode_is_refused_with_its_reason() -> None:
    with pytest.raises(Refused, match="Invalid data"):
        await decoded("opus", [b"\xff\xff\xff"] * 20)


def test_a_picture_is_passed_over_and_not_kept() -> None:
    data = encoded(FORMATS["flac"])
    picture = b"\x06" + (10_000_000).to_bytes(3, "big")
    pipeline = Pipeline("flac")
    before = psutil.Process().memory_info().rss
    pipeline.feed(data[:42].replace(b"\x84", b"\x04", 1) + picture)
    for _ in range(200):
        pipeline.feed(bytes(50_000))
        assert pipeline.work(10**9) == b""

    assert psutil.Process().memory_info().rss - before < 4_000_000
    pipeline.feed(data[42:])
    assert len(pipeline.work(10**9)) > len(SPEECH) * 0.8


def page(packets: list[bytes], serial: int, number: int, flags: int) -> bytes:
    table = bytes(map(len, packets))
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, -1, serial, number, 0, len(table))
    whole = head + table + b"".join(packets)
    checksum = zlib.crc32(whole.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return whole[:22] + checksum.to_bytes(4, "big").translate(MIRROR) + whole[26:]


HEAD = b"OpusHead\x01\x01" + bytes(9)


async def test_what_holds_far_more_than_it_takes_comes_in_bounded_parts() -> None:
    bomb = page([HEAD], 1, 0, 2) + b"".join(
        page([b"\xfb\x06"] * 255, 1, 1 + number, 0) for number in range(60)
    )
    decoder = opened("ogg")
    parts = [await decoder.decode(bomb)]
    while more := await decoder.decode(b""):
        parts.append(more)

    decoder.close()
    assert len(bomb) < 65_536
    assert len(parts) > 10
    assert max(map(len, parts)) <= AT_ONCE_BYTES + 300_000
    assert sum(map(len, parts)) > 58_000_000


def test_who_sends_such_for_long_is_refused() -> None:
    pipeline = Pipeline("ogg")
    pages = b"".join(page([b"\xfb\x06"] * 255, 1, 1 + number, 0) for number in range(60))
    pipeline.feed(page([HEAD], 1, 0, 2))
    for _ in range(BACKLOG_BYTES // len(pages) + 1):
        pipeline.feed(pages)

    with pytest.raises(Malformed, match="bytes wait"):
        pipeline.feed(pages)


def test_thousands_of_streams_leave_nothing() -> None:
    pipeline = Pipeline("ogg")
    tracemalloc.start()
    for turn in range(10):
        pipeline.feed(b"".join(page([b"\x80theora"], n + turn * 500, 0, 2) for n in range(500)))
        assert pipeline.work(10**9) == b""

    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000


@pytest.mark.parametrize("size", [70_000, 2**40])
async def test_a_header_that_is_too_long_is_refused(size: int) -> None:
    start = encoded(LIVE)[:60]
    segment = start[: start.find(b"\x18\x53\x80\x67")] + b"\x18\x53\x80\x67\x01" + b"\xff" * 7
    with pytest.raises(Refused, match="header"):
        await decoded("webm", [segment + b"\x16\x54\xae\x6b\x01" + size.to_bytes(7, "big")])


async def test_noise_after_the_header_is_refused_in_the_end() -> None:
    decoder = opened("webm")
    await decoder.decode(encoded(LIVE)[:2000])
    assert await decoder.decode(bytes(LOST_BYTES - 10_000)) == b""
    with pytest.raises(Refused, match="damaged"):
        await decoder.decode(bytes(20_000))

    decoder.close()


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
@pytest.mark.parametrize("channels", [1, 2])
async def test_g711_is_decoded_as_ffmpeg_decodes_it(encoding: str, channels: int) -> None:
    form = f"-f {encoding} -ar 8000 -ac {channels}"
    data = bytes(range(256)) + ffmpeg(PCM, form, SPEECH)
    decoder = opened(encoding, 8000, channels)
    assert decoder.spec == AudioSpec("pcm_s16le", 8000, channels)
    pieces = cut(data, [1, 2, 333, 4444])
    pcm = b"".join(decoder.decode_nowait(piece) or b"" for piece in pieces)

    assert pcm == ffmpeg(form, f"-f s16le -ar 8000 -ac {channels}", data)
    assert await decoder.decode(data) == pcm
    assert await decoder.end() == b""
    decoder.restart()
    decoder.close()


async def test_twenty_sessions_at_once_have_the_threads_of_a_few() -> None:
    data = encoded(FORMATS["webm"])
    whole = await decoded("webm", [data])
    before = threading.active_count()
    decoders, most = MediaDecoders(), 0

    async def session() -> None:
        nonlocal most
        decoder = decoders.open(AudioSpec(encoding="webm"))
        assert decoder is not None
        pcm = b""
        for at in range(0, len(data), 400):
            pcm += await decoder.decode(data[at : at + 400])
            most = max(most, threading.active_count())

        assert pcm + await decoder.end() == whole
        decoder.close()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(session)

    assert decoders.open_now == 0
    assert most <= before + 4


async def test_the_loop_runs_on_while_a_long_recording_is_decoded() -> None:
    data = encoded(LIVE, seconds=60)
    await decoded("webm", [encoded(LIVE)])
    lags: list[float] = []
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while True:
                before = anyio.current_time()
                await anyio.sleep(0.001)
                lags.append(anyio.current_time() - before)

        tasks.start_soon(watch)
        pcm = await decoded("webm", [data])
        tasks.cancel_scope.cancel()

    assert len(pcm) > 59 * 32_000
    assert max(lags) < 0.05
    assert len(lags) > 10


async def test_whoever_leaves_in_the_middle_leaves_nothing() -> None:
    decoders = MediaDecoders(max_open=1)
    spec = AudioSpec(encoding="webm")
    decoder = decoders.open(spec)
    assert decoder is not None
    with pytest.raises(Refused, match=r"audio\.max_decoders") as refused:
        decoders.open(spec)

    assert refused.value.code == "overload"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decoder.decode, encoded(LIVE, seconds=60))
        await anyio.sleep(0.01)
        decoder.close()
        decoder.close()

    assert await decoder.decode(encoded(LIVE)) == b""
    assert await decoder.end() == b""
    assert decoders.open_now == 0


def test_a_decoder_may_be_closed_outside_of_any_task() -> None:
    decoders = MediaDecoders()
    decoder = decoders.open(AudioSpec(encoding="flac"))
    assert decoder is not None
    assert decoder.decode_nowait(b"") is None
    decoder.close()
    assert decoders.open_now == 0


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    data = encoded(LIVE)
    anyio.run(decoded, "webm", [data[:5000]])
    anyio.run(decoded, "webm", [data])

    for thread in set(threading.enumerate()) - before:
        thread.join(5)  # the loop has told it to end, and does not wait
        assert not thread.is_alive()


def test_a_plan_says_what_comes_out() -> None:
    decoders = MediaDecoders()
    pcm = AudioSpec(rate=44_100, channels=2, language="de")
    assert decoders.plan(pcm) == pcm
    assert decoders.open(pcm) is None
    for encoding in KNOWN[3:]:
        given = AudioSpec(encoding, 44_100, 2, "de")
        assert decoders.plan(given) == AudioSpec(language="de")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (AudioSpec("mp3"), "known encodings are pcm_s16le, mulaw, alaw, flac, .*, not 'mp3'"),
        (AudioSpec("mulaw", 4000), "8000 to 48000 Hz"),
        (AudioSpec("alaw", 8000, 3), "1 or 2 channels"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(spec: AudioSpec, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        MediaDecoders().open(spec)

    assert (refused.value.code, refused.value.field) == ("unsupported_audio", "encoding")


def test_who_has_no_pyav_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"roomcast\[audio\]"):
        MediaDecoders().open(AudioSpec("webm"))


@pytest.mark.parametrize(
    ("kind", "body", "packets"),
    [
        (0, b"abc", [b"abc"]),
        (1, b"\x02\x01\x02abbc", [b"a", b"bb", b"c"]),
        (1, b"\x01\xff\x01" + b"a" * 256 + b"b", [b"a" * 256, b"b"]),
        (2, b"\x01aabb", [b"aa", b"bb"]),
        (2, b"\x01aab", []),
        (3, b"\x02\x82\xbeaab", []),
        (3, b"\x02\x82\xbeaabcc", [b"aa", b"b", b"cc"]),
        (1, b"", []),
        (1, b"\x05\x01", []),
        (3, b"\x05\x00", []),
    ],
)
def test_laced_packets_are_taken_apart(kind: int, body: bytes, packets: list[bytes]) -> None:
    assert unlace(kind, body) == packets
