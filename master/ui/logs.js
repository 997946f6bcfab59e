// What tasks print, as it comes: harmless letters only, of the last lines, never more than the page can hold.

import { jobPath, path, records } from "./api.js";
import { Part, clean, fill, h } from "./dom.js";
import { count } from "./format.js";
import { choice } from "./parts.js";

const LINES_MAX = 3000;
/** A line is cut after so many letters. */
const LINE_MAX = 4000;

class Logs extends Part {
  /** Of a job (`job`, its id), of one task (`task`, its index) or of one member of it. */
  begin() {
    this.box = h("div", { class: "log", role: "log", tabIndex: 0, "aria-label": "output" });
    this.says = h("small", { class: "dim", role: "status" });
    this.jump = h("button", { type: "button", hidden: true, onclick: () => this.bottom() }, "↓ newest");
    const wrap = h("input", { type: "checkbox", checked: true, onchange: () => this.box.classList.toggle("long", !wrap.checked) });
    this.replaceChildren(h("div", { class: "bar" }, choice("which stream", [["", "All"], ["stdout", "stdout"], ["stderr", "stderr"]], "", (stream) => this.read(stream)), h("label", { class: "check" }, wrap, " wrap"), this.says, this.jump), this.box);
    this.listen(this.box, "scroll", () => {
      this.stays = this.box.scrollTop + this.box.clientHeight < this.box.scrollHeight - 30;
      this.jump.hidden = !this.stays;
    });
    this.ending.addEventListener("abort", () => this.reading?.abort(), { once: true });
    this.read("");
  }

  bottom() {
    this.stays = false;
    this.jump.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
  }

  async read(stream) {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    Object.assign(this, { lines: [], rest: new Map(), left: 0, drawn: false });
    this.box.replaceChildren();
    fill(this.says, "following");
    const where = path(jobPath(this.job, "/logs"), { task: this.task, follow: true, stream });
    let seen = new Map();
    for (let wait = 300; !reading.signal.aborted; wait = Math.min(wait * 2, 5000)) {
      try {
        for await (const record of records(where, reading.signal)) {
          if (reading.signal.aborted) return;
          wait = 300;
          const key = `${record.task}/${record.member ?? ""}`;
          const at = record.attempt * 2 ** 40 + (record.next ?? 0);
          // What comes again after a break was there already.
          if (record.next !== undefined && at <= (seen.get(key) ?? -1)) continue;
          if (record.next !== undefined) seen.set(key, at);
          this.take(record);
        }
        return this.flush(true);
      } catch (error) {
        if (error.name === "AbortError" || reading.signal.aborted) return;
        fill(this.says, `${error.message}${error.help ? ` — ${error.help}` : ""}`);
        if (error.status && error.status !== 429 && error.status < 500) return;
      }
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  /** Cuts lines out of what came. */
  take(record) {
    const whose = `${record.task.split(".").pop()}${record.member ? `/${record.member}` : ""}`;
    const kind = record.error ? "error" : record.stream;
    const text = record.error ?? record.text ?? (record.base64 ? new TextDecoder().decode(Uint8Array.from(atob(record.base64), (letter) => letter.charCodeAt(0))) : "");
    const key = `${whose} ${kind}`;
    const parts = ((this.rest.get(key) ?? "") + text).slice(-1_000_000).split("\n");
    this.rest.set(key, record.error ? "" : parts.pop());
    if (record.error) parts.splice(0, parts.length, text);
    for (const part of parts) this.lines.push({ whose, kind, text: part });
    if (this.lines.length > 2 * LINES_MAX) this.left += this.lines.splice(0, this.lines.length - LINES_MAX).length;
    if (!this.drawn) {
      this.drawn = true;
      setTimeout(() => { this.drawn = false; this.flush(false); }, 80);
    }
  }

  flush(over) {
    if (!this.isConnected) return;
    if (over) for (const [key, text] of this.rest) if (text) this.lines.push({ whose: key.split(" ")[0], kind: key.split(" ")[1], text });
    if (this.lines.length > LINES_MAX) this.left += this.lines.splice(0, this.lines.length - LINES_MAX).length;
    const several = this.task === undefined;
    const made = this.lines.map(({ whose, kind, text }) => h("div", { class: kind }, several || whose.includes("/") ? h("span", { class: "whose" }, whose) : null, clean(text).slice(0, LINE_MAX) || " "));
    this.lines = [];
    this.box.append(...made);
    const extra = this.box.children.length - LINES_MAX;
    for (let i = 0; i < extra; i += 1) this.box.firstChild.remove();
    this.left += Math.max(extra, 0);
    const words = this.left ? `the last ${count(LINES_MAX)} lines` : "";
    fill(this.says, over ? (this.box.children.length ? `${words} the end`.trim() : "nothing was printed") : words || "following");
    if (!this.stays) this.box.scrollTop = this.box.scrollHeight;
  }
}

customElements.define("skep-logs", Logs);
