"""Reading audio for the commands: WAV or raw PCM, from a file or standard input."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from io import BufferedReader

import msgspec

from server.cli.options import Bad

FRAME = 0.04
"""Seconds of audio in one WebSocket frame."""


class Recording(msgspec.Struct, frozen=True):
    """A stream of PCM16 and its format."""

    rate: int
    channels: int
    frames: Iterator[bytes]
    """Pieces of FRAME seconds."""


def open_recording(path: str, rate: int, channels: int) -> Recording:
    """Open a WAV file or raw PCM16 of this rate and channels; `-` is standard input. Raises Bad."""
    try:
        source = open(0 if path == "-" else path, "rb")  # noqa: SIM115 - the frames close it
        head = source.peek(4)[:4]
    except OSError as error:
        raise Bad(f"{path}: {error.strerror}") from None

    if head != b"RIFF":
        return Recording(rate, channels, _read_raw(source, int(rate * FRAME) * channels * 2))

    return _open_wav(path, source)


def _open_wav(path: str, source: BufferedReader) -> Recording:
    try:
        wav = wave.open(source)  # noqa: SIM115
    except (wave.Error, EOFError) as error:
        raise Bad(f"{path}: not a WAV file that can be read: {error}") from None

    if wav.getsampwidth() != 2:
        raise Bad(f"{path}: {8 * wav.getsampwidth()}-bit samples; 16-bit PCM is needed")

    rate = wav.getframerate()
    return Recording(rate, wav.getnchannels(), _read_wav(wav, int(rate * FRAME)))


def _read_raw(source: BufferedReader, size: int) -> Iterator[bytes]:
    with source:
        while data := source.read(size):
            yield data


def _read_wav(wav: wave.Wave_read, frames: int) -> Iterator[bytes]:
    with wav:
        while data := wav.readframes(frames):
            yield data
