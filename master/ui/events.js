// What happens in the cluster, as it happens.

import { follow } from "./api.js";
import { Part, fill, h } from "./dom.js";
import { clock, count, moment } from "./format.js";
import { empty, filter, head } from "./parts.js";

const ROWS_MAX = 400;
/** Attempts of one event that are named. */
const NAMED_MAX = 6;

class Events extends Part {
  begin() {
    Object.assign(this, { rows: [], match: "", paused: false, queue: [], seen: 0 });
    this.list = h("ol", { class: "events", "aria-label": "events" });
    this.none = h("div", null, empty("Nothing has happened since this master began to listen.", "skep run samples/dist/hello.wasm -- world"));
    const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
      this.paused = !this.paused;
      pause.setAttribute("aria-pressed", String(this.paused));
      fill(pause, this.paused ? "Go on" : "Hold");
      this.draw();
    } }, "Hold");
    this.says = h("small", { class: "dim" });
    this.replaceChildren(head("Events", "The newest first; of the past those that this master has kept.", pause), h("div", { class: "bar" }, filter("Filter", (text) => { this.match = text.toLowerCase(); this.again(); }), this.says), h("section", { class: "card flush" }, this.list, this.none));
    follow("/v1/events?kept=true", (name, event) => this.hear(name, event), this.ending);
  }

  hear(name, event) {
    this.seen += 1;
    this.rows.push(row(name, event));
    if (this.rows.length > 4 * ROWS_MAX) this.rows.splice(0, this.rows.length - 2 * ROWS_MAX);
    this.queue.push(this.rows.at(-1));
    if (this.queue.length > ROWS_MAX) this.queue.shift();
    if (this.due || this.paused) return;
    this.due = true;
    setTimeout(() => { this.due = false; this.draw(); }, 120);
  }

  again() {
    this.list.replaceChildren();
    this.queue = this.rows.slice(-ROWS_MAX);
    this.draw();
  }

  draw() {
    if (this.paused || !this.isConnected) return;
    const wanted = this.queue.filter((one) => !this.match || one.text.includes(this.match));
    this.queue = [];
    this.list.prepend(...wanted.map((one) => one.make()).reverse());
    while (this.list.children.length > ROWS_MAX) this.list.lastChild.remove();
    this.none.hidden = this.list.children.length > 0 || this.match !== "";
    fill(this.says, `${count(this.seen)} heard`);
  }
}

function row(name, event) {
  const word = { tasks: event.phase, health: event.health }[name] ?? event.what ?? name;
  const text = `${name} ${word} ${event.title ?? ""} ${event.name ?? ""} ${event.job ?? ""} ${event.agent ?? ""} ${event.role ?? ""}`.toLowerCase();
  const link = () => {
    if (name === "job") return [h("a", { href: `#/jobs/${event.job}` }, event.title || event.job), h("small", null, ` in role ${event.role}`)];
    if (name === "agent") return h("a", { href: `#/agents/${event.agent}` }, event.name);
    if (name === "framework") return h("a", { href: `#/frameworks/${event.framework}` }, event.name);
    if (name === "deployment") return [h("a", { href: `#/jobs/${event.deployment.job}` }, event.deployment.title), ` ${event.deployment.text}`];
    if (name !== "tasks" && name !== "health") return { missed: "something was told that is not kept any more", dropped: "this page was too slow", tokens: "tokens are others now", policies: "policies are others now", masters: "masters came, moved or went", maintenance: "windows of maintenance are others now" }[name] ?? "";
    const named = event.attempts.slice(0, NAMED_MAX).map((one) => [h("a", { href: `#/jobs/${event.job}/tasks/${one.attempt.split(".")[1].split("#")[0]}` }, one.attempt), " "]);
    return [named, event.attempts.length > NAMED_MAX ? `and ${count(event.attempts.length - NAMED_MAX)} more` : ""];
  };
  const make = () => h("li", { class: `p-${word}` }, h("i", { "aria-hidden": "true" }), h("time", { title: event.at_ms ? moment(event.at_ms) : "" }, event.at_ms ? clock(event.at_ms) : ""), h("span", { class: "kind" }, name), h("b", null, word), h("span", null, link()));
  return { text, make };
}

customElements.define("skep-events", Events);
