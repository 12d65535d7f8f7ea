// The captions: finals in a log that assistive technology reads out, partials below it, both bounded.

const MOST_LINES = 500;
const MOST_PARTIALS = 20;
const LONGEST = 4000; // characters of a published value
const NEAR_END = 48; // pixels from the end that still count as reading along
const VOICES = 6;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Return the same small number for the same speaker, in every tab. */
function voiceOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
  return sum % VOICES;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function line({ speaker, at, text }) {
  const row = element("p", "caption", "");
  const who = element("span", "who", speaker.name || "Speaker");
  const when = element("time", "when", clock.format(at * 1000));
  when.dateTime = new Date(at * 1000).toISOString();
  row.dataset.voice = voiceOf(speaker.name || speaker.id); // an id ends with its connection
  row.append(who, " ", when, " ", element("span", "text", text));
  return row;
}

export class Captions {
  /** `stage` scrolls; `latest` is the button that brings a reader back to the end. */
  constructor({ stage, log, partials, empty, latest }) {
    Object.assign(this, { stage, log, partials, empty, latest });
    this.following = true;
    this.unread = 0;
    this.top = 0; // where we have seen the stage scrolled to
    this.open = new Map(); // segment -> its line
    stage.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.settle()).observe(stage);
    latest.addEventListener("click", () => this.toEnd());
  }

  /** A partial or a final: a partial replaces its predecessor, a final ends the segment. */
  transcript(event) {
    if (event.final) this.close(event);
    else this.revise(event);
    this.settle();
  }

  /** A value that somebody published. */
  message({ sender, at, data, offset }) {
    const text = typeof data === "string" ? data : JSON.stringify(data, null, 1);
    const row = line({ speaker: { id: sender, name: sender || "Message" }, at, text: text.slice(0, LONGEST) });
    row.classList.add("message");
    row.dataset.offset = offset;
    this.append(row);
  }

  /** Say inside the log that something happened to it. */
  note(text) {
    this.append(element("p", "note", text));
  }

  /** Forget what was being said: its finals come, or nobody will tell. */
  clearPartials() {
    this.open.clear();
    this.partials.replaceChildren();
    this.settle();
  }

  close(event) {
    this.open.get(event.segment)?.remove();
    this.open.delete(event.segment);
    if (!event.text) return;
    const row = line(event);
    Object.assign(row.dataset, { final: "", segment: event.segment, offset: event.offset });
    this.append(row);
  }

  revise(event) {
    const old = this.open.get(event.segment);
    if (old) {
      old.querySelector(".text").textContent = event.text;
      return;
    }
    const row = line(event);
    row.dataset.segment = event.segment;
    this.open.set(event.segment, row);
    this.partials.append(row);
    if (this.open.size > MOST_PARTIALS) {
      const [oldest] = this.open.keys();
      this.open.get(oldest).remove();
      this.open.delete(oldest);
    }
  }

  append(row) {
    this.log.append(row);
    while (this.log.childElementCount > MOST_LINES) this.log.firstElementChild.remove();
    if (!this.following) this.unread += 1;
    this.settle();
  }

  /** Keep the end in sight for those who read along, and leave the others where they are. */
  settle() {
    this.empty.hidden = this.log.childElementCount + this.open.size > 0;
    if (this.following) this.stage.scrollTop = this.stage.scrollHeight;
    this.latest.hidden = this.following;
    this.latest.textContent = this.unread ? `${this.unread} more below` : "Latest";
  }

  /** A reader leaves the end by moving up; a stage that grows or shrinks has moved nobody. */
  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.stage;
    const left = scrollHeight - scrollTop - clientHeight;
    const up = scrollTop < this.top && left > 1; // at the very end it is the stage that has grown
    if (left < NEAR_END) this.unread = 0;
    this.following = !up && (left < NEAR_END || this.following);
    this.top = scrollTop;
    this.settle();
  }

  toEnd() {
    this.following = true;
    this.unread = 0;
    this.settle();
    this.stage.focus();
  }
}
