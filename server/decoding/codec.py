"""Packets in, 16 kHz mono PCM out, by libav.

Its one rule: only codecs are libav's here. Nothing of it opens, probes or reads a stream.
"""

from __future__ import annotations

import av

from server.decoding.demux import Packet, Track

RATE = 16_000


class BadPacket(Exception):
    """Libav cannot decode this packet; the next may be sound."""


class Codec:
    """The decoder of one track, and what brings its samples to 16 kHz mono."""

    def __init__(self, track: Track) -> None:
        self._rate = track.rate
        context = av.CodecContext.create(track.codec, "r")
        assert isinstance(context, av.AudioCodecContext)
        self._context = context
        self._context.thread_count = 1
        self._context.options = {"err_detect": "crccheck"}
        self._context.extradata = track.private or None
        self._context.sample_rate = track.rate
        self._context.layout = "mono" if track.channels == 1 else "stereo"
        self._resampler = av.AudioResampler("s16", "mono", RATE)

    def decode(self, packet: Packet) -> bytes:
        """Return the PCM of a packet. Raises BadPacket."""
        try:
            pcm = b"".join(map(self._convert, self._context.decode(av.Packet(packet.data))))
        except (av.FFmpegError, ValueError) as error:
            reason = error.strerror if isinstance(error, av.FFmpegError) else str(error)
            raise BadPacket(reason or type(error).__name__) from None

        return pcm[: max(len(pcm) - 2 * (packet.trim * RATE // self._rate), 0)]

    def finish(self) -> bytes:
        """Return what the resampler still holds, less than a millisecond."""
        return self._convert(None)

    def _convert(self, frame: av.AudioFrame | None) -> bytes:
        if frame is not None:
            frame.pts = None

        return b"".join(each.to_ndarray().tobytes() for each in self._resampler.resample(frame))
