"""Recorded speech in every encoding that is taken, and what another decoder makes of it."""

from __future__ import annotations

import subprocess
from functools import cache

import numpy as np

from tests.engine_contract import DATA, recording

SPEECH = recording(DATA / "goforward.raw")
LIVE = "-c:a libopus -b:a 32k -ar 48000 -f webm -live 1 -cluster_time_limit 100"
FORMATS = {
    "webm": LIVE,
    "webm-opus": "-c:a libopus -ac 2 -f webm",
    "ogg": "-c:a libopus -b:a 32k -f ogg",
    "ogg-opus": "-c:a libopus -frame_duration 60 -page_duration 200000 -ac 2 -f ogg",
    "opus": "-c:a libopus -b:a 16k -f ogg",
    "flac": "-c:a flac -f flac",
    "wav": "-c:a pcm_s16le -f wav",
}
WAVS = ("u8", "s24le", "s32le", "f32le", "f64le", "mulaw", "alaw")
PCM = "-f s16le -ar 16000 -ac 1"


def ffmpeg(given: str, wanted: str, data: bytes) -> bytes:
    """Run ffmpeg from pipe to pipe, so that it writes what cannot be written over."""
    command = ["ffmpeg", "-loglevel", "error", *given.split(), "-i", "-", *wanted.split(), "-"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@cache
def encoded(options: str, seconds: float = 0.0) -> bytes:
    """Return the speech encoded by ffmpeg; again and again until it lasts that long."""
    times = max(1, round(seconds * 32_000 / len(SPEECH)))
    return ffmpeg(PCM, options, SPEECH * times)


@cache
def expected(options: str) -> bytes:
    """Return what ffmpeg itself decodes that to."""
    return ffmpeg("", PCM, encoded(options))


def likeness(pcm: bytes, other: bytes) -> float:
    """Return the decibels between a signal and its difference from another of nearly its size."""
    size = min(len(pcm), len(other)) & ~1
    left, right = (np.frombuffer(each[:size], "<i2").astype(float) for each in (pcm, other))
    difference = max(float(((left - right) ** 2).mean()), 1e-6)
    return 10 * float(np.log10((left**2).mean() / difference))
