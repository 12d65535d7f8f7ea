/*
 * Microphone samples at the context's rate in, 40 ms frames of 16 kHz PCM16 mono out.
 *
 * A frame of 40 ms is 25 messages a second: half the per-message cost of 20 ms on every hop, while
 * the wait that it adds stays far below what a reader of captions notices. It is a whole number of
 * the 10 ms steps that recognizers work in.
 */

const OUT_RATE = 16000;
const FRAME = 640;
const CROSSINGS = 12; // zero crossings of the low-pass on each side: 50 dB down from 8.5 kHz on
const PHASES = 128; // fractions of an input sample that have a filter of their own
const RING = 4096; // input samples, a power of two, far more than a filter is long

/** Return one windowed-sinc filter per phase, each with a gain of one at 0 Hz. */
function filters(ratio, half) {
  const cutoff = 0.46 / Math.max(1, ratio);
  const taps = 2 * half;
  const table = new Float32Array(PHASES * taps);
  for (let phase = 0; phase < PHASES; phase++) {
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      const x = tap - half + 1 - phase / PHASES;
      const sinc = x === 0 ? 2 * cutoff : Math.sin(2 * Math.PI * cutoff * x) / (Math.PI * x);
      const window = Math.abs(x) < half ? 0.5 + 0.5 * Math.cos((Math.PI * x) / half) : 0;
      sum += table[phase * taps + tap] = sinc * window;
    }
    for (let tap = 0; tap < taps; tap++) table[phase * taps + tap] /= sum;
  }
  return table;
}

class Pcm16 extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ratio = sampleRate / OUT_RATE;
    this.half = Math.ceil(CROSSINGS * Math.max(1, this.ratio));
    this.table = filters(this.ratio, this.half);
    this.ring = new Float32Array(RING);
    this.written = this.half; // the first output sample sees silence before it
    this.position = this.half;
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }

  process([[channel]]) {
    if (!channel) return true;
    for (const sample of channel) this.ring[this.written++ & (RING - 1)] = sample;
    for (; Math.floor(this.position) + this.half < this.written; this.position += this.ratio) {
      this.push(this.interpolate());
    }
    return true;
  }

  /** Return the value of the filtered input at `position`. */
  interpolate() {
    const base = Math.floor(this.position);
    const taps = 2 * this.half;
    const row = Math.floor((this.position - base) * PHASES) * taps;
    const first = base - this.half + 1;
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      sum += this.table[row + tap] * this.ring[(first + tap) & (RING - 1)];
    }
    return sum;
  }

  push(value) {
    this.frame[this.filled++] = Math.round(32767 * Math.max(-1, Math.min(1, value)));
    if (this.filled < FRAME) return;
    this.port.postMessage(this.frame, [this.frame.buffer]); // transferred: the array is empty afterwards
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }
}

registerProcessor("pcm16", Pcm16);
