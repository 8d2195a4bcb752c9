// The conversation as it is written on the page: one entry for each thing that somebody said.

import { waterfall } from "./waterfall.js";

/** Older entries leave the page; the conversation remembers them. */
const MOST_ENTRIES = 400;

export class Transcript {
  constructor(list) {
    this.list = list;
    this.user = null;
    this.reply = null;
    this.last = null;
  }

  /** More of what the user said. */
  heard(text, finished) {
    this.user ??= this.entry("user", "You");
    this.user.said += text;
    this.user.words.textContent = this.user.said.trim();
    if (finished) this.closeUser();
    this.scroll();
  }

  /** All of what is being said, as it seems now. */
  heardSoFar(text) {
    if (!text) return;
    this.user ??= this.entry("user", "You");
    const known = this.user.said.trim();
    const interim = document.createElement("span");
    interim.className = "interim";
    interim.textContent = text.trim().startsWith(known) ? text.trim().slice(known.length) : ` ${text.trim()}`;
    this.user.words.replaceChildren(known, interim);
    this.scroll();
  }

  typed(text) {
    this.closeUser();
    this.heard(text, true);
  }

  closeUser() {
    if (!this.user) return;
    this.user.words.textContent = this.user.said.trim();
    if (!this.user.said.trim()) this.user.item.remove();
    this.user = null;
  }

  /** More of the reply. */
  answered(text) {
    const reply = this.current();
    reply.said += text;
    reply.words.textContent = reply.said.trim();
    this.scroll();
  }

  thought(text) {
    const reply = this.current();
    if (!reply.thoughts) {
      reply.thoughts = fold("Thoughts");
      reply.item.insertBefore(reply.thoughts.details, reply.words);
    }
    reply.thoughts.body.textContent += text;
    this.scroll();
  }

  called(name, argument) {
    const reply = this.current();
    const call = fold(`Calls ${name}`);
    call.body.textContent = JSON.stringify(argument ?? {}, null, 2);
    reply.item.append(call.details);
    this.scroll();
  }

  /** The reply is over. */
  over(note) {
    this.closeUser();
    if (!this.reply) return;
    if (note) {
      const mark = document.createElement("span");
      mark.className = "note";
      mark.textContent = note;
      this.reply.words.after(mark);
    }
    this.reply = null;
  }

  /** Draws the latencies of the reply that was last begun. */
  timed(metrics) {
    const bars = waterfall(metrics);
    if (!bars || !this.last) return;
    for (const older of this.list.querySelectorAll("details.waterfall[open]")) older.open = false;
    bars.open = true;
    this.last.item.querySelector("details.waterfall")?.remove();
    this.last.item.append(bars);
    this.scroll();
  }

  /** What was said, oldest first, as contents of a setup's history. */
  history() {
    return [...this.list.children]
      .map((item) => ({ role: item.dataset.role, parts: [{ text: item.querySelector(".words").textContent }] }))
      .filter((content) => content.parts[0].text);
  }

  current() {
    if (!this.reply) {
      this.closeUser();
      this.reply = this.entry("model", "Causerie");
      this.last = this.reply;
    }
    return this.reply;
  }

  entry(role, name) {
    const item = document.createElement("li");
    item.dataset.role = role;
    const who = document.createElement("span");
    who.className = "unseen";
    who.textContent = `${name}: `;
    const words = document.createElement("p");
    words.className = "words";
    item.append(who, words);
    this.list.append(item);
    while (this.list.children.length > MOST_ENTRIES) this.list.firstElementChild.remove();
    return { item, words, said: "" };
  }

  scroll() {
    this.list.parentElement.scrollTop = this.list.parentElement.scrollHeight;
  }
}

function fold(title) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = title;
  const body = document.createElement("pre");
  details.append(summary, body);
  return { details, body };
}
