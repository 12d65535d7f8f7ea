"""Numbered audio, who checks it, and the marks by which a result says how far it was heard.

Pure: bytes in, numbers out. A frame begins with its number and its speaker; the rest of it is the
same for all. Frames are found in the stream of bytes, not in messages, so a relay may cut the audio
as it likes; a byte that is lost, there twice or changed makes what follows wrong.
"""

from __future__ import annotations

import re

FRAME_BYTES = 640
"""20 ms of 16-bit samples at 16 kHz."""
PACE_MS = 20
"""Milliseconds of audio in a frame."""
PARTIAL, FINAL = 10, 50
"""Frames from one result to the next, and from one final to the next."""
WORD = 20
"""Frames in a word: two and a half words a second, as people speak."""
KIND = "audio/x-raw;layout=interleaved;rate=16000;format=S16LE;channels=1"
"""The type of this audio, as Rev.ai has it."""
PATH = "/speechtotext/v1/stream"
TOKEN = "relay-benchmark"
_NUMBER, _HEAD = 4, 8
_REST = bytes(range(256)) * 2 + bytes(FRAME_BYTES - _HEAD - 512)
_MARK = re.compile(r"f(\d+)e(\d+)")


def frame(number: int, speaker: int) -> bytes:
    """Make the frame with a number, from 0 on."""
    return number.to_bytes(4, "little") + speaker.to_bytes(4, "little") + _REST


def mark(frames: int, wrong: int) -> str:
    """Make the word that says how many frames were heard, and how many of them were wrong."""
    return f"f{frames}e{wrong}"


def read_mark(word: str) -> tuple[int, int]:
    """Return what a mark says. Raises ValueError."""
    if (found := _MARK.fullmatch(word)) is None:
        raise ValueError(f"no mark: {word[:40]!r}")

    return int(found[1]), int(found[2])


class Tape:
    """The audio of one speaker, as far as it has come."""

    __slots__ = ("_end", "_left", "frames", "wrong")

    def __init__(self) -> None:
        self.frames = 0
        """Whole frames that have come."""
        self.wrong = 0
        """Those that were not what had to come."""
        self._left = b""
        self._end = b""

    def take(self, audio: bytes) -> range:
        """Check what came; return the counts of frames that were reached by it."""
        if self._left:
            audio = self._left + audio

        before, size = self.frames, len(audio)
        whole = size - size % FRAME_BYTES
        for start in range(0, whole, FRAME_BYTES):
            end = audio[start + _NUMBER : start + FRAME_BYTES]
            if not self._end and end.endswith(_REST):
                self._end = end

            number = int.from_bytes(audio[start : start + _NUMBER], "little")
            if number != self.frames or end != self._end:
                self.wrong += 1

            self.frames += 1

        self._left = audio[whole:]
        return range(before + 1, self.frames + 1)

    def end(self) -> None:
        """Take part of a frame at the end for a whole one that is wrong."""
        self.frames += bool(self._left)
        self.wrong += bool(self._left)
