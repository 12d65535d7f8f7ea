"""PCM bytes in, recognitions out: the embedded engine's decoding, without sockets, tasks or clocks.

Its one rule: the same audio gives the same recognitions, however it was cut and whatever the
decoder heard before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec
import numpy as np
import soxr
from pocketsphinx import Decoder, Endpointer, Vad

from actors.messages import AudioSpec, Recognition, Word

RATE = 16_000
"""Samples a second that the model was trained on."""
FRAME = 0.02
"""Seconds the endpointer looks at together."""
BYTES_PER_SECOND = RATE * 2
WINDOW = 0.3
"""Seconds of speech that begin an utterance, and of silence that end it."""
RATIO = 0.9
"""Share of the window that must agree."""
PARTIAL_FRAMES = 5
"""Frames between two looks at what the decoder makes of an unfinished utterance."""
CUT_AT_PAUSE = 15.0
"""Seconds of utterance after which the next unvoiced frame ends it."""
CUT = 20.0
"""Seconds of utterance after which it is ended, even within a word."""
VOICED_SHARE = 0.25
"""Share of an utterance that the strict detector must call voice: a short word reaches 0.33 and
more, a burst of noise 0.2 and less."""
VOICED_ENOUGH = 0.5
"""Seconds of voice that are enough, however long the noise around them."""


def load() -> Decoder:
    """Load the English model: 0.3 to 0.8 s, about 95 MB.

    One pass with few active states: half the time of the default, no worse on read speech, and no
    stall at the end of an utterance.
    """
    return Decoder(
        samprate=RATE, loglevel="FATAL", fwdflat=False, bestpath=False, maxhmmpf=3000, maxwpf=20
    )


class Intake:
    """Turns a speaker's PCM into frames of 16 kHz mono.

    The input is first cut into blocks of 20 ms, so that the resampler sees the same calls whatever
    the sizes of the pieces; what is short of a block waits for the next piece.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self._channels = spec.channels
        self._block = spec.rate // 50 * spec.channels * 2
        self._resampler = (
            None if spec.rate == RATE else soxr.ResampleStream(spec.rate, RATE, 1, dtype="float32")
        )
        self._carry = bytearray()
        self._pcm = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that these bytes complete."""
        self._carry += data
        whole = len(self._carry) // self._block * self._block
        blocks = bytes(self._carry[:whole])
        del self._carry[:whole]

        for start in range(0, whole, self._block):
            self._pcm += self._convert(blocks[start : start + self._block])
            yield from self._frames()

    def finish(self) -> Iterator[bytes]:
        """Yield what is left, filled up with silence; an incomplete sample is dropped."""
        sample = 2 * self._channels
        whole = len(self._carry) // sample * sample
        self._pcm += self._convert(bytes(self._carry[:whole]), last=True)
        self._pcm += bytes(-len(self._pcm) % frame_bytes())
        yield from self._frames()

    def _frames(self) -> Iterator[bytes]:
        size = frame_bytes()
        while len(self._pcm) >= size:
            frame = bytes(self._pcm[:size])
            del self._pcm[:size]
            yield frame

    def _convert(self, block: bytes, last: bool = False) -> bytes:
        if self._resampler is None and self._channels == 1:
            return block

        samples = np.frombuffer(block, "<i2").astype(np.float32)
        if self._channels > 1:
            samples = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)

        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last)

        return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def frame_bytes() -> int:
    """Bytes of one frame of 16 kHz mono."""
    return round(FRAME * RATE) * 2


class Utterance:
    """The speech between two pauses, as far as it has been heard."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.audio = bytearray()
        self.voiced = 0.0
        self.text = ""
        self.revision = 0

    @property
    def length(self) -> float:
        """Seconds of audio so far."""
        return len(self.audio) / BYTES_PER_SECOND

    @property
    def credible(self) -> bool:
        """Whether there is enough voice in it to believe in words."""
        return self.voiced >= min(VOICED_ENOUGH, VOICED_SHARE * self.length)

    def add(self, frame: bytes, voiced: bool) -> None:
        """Append one frame."""
        self.audio += frame
        self.voiced += FRAME if voiced else 0.0

    def due(self, voiced: bool) -> bool:
        """Whether it is so long that it ends here, at a frame that is voiced or not."""
        return self.length >= CUT or (self.length >= CUT_AT_PAUSE and not voiced)


class Recognizer:
    """One session's recognition: feed it bytes, then finish.

    Partials come from decoding along with the speech. At the end of an utterance its audio is
    decoded again, normalised by its own mean: this mends early and short
    utterances most, and makes a final depend on nothing but its own audio. It costs as much again
    as the first pass, and delays the final by about 0.1 s for each second of utterance.

    An utterance without words or with too little voice (noise, a click) leaves no trace. If a
    partial of it was shown, its final has an empty text, so that a display clears.
    """

    def __init__(self, decoder: Decoder, spec: AudioSpec) -> None:
        """Use the decoder for this session alone; nothing of an earlier one is left in it."""
        self._decoder = decoder
        self._intake = Intake(spec)
        self._endpointer = Endpointer(WINDOW, RATIO, 0, RATE, FRAME)
        self._strict = Vad(3, RATE, FRAME)
        # The endpointer holds this many frames back; their flags wait here beside it.
        self._voiced: deque[bool] = deque(maxlen=round(WINDOW / FRAME))
        self._mean: str | None = None
        self._utterance: Utterance | None = None
        self._segment = 0
        self._reached = self._padded = 0.0
        self._bytes = 0
        self._rate = spec.bytes_per_second

    @property
    def heard(self) -> float:
        """Seconds of the session's audio that have been worked through."""
        return self._bytes / self._rate

    def feed(self, data: bytes) -> list[Recognition]:
        """Work through more PCM, cut anywhere; return what it brought to light."""
        self._bytes += len(data)
        return [found for frame in self._intake.feed(data) for found in self._hear(frame)]

    def flush(self) -> list[Recognition]:
        """End the utterance, as if silence followed; return what that brings, marked as flushed."""
        found = list(self._fall_silent())
        if found:
            return [*found[:-1], msgspec.structs.replace(found[-1], flushed=True)]

        now = max(self._reached, self.heard)
        return [Recognition(self._segment, 0, True, "", now, now, flushed=True)]

    def finish(self) -> list[Recognition]:
        """Work through what is left, as if silence followed."""
        found = [each for frame in self._intake.finish() for each in self._hear(frame)]
        return [*found, *self._fall_silent()]

    def _fall_silent(self) -> Iterator[Recognition]:
        """Hear silence until the utterance has ended; the endpointer takes it for time."""
        for _ in range(round(1 / FRAME)):
            if self._utterance is not None:
                self._padded += FRAME
                yield from self._hear(bytes(frame_bytes()))

    def _hear(self, frame: bytes) -> Iterator[Recognition]:
        self._voiced.append(self._strict.is_speech(frame))
        speech = self._endpointer.process(frame)
        if speech is None:
            return

        if self._utterance is None:
            start = self._endpointer.speech_start - self._padded
            self._utterance = self._begin(round(max(start, self._reached), 2))

        utterance, voiced = self._utterance, self._voiced.popleft()
        utterance.add(speech, voiced)
        self._decoder.process_raw(speech)
        if not self._endpointer.in_speech or utterance.due(voiced):
            yield from self._close(utterance)
            if self._endpointer.in_speech:
                self._utterance = self._begin(utterance.start + utterance.length)
        elif len(utterance.audio) % (PARTIAL_FRAMES * frame_bytes()) == 0:
            yield from self._look(utterance)

    def _begin(self, start: float) -> Utterance:
        self._normalise()
        self._decoder.start_utt()
        return Utterance(start)

    def _look(self, utterance: Utterance) -> Iterator[Recognition]:
        """Yield a partial if the words have changed."""
        hypothesis = self._decoder.hyp()
        if hypothesis is None or not utterance.credible:
            return

        words = self._words(utterance)
        text = " ".join(word.text for word in words)
        if text and text != utterance.text:
            utterance.text = text
            yield self._recognition(utterance, words, final=False)

    def _close(self, utterance: Utterance) -> Iterator[Recognition]:
        """End the utterance and yield its final, if anybody is to hear of it."""
        self._utterance = None
        self._decoder.end_utt()
        words = self._again(utterance) if utterance.credible else ()
        if words or utterance.revision:
            final = self._recognition(utterance, words, final=True)
            self._segment, self._reached = self._segment + 1, final.end
            yield final

    def _again(self, utterance: Utterance) -> tuple[Word, ...]:
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(bytes(utterance.audio), False, True)
        self._decoder.end_utt()
        words = self._words(utterance)
        if words:
            self._mean = self._decoder.get_cmn(False)

        return words

    def _normalise(self) -> None:
        """Forget what the decoder adapted to, except the mean of the last utterance with words."""
        self._decoder.reinit_feat()
        if self._mean is not None:
            self._decoder.set_cmn(self._mean)

    def _words(self, utterance: Utterance) -> tuple[Word, ...]:
        """Return the decoder's words; marks of silence and noise are none."""
        return tuple(
            Word(
                segment.word.split("(")[0],
                self._time(utterance.start + segment.start_frame / 100),
                self._time(utterance.start + (segment.end_frame + 1) / 100),
                1.0,
            )
            for segment in self._decoder.seg() or ()
            if segment.word[0] not in "<[+"
        )

    def _time(self, seconds: float) -> float:
        """Keep within the audio what reaches into the silence that ended it."""
        return min(round(seconds, 2), self.heard)

    def _recognition(
        self, utterance: Utterance, words: tuple[Word, ...], final: bool
    ) -> Recognition:
        revision, utterance.revision = utterance.revision, utterance.revision + 1
        return Recognition(
            segment=self._segment,
            revision=revision,
            final=final,
            text=" ".join(word.text for word in words),
            start=self._time(utterance.start),
            end=self._time(utterance.start + utterance.length),
            words=words,
        )
