// The speaking half: a microphone that outlives its speech sessions.

import { loudness, openMicrophone } from "./microphone.js";

const FRAME_SECONDS = 0.04;
const BYTES_PER_SECOND = 32000;
const PASSING = new Set(["engine_busy", "draining"]); // refusals that a session of ours outlives
const RETRIES = 10; // the engine may still hold the session that our lost connection had
const AGAIN_MS = 1000;
const FINISH_MS = 15000; // longer than an engine may take to return what is left
const QUIET = 0.05; // loudness of a microphone that is muted or unplugged
const QUIET_FRAMES = 100;

export class Speaker {
  /**
   * `on` has the callbacks: state(name), level(0..1), quiet(bool), engine(event), dropped(), error(error).
   * The states are idle, opening, waiting (microphone open, no session), speaking and finishing.
   */
  constructor({ link, room, on }) {
    Object.assign(this, { link, room, on });
    this.state = "idle";
    this.name = "";
    this.droppedFrames = 0;
    this.droppedSeconds = 0;
    this.attempt = 0;
    this.retry = 0;
    this.quietFrames = 0;
    this.close = () => {};
  }

  /** Open a microphone and a session. */
  async start(device, name) {
    this.name = name;
    this.retries = 0;
    this.become("opening");
    if (!(await this.open(device))) return;
    this.become("waiting");
    this.begin();
  }

  /** Change the microphone in the middle of a session. */
  async change(device) {
    if (this.state === "speaking" || this.state === "waiting") await this.open(device);
  }

  /** Close the microphone, and wait for the last final. */
  stop() {
    const inSession = this.state === "speaking";
    this.release();
    if (inSession && this.link.send("stop") !== null) {
      this.become("finishing");
      this.retry = setTimeout(() => this.become("idle"), FINISH_MS);
    } else {
      this.become("idle");
    }
  }

  /** A connection is there, or is gone. */
  linkChanged(live) {
    if (this.state === "finishing") this.become("idle");
    else if (!live && this.state === "speaking") this.become("waiting");
    else if (live && this.state === "waiting") this.begin();
  }

  /** The last final of our session is out. */
  stopped() {
    if (this.state === "finishing") this.become("idle");
  }

  /** Take an error if it is about our session; false if not. */
  refused(event) {
    if (event.code === "audio_before_start") return true; // was on its way when our session ended
    if (event.id === undefined || event.id !== this.startId) return false;
    this.startId = undefined;
    if (PASSING.has(event.code) && this.state === "speaking" && this.again()) return true;
    this.release();
    this.become("idle");
    const title = event.code === "engine_busy" ? "The speech engine is busy" : "Speaking was refused";
    this.on.error({ ...event, title });
    return true;
  }

  /** The server tells of our session. */
  speech(event) {
    this.on.engine(event);
    if (event.state === "ready") this.retries = RETRIES;
    if (event.state !== "ended" || this.state !== "speaking" || this.again()) return; // it drains, say
    this.failed({ title: "The speech session ended", message: "Press Speak to begin another one." });
  }

  /** The server tells what the engine did not get. */
  gap({ from, to }) {
    this.drop(0, Math.max(0, to - from + 1) / BYTES_PER_SECOND);
  }

  /** Return whether the microphone is open and still wanted. */
  async open(device) {
    this.release();
    const turn = this.attempt;
    try {
      const close = await openMicrophone(device, {
        frame: (pcm) => turn === this.attempt && this.frame(pcm),
        lost: () => turn === this.attempt && this.unplugged(),
      });
      if (turn === this.attempt) this.close = close;
      else close(); // stopped, or another device chosen, while the permission prompt was open
    } catch (error) {
      if (turn === this.attempt) this.failed(error);
    }
    return turn === this.attempt;
  }

  begin() {
    const id = this.link.live && this.link.send("start", { room: this.room, rate: 16000, name: this.name });
    if (!id) return; // linkChanged begins once there is a connection
    this.startId = id;
    this.become("speaking");
  }

  /** Begin another session in a moment; false when that has been tried often enough. */
  again() {
    if (this.retries === 0) return false;
    this.retries -= 1;
    this.become("waiting");
    this.retry = setTimeout(() => this.begin(), AGAIN_MS);
    return true;
  }

  unplugged() {
    this.failed({ title: "The microphone is gone", message: "Choose another one and press Speak." });
  }

  failed(error) {
    this.stop();
    this.on.error(error);
  }

  frame(pcm) {
    const level = loudness(pcm);
    this.on.level(level);
    this.quietFrames = level < QUIET ? this.quietFrames + 1 : 0;
    this.on.quiet(this.quietFrames > QUIET_FRAMES);
    if (this.state === "opening") return;
    if (this.state !== "speaking" || !this.link.sendAudio(pcm)) this.drop(1, FRAME_SECONDS);
  }

  drop(frames, seconds) {
    this.droppedFrames += frames;
    this.droppedSeconds += seconds;
    this.on.dropped(this.droppedFrames, this.droppedSeconds);
  }

  release() {
    this.attempt += 1;
    this.close();
    this.close = () => {};
    this.quietFrames = 0;
    this.on.level(0);
    this.on.quiet(false);
  }

  become(state) {
    clearTimeout(this.retry);
    this.state = state;
    this.on.state(state);
  }
}
