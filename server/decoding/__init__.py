"""Encoded audio into 16-bit PCM, for engines that take nothing else.

    mulaw, alaw         G.711 at the rate and with the channels that are said
    webm, webm-opus     WebM with Opus, as MediaRecorder writes it
    ogg, ogg-opus       Ogg with Opus
    opus                the same Ogg, or bare packets, each in a message of its own
    flac                FLAC
    wav                 WAV of integers (8, 16, 24 or 32 bits), floats or G.711

What has a container comes out at 16 kHz with one channel, whatever rate was said.

Its one rule: containers are read by code of ours that is pushed, so that memory is bounded by one
element, a cut stream goes on at its next sound place, and PCM comes with the byte that completes
it. Only codecs are libav's, so there is no demuxer to be probed, and nothing that opens addresses.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import msgspec
from anyio import CapacityLimiter

from actors.errors import Refused
from actors.messages import AudioSpec
from actors.ports import Decoder
from server.decoding.container import ContainerDecoder
from server.decoding.g711 import G711, TABLES

PCM = "pcm_s16le"
CONTAINERS = ("flac", "ogg", "ogg-opus", "opus", "wav", "webm", "webm-opus")
KNOWN = (PCM, *TABLES, *CONTAINERS)
MAX_OPEN = 1000
RATES = range(8_000, 48_001)


class MediaDecoders:
    """Opens decoders, and bounds how many of them hold a codec."""

    def __init__(self, max_open: int = MAX_OPEN, setting: str = "audio.max_decoders") -> None:
        """Open so many decoders of containers at a time; `setting` is where people change that."""
        self.max_open = max_open
        self.open_now = 0
        """Decoders of containers that are not closed."""
        self._setting = setting
        self._limiter = CapacityLimiter(os.cpu_count() or 1)

    def plan(self, spec: AudioSpec) -> AudioSpec:
        """Return what such audio is decoded to. Raises Refused("unsupported_audio")."""
        encoding = spec.encoding
        if encoding not in KNOWN:
            raise _unsupported(f"known encodings are {', '.join(KNOWN)}, not {encoding[:32]!r}")

        if encoding in TABLES:
            if spec.rate not in RATES or spec.channels not in (1, 2):
                raise _unsupported(
                    f"{encoding} is taken at {RATES[0]} to {RATES[-1]} Hz with 1 or 2 channels, "
                    f"not at {spec.rate} Hz with {spec.channels}"
                )

            return msgspec.structs.replace(spec, encoding=PCM)

        if encoding == PCM:
            return spec

        if find_spec("av") is None:
            raise _unsupported(f"{encoding} needs PyAV here: pip install 'roomcast[audio]'")

        return msgspec.structs.replace(spec, encoding=PCM, rate=16_000, channels=1)

    def open(self, spec: AudioSpec) -> Decoder | None:
        """Open a decoder; None where the audio is PCM already.

        Raises Refused("unsupported_audio"), or Refused("overload") when too many are open.
        """
        planned = self.plan(spec)
        if spec.encoding == PCM:
            return None

        if spec.encoding in TABLES:
            return G711(spec.encoding, planned)

        if self.open_now >= self.max_open:
            message = f"all {self.max_open} decoders are in use; {self._setting} allows more"
            raise Refused("overload", message, setting=self._setting)

        self.open_now += 1
        return ContainerDecoder(spec.encoding, planned, self._limiter, self._closed)

    def _closed(self) -> None:
        self.open_now -= 1


def _unsupported(message: str) -> Refused:
    return Refused("unsupported_audio", message, field="encoding")
