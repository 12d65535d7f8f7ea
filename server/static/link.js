// One seat in a room that outlives its sockets: dials, joins, resumes where it was, measures, dials again.

const BASE_MS = 300;
const CAP_MS = 8000;
const STEADY_MS = 5000; // a connection that lasted this long makes the next wait short again
const PING_MS = 5000;
const SILENT_MS = 10000; // a ping that waits this long is answered by nobody
const MOST_BUFFERED = 64000; // bytes: two seconds of audio that the network has not taken

const COMES_BACK = new Set([1001, 1006, 1011, 1012, 1013]);
const comesBack = (code) => COMES_BACK.has(code) || (code >= 4000 && code < 4500);

export class Link {
  /**
   * `greeting` is what is sent first, if anything. `on` has the callbacks: state(name, detail), event(event),
   * answer(type, event), rtt(ms) and raw(arrow, text). The states are connecting, live, reconnecting and closed.
   */
  constructor({ url, greeting, room, history, on }) {
    Object.assign(this, { url, greeting, room, history, on });
    this.state = "connecting";
    this.position = null; // { epoch, offset } of the last event seen
    this.attempts = 0;
    this.lastId = 0;
    this.pending = new Map(); // id -> { type, sent }
    this.timers = { dial: 0, ping: 0 };
  }

  get live() {
    return this.state === "live";
  }

  /** Dial now: at first, by hand, or because the network is back. */
  open() {
    clearTimeout(this.timers.dial);
    this.dropSocket();
    if (this.state === "closed") this.become("connecting");
    const socket = new WebSocket(this.url, ["roomcast.v1"]);
    socket.binaryType = "arraybuffer";
    this.closing = null;
    this.greeted = false;
    this.socket = socket;
    if (this.greeting) socket.onopen = () => socket.send(this.greeting);
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(data);
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
  }

  /** Dial now if we are waiting to. */
  hurry() {
    if (this.state === "reconnecting" && !this.socket) this.open();
  }

  /** Send a command and return its id; null when there is no connection. */
  send(type, fields = {}) {
    if (this.socket?.readyState !== WebSocket.OPEN) return null;
    const id = ++this.lastId;
    const text = JSON.stringify({ type, id, ...fields });
    this.pending.set(id, { type, sent: performance.now() });
    this.on.raw("→", text);
    this.socket.send(text);
    return id;
  }

  /** Send a frame of audio; false when it had to be dropped. */
  sendAudio(frame) {
    if (!this.live || this.socket.bufferedAmount > MOST_BUFFERED) return false;
    this.socket.send(frame);
    return true;
  }

  receive(data) {
    if (typeof data !== "string") return;
    this.on.raw("←", data);
    const event = JSON.parse(data);
    const answered = this.settle(event);
    if (event.type === "hello") this.join();
    else if (event.type === "closing") this.closing = event;
    else if (answered === "join") this.joined(event);
    else if (answered) this.on.answer(answered, event);
    else if (this.greeted) this.pass(event); // an error before is told by `closing`, too
  }

  /** Return the type of the command that this event answers, if any. */
  settle(event) {
    const command = this.pending.get(event.id);
    if (!command || !["ack", "error", "joined"].includes(event.type)) return "";
    this.pending.delete(event.id);
    if (command.type === "ping") this.on.rtt(performance.now() - command.sent);
    return command.type;
  }

  join() {
    this.greeted = true;
    const since = this.position && `${this.position.epoch}:${this.position.offset}`;
    this.send("join", { room: this.room, history: this.history, ...(since && { since }) });
  }

  joined(event) {
    if (event.type === "error") {
      this.end({ code: 0, reason: event.code, message: event.message });
    } else {
      const missed = this.position?.epoch === event.epoch ? event.offset - this.position.offset : 0;
      if (event.offset === 0) this.position = { epoch: event.epoch, offset: 0 };
      this.epoch = event.epoch;
      this.liveSince = performance.now();
      this.timers.ping = setInterval(() => this.ping(), PING_MS);
      this.become("live", { recovered: event.recovered, missed });
      this.ping();
    }
  }

  /** Pass an event on unless its offset says that it has been seen. */
  pass(event) {
    if (event.type === "gap" && event.session === undefined) {
      const offset = event.reason === "ahead" ? event.from - 1 : event.to;
      this.position = { epoch: event.epoch ?? this.epoch, offset };
    } else if (event.offset !== undefined && !this.advance(event.epoch, event.offset)) {
      return;
    }
    this.on.event(event);
  }

  /** Move to a newer position; false when this one is not newer. */
  advance(epoch, offset) {
    if (this.position?.epoch === epoch && offset <= this.position.offset) return false;
    this.position = { epoch, offset };
    return true;
  }

  ping() {
    const now = performance.now();
    for (const { type, sent } of this.pending.values()) {
      if (type === "ping" && now - sent > SILENT_MS) return this.lost(1006, "silent");
    }
    this.send("ping");
  }

  lost(code, reason) {
    const ending = this.closing ?? { code, reason, message: "" };
    const greeted = this.greeted;
    this.dropSocket();
    if (!comesBack(ending.code)) return this.end(ending);
    if (this.liveSince && performance.now() - this.liveSince > STEADY_MS) this.attempts = 0;
    this.liveSince = 0;
    const cap = ending.reconnect_ms || Math.min(CAP_MS, BASE_MS * 2 ** this.attempts);
    const after = (ending.retry_after ?? 0) * 1000;
    const wait = after + Math.random() * cap; // full jitter: a crowd that was cut together comes back spread out
    this.attempts += 1;
    this.become("reconnecting", { ...ending, greeted, attempts: this.attempts });
    this.timers.dial = setTimeout(() => this.open(), wait);
  }

  end(ending) {
    clearTimeout(this.timers.dial);
    this.dropSocket();
    this.become("closed", ending);
  }

  dropSocket() {
    clearInterval(this.timers.ping);
    this.pending.clear();
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  become(state, detail = {}) {
    this.state = state;
    this.on.state(state, detail);
  }
}
