// The speaking half: a microphone that outlives its speech sessions, and sessions that outlive their
// connections: what the server has not got is kept for a moment, and sent when it says from where.

import { loudness, openMicrophone } from "./microphone.js";

const BYTES_PER_SECOND = 32000;
const KEPT_BYTES = 15 * BYTES_PER_SECOND; // the server waits as long for us to come back
const PASSING = new Set(["engine_busy", "draining"]); // refusals that a session of ours outlives
const RETRIES = 10; // the engine may still hold the session that our lost connection had
const AGAIN_MS = 1000;
const FINISH_MS = 15000; // longer than an engine may take to return what is left
const QUIET = 0.05; // loudness of a microphone that is muted or unplugged
const QUIET_FRAMES = 100;

const CHUNK_BYTES = 3200; // what is sent late goes in pieces, so that the connection can say stop

const bytes = (frames) => frames.reduce((sum, frame) => sum + frame.length, 0);

function joined(frames) {
  const all = new Uint8Array(bytes(frames));
  let at = 0;
  for (const frame of frames) {
    all.set(frame, at);
    at += frame.length;
  }
  return all;
}

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
    this.fresh();
    this.attempt = 0;
    this.engineLost = false;
    this.retry = 0;
    this.quietFrames = 0;
    this.close = () => {};
  }

  /** Open a microphone and a session. */
  async start(device, name) {
    this.name = name;
    this.retries = 0;
    this.fresh();
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
    else if (live && this.state === "waiting") this.begin(this.session);
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
    if (event.code === "unknown_session") {
      this.begin();
      return true;
    }
    if (PASSING.has(event.code) && this.state === "speaking" && this.again()) return true;
    this.release();
    this.become("idle");
    const title = event.code === "engine_busy" ? "The speech engine is busy" : "Speaking was refused";
    this.on.error({ ...event, title });
    return true;
  }

  /** The server tells of our session. */
  speech(event) {
    this.engineLost = event.state === "lost";
    this.on.engine(event);
    if (event.state === "ready") this.retries = RETRIES;
    if (event.state !== "ended" && event.session) this.session = event.session;
    if (event.state === "resumed") this.resumed(event.received);
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

  /** Begin a session, or go on with one that lost its connection. */
  begin(resume = "") {
    const start = { room: this.room, rate: 16000, name: this.name, ...(resume && { resume }) };
    const id = this.link.live && this.link.send("start", start);
    if (!id) return; // linkChanged begins once there is a connection
    this.startId = id;
    if (!resume) this.fresh(this.unsent);
    this.held = Boolean(resume);
    this.become("speaking");
    this.pump();
  }

  /** Count the bytes of a session from its start; `unsent` are the frames that it begins with. */
  fresh(unsent = []) {
    this.session = "";
    this.unsent = unsent;
    this.sent = []; // frames that the server may not have got
    this.sentBytes = 0; // of the session, the last of `sent` included
    this.held = false; // until the server says how much it has
  }

  /** The server has this much of the session: send what follows. */
  resumed(received) {
    const all = joined([...this.sent, ...this.unsent]);
    const first = this.sentBytes - bytes(this.sent); // of the session, at the start of `all`
    const missing = Math.max(0, received - first);
    this.unsent = all.length > missing ? [all.slice(missing)] : [];
    this.sent = [];
    this.sentBytes = received;
    this.held = false;
    this.pump();
  }

  /** Send what the connection takes. */
  pump() {
    while (this.state === "speaking" && !this.held && this.unsent.length) {
      const frame = this.unsent[0].subarray(0, CHUNK_BYTES);
      if (!this.link.sendAudio(frame)) return;
      this.unsent[0] = this.unsent[0].subarray(frame.length);
      if (!this.unsent[0].length) this.unsent.shift();
      this.sent.push(frame);
      this.sentBytes += frame.length;
      while (bytes(this.sent) > KEPT_BYTES) this.sent.shift();
    }
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
    this.unsent.push(new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength));
    this.pump();
    while (bytes(this.unsent) > KEPT_BYTES) this.drop(1, this.unsent.shift().length / BYTES_PER_SECOND);
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
