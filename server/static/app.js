// The page: puts the room, the link, the speaker and the captions together, and shows how they are.

import { Captions } from "./captions.js";
import { Link } from "./link.js";
import { listDevices } from "./microphone.js";
import { enter, isLoopback, pageUrl, socketUrl } from "./room.js";
import { Speaker } from "./speaker.js";

const HISTORY = 50;
const LOG_LINES = 200;
const LOG_LINE = 600; // characters
const RECOVERED_MS = 20000;
const COPIED_MS = 4000;
const PATIENCE = 2; // failed attempts before we look for a reason
const NAME_KEY = "roomcast.name";

const $ = (id) => document.getElementById(id);
const { room, listen, token } = enter();

const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", closed: "Closed" };

const SPEECH = { idle: "Speak", opening: "Starting", waiting: "Stop", speaking: "Stop", finishing: "Finishing" };

const GAPS = {
  epoch_changed: "The server has restarted: what was said in between is lost.",
  expired: "What was said in between is older than the room remembers.",
  too_far: "More was said in between than can be sent at once.",
  ahead: "The room has gone back to an earlier state.",
};

const captions = new Captions({
  stage: $("stage"), log: $("captions"), partials: $("partials"), empty: $("empty"), latest: $("latest"),
});

const link = new Link({
  url: socketUrl(Boolean(token)),
  greeting: token && JSON.stringify({ type: "auth", token }),
  room,
  history: HISTORY,
  on: { state: linkChanged, event: received, answer: answered, rtt: showRoundTrip, raw: logLine },
});

const speaker = new Speaker({
  link,
  room,
  on: {
    state: speechChanged,
    level: (level) => $("level").style.setProperty("--level", level.toFixed(3)),
    quiet: showHint,
    engine: showEngine,
    dropped: showDropped,
    error: showError,
  },
});

function received(event) {
  if (event.type === "transcript") captions.transcript(event);
  else if (event.type === "message") captions.message(event);
  else if (event.type === "speech") speaker.speech(event);
  else if (event.type === "gap" && event.session !== undefined) speaker.gap(event);
  else if (event.type === "gap") showGap(event);
  else if (event.type === "error" && !speaker.refused(event)) showError(event);
}

function answered(type, event) {
  if (event.type === "error" && !speaker.refused(event)) showError(event);
  if (type === "stop") speaker.stopped();
}

function linkChanged(state, detail) {
  document.body.dataset.link = state;
  setText("state-text", STATES[state]);
  $("state").title = detail.message ?? "";
  if (state === "live") wentLive(detail);
  else if (state === "closed") showClosed(detail);
  else if (state === "reconnecting" && !detail.greeted && detail.attempts > PATIENCE) explainRefusal(detail);
  if (state !== "live") setText("rtt", "–");
  if (state === "reconnecting") explainLoss(detail);
  speaker.linkChanged(state === "live");
}

function wentLive({ recovered, missed }) {
  captions.clearPartials();
  hideNotice("connection");
  if (recovered) showResume("recovered", missed ? `Recovered, ${missed} caught up` : "Recovered, nothing missed");
  else if (recovered === false) showResume("gap", "Gap");
}

/** Tell a server that is away, which needs patience, from one that does not let us in. */
async function explainRefusal({ message }) {
  const answers = await fetch("livez", { cache: "no-store" }).then(({ ok }) => ok, () => false);
  if (!answers || document.body.dataset.link !== "reconnecting") return;
  showError({ title: "The server does not let this page in", kind: "connection",
    message: message || "It may be full, or want a token: add #token=… to the address of this page." });
}

function showClosed({ code, reason, message }) {
  showError({ title: "The connection is closed", kind: "connection", retry: true,
    message: message || "The server ended it and does not expect this page back.",
    code: [reason, code].filter(Boolean).join(" · ") });
}

function showGap({ from, to, reason }) {
  const missing = to - from + 1;
  const known = missing > 0 && reason !== "epoch_changed" && reason !== "ahead";
  const why = reason === "epoch_changed" ? "Gap after a restart" : "Gap";
  showResume("gap", known ? `Gap, ${missing} missed` : why, GAPS[reason] ?? "Something is missing here.");
  captions.note(`${known ? `${missing} missed. ` : ""}${GAPS[reason] ?? "Something is missing here."}`);
}

let resumeTimer = 0;

/** Show how the last resume went: good news leaves by itself, a gap stays until it is dismissed. */
function showResume(kind, text, title = "") {
  clearTimeout(resumeTimer);
  const chip = $("resume");
  Object.assign(chip, { hidden: !kind, title: title || "Dismiss", textContent: text });
  chip.dataset.kind = kind;
  if (kind === "recovered") resumeTimer = setTimeout(() => showResume("", ""), RECOVERED_MS);
}

function showRoundTrip(ms) {
  setText("rtt", ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);
}

function showEngine({ engine, lag, state }) {
  if (state === "waiting") return; // about audio between two sessions, not about ours
  setText("engine", state === "connecting" ? "Connecting" : state === "lost" ? "Reconnecting" : engine ?? "–");
  setText("lag", state === "ended" ? "–" : `${(lag ?? 0).toFixed(1)} s`);
  if (["ready", "recovered", "resumed"].includes(state)) hideNotice("engine");
  showHint(false);
}

/** Say why a connection was closed that had a speaker. */
function explainLoss({ reason, message }) {
  if (reason !== "upstream_unavailable" || speaker.state === "idle") return;
  showError({ title: "The speech engine was lost", kind: "engine", code: reason,
    message: `It did not come back${message && `: ${message}`}. What you said lately may be missing.` });
}

function showDropped(frames, seconds) {
  $("dropped").dataset.frames = frames;
  setText("dropped", seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);
}

function showError({ title, message, code, setting, kind = "speech", retry = false }) {
  setText("notice-title", title ?? "The server refused this");
  setText("notice-text", message);
  setText("notice-code", [code, setting].filter(Boolean).join(" · "));
  $("notice").dataset.kind = kind;
  $("notice-retry").hidden = !retry;
  $("notice").hidden = false;
}

function hideNotice(kind) {
  if (kind === undefined || $("notice").dataset.kind === kind) $("notice").hidden = true;
}

function speechChanged(state) {
  document.body.dataset.speech = state;
  $("speak").setAttribute("aria-disabled", String(state === "finishing")); // disabled would lose the focus
  setText("speak-text", SPEECH[state]);
  showHint(false);
  if (state === "idle") setText("lag", "–");
  if (state === "speaking") showDevices();
}

function showHint(quiet) {
  if (speaker.state === "waiting" && !link.live) setText("hint", "Not connected. What you say is kept for a moment.");
  else if (speaker.state === "waiting") setText("hint", "Waiting for the speech engine.");
  else if (speaker.state === "speaking" && speaker.engineLost) setText("hint", "The speech engine is lost. What you say waits for it.");
  else setText("hint", quiet ? "No sound arrives from this microphone. Is it muted?" : "");
}

async function toggleSpeech() {
  if (speaker.state === "finishing") return;
  if (speaker.state !== "idle") return speaker.stop();
  hideNotice();
  remember($("name").value.trim());
  await speaker.start($("device").value, $("name").value.trim());
}

async function showDevices() {
  const select = $("device");
  const chosen = select.value;
  const devices = await listDevices();
  const options = devices.map(({ id, label }) => new Option(label || "Microphone", id));
  select.replaceChildren(new Option("Default microphone", ""), ...options);
  if (devices.some(({ id }) => id === chosen)) select.value = chosen;
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText($("share-link").href);
    setText("copied", isLoopback() ? "Copied. The link works on this computer only." : "Copied.");
  } catch {
    getSelection().selectAllChildren($("share-link"));
    setText("copied", "The link is selected: copy it with the keyboard.");
  }
  setTimeout(() => setText("copied", ""), COPIED_MS);
}

function logLine(arrow, text) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  const item = document.createElement("li");
  item.textContent = `${new Date().toTimeString().slice(0, 8)} ${arrow} ${text.slice(0, LOG_LINE)}`;
  log.append(item);
  while (log.childElementCount > LOG_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // a live region repeats what is set again
}

/** Keep the name for the next visit, where the browser lets us. */
function remember(name) {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch (error) {
    logLine("·", `the name is not kept: ${error.message}`);
  }
}

function recall() {
  try {
    return localStorage.getItem(NAME_KEY) ?? "";
  } catch {
    return ""; // storage is closed to this page
  }
}

function arrange() {
  document.title = `${room} · Roomcast`;
  document.body.dataset.role = listen ? "listener" : "speaker";
  setText("room", room);
  setText("empty-title", listen ? "Waiting for somebody to speak" : "Nothing said yet");
  setText("empty-text", listen ? "What is said in this room appears here."
    : "Press Speak and talk. Whoever has the listen link reads along.");
  $("share-link").href = pageUrl(room, true);
  setText("share-link", pageUrl(room, true).replace(/^https?:\/\//, ""));
  $("speak-link").href = pageUrl(room, false);
  $("name").value = recall();
  $("speak").addEventListener("click", toggleSpeech);
  $("copy").addEventListener("click", copyLink);
  $("resume").addEventListener("click", () => showResume("", ""));
  $("notice-close").addEventListener("click", () => hideNotice());
  $("notice-retry").addEventListener("click", () => { hideNotice(); link.open(); });
  $("device").addEventListener("change", () => speaker.change($("device").value));
  navigator.mediaDevices?.addEventListener("devicechange", showDevices);
  addEventListener("online", () => link.hurry());
  document.addEventListener("visibilitychange", () => document.hidden || link.hurry());
  showDevices();
  link.open();
}

arrange();
