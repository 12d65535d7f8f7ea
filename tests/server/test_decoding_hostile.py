"""Streams made to cost much: each is refused or bounded, and others are decoded in time."""

from __future__ import annotations

import struct
import time

import anyio
import pytest

from actors.errors import Refused
from actors.messages import AudioSpec
from actors.ports import Decoder
from server.decoding import MediaDecoders
from server.decoding.demux import IDLE_ELEMENTS, TURN_ELEMENTS, Malformed
from server.decoding.pipeline import Pipeline

pytestmark = pytest.mark.anyio

OPUS = b"OpusHead\x01\x01\0\0\x80\xbb\0\0\0\0\0\0\0"
LATE = 0.1
"""Seconds within which an honest piece is decoded."""


def element(name: int, body: bytes) -> bytes:
    head = name.to_bytes((name.bit_length() + 7) // 8, "big")
    return head + (0x10000000 | len(body)).to_bytes(4, "big") + body


LIVE = b"\x01" + b"\xff" * 7
ENTRY = element(0xD7, b"\x01") + element(0x86, b"A_OPUS") + element(0x63A2, OPUS)
WEBM = (
    element(0x1A45DFA3, b"")
    + (b"\x18\x53\x80\x67" + LIVE)
    + element(0x1654AE6B, element(0xAE, ENTRY))
    + (b"\x1f\x43\xb6\x75" + LIVE)
)
WAV = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
FAR = b"\xa3\x20\xfd\xe8\x81"
"""The head of a block of 65000 bytes."""
VOID = b"\xec\x80"


def test_a_damaged_stream_is_searched_once() -> None:
    pipeline = Pipeline("webm")
    pipeline.feed(WEBM + b"\0" + FAR * 12_000)
    pipeline.work(10**6)

    begun = time.process_time()
    for _ in range(1000):
        pipeline.feed(FAR)
        pipeline.work(10**6)

    assert time.process_time() - begun < 1  # it was 50 s


def test_wav_of_chunks_smaller_than_a_sample_is_read_without_recursion() -> None:
    pipeline = Pipeline("wav")
    pipeline.feed(WAV + b"data\x01\0\0\0x" * 7000)
    turns = 1
    while pipeline.work(10**6) == b"" and pipeline.paused:
        turns += 1

    assert 2 <= turns <= 7000 // TURN_ELEMENTS + 2


@pytest.mark.parametrize(
    ("encoding", "head", "idle"),
    [("webm", WEBM, VOID), ("wav", WAV, b"abcd\0\0\0\0"), ("wav", WAV, b"data\x01\0\0\0x")],
)
def test_elements_that_hold_nothing_are_refused_in_the_end(
    encoding: str, head: bytes, idle: bytes
) -> None:
    pipeline = Pipeline(encoding)
    pipeline.feed(head + idle * (IDLE_ELEMENTS + 1))
    for _ in range(IDLE_ELEMENTS // TURN_ELEMENTS):
        assert pipeline.work(10**6) == b""
        assert pipeline.paused

    with pytest.raises(Malformed, match="hold nothing"):
        pipeline.work(10**6)


def test_a_header_that_comes_by_the_byte_is_not_idle() -> None:
    pipeline = Pipeline("webm")
    pipeline.feed(WEBM + FAR)
    for _ in range(IDLE_ELEMENTS + 1):
        pipeline.feed(b"\0")
        assert pipeline.work(10**6) == b""
        assert not pipeline.paused


async def test_an_honest_speaker_is_decoded_in_time_beside_hostile_ones() -> None:
    decoders = MediaDecoders()

    def opened(encoding: str) -> Decoder:
        decoder = decoders.open(AudioSpec(encoding=encoding, rate=16_000, channels=1))
        assert decoder is not None
        return decoder

    async def attack(first: bytes, again: bytes) -> None:
        while True:
            decoder = opened("webm")
            try:
                await decoder.decode(first)
                while True:
                    await decoder.decode(again)
            except Refused:
                pass  # it comes back at once
            finally:
                decoder.close()

    honest, waits = opened("wav"), []
    await honest.decode(WAV + b"data\xff\xff\xff\xff")
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(attack, WEBM, VOID * 32_000)
            group.start_soon(attack, WEBM + b"\0" + FAR * 12_000, FAR)

        for _ in range(50):
            begun = time.monotonic()
            assert len(await honest.decode(bytes(640))) == 640
            waits.append(time.monotonic() - begun)

        group.cancel_scope.cancel()

    honest.close()
    assert max(waits) < LATE
    assert decoders.open_now == 0
