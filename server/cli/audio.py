"""Reading audio for the commands: WAV or raw PCM16, from a file or standard input.

No thread waits for a pipe, so that Ctrl-C and a lost server end a command at once.
"""

from __future__ import annotations

import math
import os
import stat
from struct import unpack

import anyio

from server.cli.options import Bad

FRAME = 0.04
"""Seconds of audio in one WebSocket frame."""
STREAMED = 0x7FFF0000
"""Sizes from here on are what programs write that did not know how much would come."""
CHUNK = 65536
PCM, EXTENSIBLE = 1, 0xFFFE
FOREIGN = {
    b"ID3": "MP3",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"\x1aE\xdf\xa3": "WebM",
    b"FORM": "AIFF",
}


class Source:
    """The bytes of a file."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._waits = _is_pipe(fd)
        self._held = b""

    async def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end. Raises Bad."""
        data, self._held = self._held[:size], self._held[size:]
        while len(data) < size:
            if self._waits:
                await anyio.wait_readable(self._fd)

            try:
                more = os.read(self._fd, size - len(data))
            except OSError as error:
                raise Bad(f"{self.name}: {error.strerror}") from None

            if not more:
                break

            data += more

        return data

    def put_back(self, data: bytes) -> None:
        """Let the next read begin with this."""
        self._held = data + self._held

    def left(self) -> float:
        """Return the bytes that are left to read; infinite if nobody can tell."""
        info = os.fstat(self._fd)
        if not stat.S_ISREG(info.st_mode):
            return math.inf

        return info.st_size - os.lseek(self._fd, 0, os.SEEK_CUR) + len(self._held)


class Recording:
    """A stream of PCM16 and its format."""

    def __init__(self, source: Source, rate: int, channels: int, size: float) -> None:
        self._source = source
        self.rate, self.channels = rate, channels
        self.bytes_per_second = rate * channels * 2
        self.seconds = min(size, source.left()) / self.bytes_per_second
        """Length of the audio; infinite if nobody can tell."""
        self._left = size

    @property
    def missing(self) -> float:
        """Seconds that the head of the file promises beyond what has been read."""
        return 0.0 if math.isinf(self._left) else self._left / self.bytes_per_second

    async def read(self) -> bytes:
        """Return the next FRAME seconds; less at the end, then nothing. Raises Bad."""
        size = int(self.rate * FRAME) * self.channels * 2
        data = await self._source.read(int(min(size, self._left)))
        self._left -= len(data)
        return data


def open_source(path: str) -> Source:
    """Open a file; `-` is standard input. Raises Bad."""
    name = "standard input" if path == "-" else path
    try:
        fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        mode = os.fstat(fd).st_mode
    except OSError as error:
        raise Bad(f"{name}: {error.strerror}") from None

    if stat.S_ISDIR(mode):
        raise Bad(f"{name} is a directory")

    if os.isatty(fd):
        raise Bad(f"{name} is a terminal; pipe audio into it")

    return Source(name, fd)


async def open_recording(source: Source, rate: int, channels: int) -> Recording:
    """Read the head of a WAV file, or take it as PCM16 of this rate and channels. Raises Bad."""
    head = await source.read(12)
    if not head:
        raise Bad(f"{source.name} is empty")

    if head.startswith(b"RIFF") and head[8:] in (b"WAVE", b""):
        return await _open_wav(source)

    for magic, kind in FOREIGN.items():
        if head.startswith(magic):
            raise Bad(f"{source.name} is {kind}; {_way_out(source)}")

    source.put_back(head)
    return Recording(source, rate, channels, math.inf)


async def _open_wav(source: Source) -> Recording:
    rate = channels = 0
    while len(head := await source.read(8)) == 8:
        name, size = unpack("<4sI", head)
        if name == b"data" and rate:
            return _take_data(source, rate, channels, size)

        if name == b"fmt ":
            rate, channels = _read_format(source, await source.read(min(size, CHUNK)))
            size -= min(size, CHUNK)

        await _skip(source, size + size % 2)

    raise Bad(f"{source.name} is a WAV file that ends before its audio begins")


def _take_data(source: Source, rate: int, channels: int, size: int) -> Recording:
    recording = Recording(source, rate, channels, math.inf if size >= STREAMED else size)
    if recording.seconds == 0:
        raise Bad(f"{source.name} is a WAV file without audio")

    return recording


def _read_format(source: Source, chunk: bytes) -> tuple[int, int]:
    """Return the rate and the channels. Raises Bad for anything but 16-bit PCM."""
    if len(chunk) < 16:
        raise Bad(f"{source.name} is a WAV file with a broken head")

    kind, channels, rate, _, _, bits = unpack("<HHIIHH", chunk[:16])
    if kind == EXTENSIBLE and len(chunk) >= 26:
        (kind,) = unpack("<H", chunk[24:26])

    if (kind, bits) != (PCM, 16):
        what = f"{bits}-bit samples" if kind == PCM else f"{bits}-bit samples of format {kind}"
        raise Bad(f"{source.name} has {what}; {_way_out(source)}")

    if rate < 1 / FRAME or channels == 0:
        raise Bad(f"{source.name} is a WAV file with a broken head")

    return rate, channels


async def _skip(source: Source, size: int) -> None:
    while size > 0 and (data := await source.read(min(size, CHUNK))):
        size -= len(data)


def _way_out(source: Source) -> str:
    return f"16-bit PCM is needed, as `ffmpeg -i {source.name} -c:a pcm_s16le out.wav` makes it"


def _is_pipe(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
