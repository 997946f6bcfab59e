// A job file written here: what is wrong stands at its line, what it would change beside it; files that it runs are dropped in, uploaded by digest.

import { call, get, jobPath, upload } from "./api.js";
import { Part, fill, h, say } from "./dom.js";
import { count, percent, title } from "./format.js";
import { unwritten, write } from "./jobfile.js";
import { card, failure, head, toast } from "./parts.js";

const SAMPLE = `# Drop what is to run anywhere on this page:
# a .wasm, an executable, a script, an image.
name = "hello"
kind = "service"
count = 1

[task]
wasm = "hello.wasm"
args = []

[resources]
cpu = 0.1
memory = "16MiB"
`;

const SOURCES = /(\b(?:wasm|native|image|stdin)"?\s*[=:]\s*")([^"\n]+)(")/g;

class Edit extends Part {
  /** `id0` is the id of the job that is edited, or undefined for a new one. */
  async begin() {
    Object.assign(this, { files: new Map(), pristine: true, problems: [] });
    this.top = h("div");
    this.gutter = h("div", { class: "gutter", "aria-hidden": "true" });
    this.area = h("textarea", { spellcheck: false, wrap: "off", autocapitalize: "off", "aria-label": "job file", "aria-describedby": "problems", rows: 24 });
    this.list = h("div", { id: "problems", "aria-live": "polite" });
    this.plan = h("div");
    this.uploads = h("ul", { class: "files" });
    this.picker = h("input", { type: "file", multiple: true, hidden: true, onchange: () => this.take(this.picker.files) });
    this.submit = h("button", { type: "button", class: "primary", id: "submit", disabled: true, onclick: () => this.send() }, "Submit");
    const drop = h("button", { type: "button", class: "drop", onclick: () => this.picker.click() }, "Drop files here, or press to choose", h("small", null, "job files (.toml, .json) are opened; all else is uploaded"));
    this.replaceChildren(this.top, h("div", { class: "editor" },
      h("section", { class: "card flush code" }, this.gutter, this.area),
      h("div", null, h("section", { class: "card" }, drop, this.picker, this.uploads), this.list, this.plan)));
    this.listen(this.area, "input", () => { this.pristine = false; this.changed(); });
    this.listen(this.area, "scroll", () => { this.gutter.scrollTop = this.area.scrollTop; });
    this.listen(this.area, "keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.send());
    this.listen(document, "dragover", (event) => { event.preventDefault(); this.classList.add("over"); });
    this.listen(document, "dragleave", (event) => event.relatedTarget === null && this.classList.remove("over"));
    this.listen(document, "drop", (event) => { event.preventDefault(); this.classList.remove("over"); this.take(event.dataTransfer.files); });
    await this.open();
  }

  async open() {
    const heading = (text, sub) => fill(this.top, head(text, sub, h("a", { class: "button", href: this.id0 ? `#/jobs/${this.id0}` : "#/jobs" }, "Cancel"), this.submit));
    if (!this.id0) {
      heading("New job", "As a job file; Ctrl+Enter submits it.");
      this.area.value = SAMPLE;
      return this.changed();
    }
    try {
      const job = await get(jobPath(this.id0), this.ending);
      heading(`Edit ${title(job)}`, "Its tasks are replaced by those of a new version, part by part; Ctrl+Enter applies it.");
      this.area.value = write(job);
      this.lost = unwritten(job);
      this.pristine = false;
      this.changed();
    } catch (error) {
      if (error.name !== "AbortError") fill(this.top, head("Edit"), failure(error, () => this.open()));
    }
  }

  get isJson() {
    return this.area.value.trimStart().startsWith("{");
  }

  /** The job's name, as far as it can be told without reading all of it. */
  get jobName() {
    if (this.isJson) {
      try {
        return JSON.parse(this.area.value).name;
      } catch {
        return undefined;
      }
    }
    return this.area.value.split(/^\s*\[/m)[0].match(/^\s*name\s*=\s*["']([^"']+)["']/m)?.[1];
  }

  /** Files that it names and that are not uploaded yet. */
  missing() {
    const found = [...this.area.value.matchAll(SOURCES)].filter((match) => !this.area.value.slice(0, match.index).split("\n").pop().trimStart().startsWith("#"));
    return found.map((match) => match[2]).filter((name) => !/^sha256:|:\/\//.test(name) && !this.files.get(base(name))?.digest);
  }

  /** What is sent: files by their digests. */
  resolved() {
    return this.area.value.replace(SOURCES, (all, before, name, after) => {
      const digest = this.files.get(base(name))?.digest;
      return digest ? before + digest + after : all;
    });
  }

  changed() {
    this.lines();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.try(), 350);
  }

  lines() {
    const marked = new Map(this.problems.filter((one) => one.line > 0).map((one) => [one.line, one.message]));
    const total = this.area.value.split("\n").length;
    fill(this.gutter, Array.from({ length: total }, (_, at) => h("div", { class: marked.has(at + 1) ? "bad" : null, title: marked.get(at + 1) }, String(at + 1))));
    this.gutter.scrollTop = this.area.scrollTop;
  }

  request(method, path) {
    return call(method, path, { body: this.resolved(), type: this.isJson ? "application/json" : "application/toml", signal: this.ending });
  }

  async try() {
    const missing = this.missing();
    if (missing.length) {
      const line = (name) => this.area.value.split("\n").findIndex((text) => text.includes(`"${name}"`)) + 1;
      return this.wrong(missing.map((name) => ({ line: line(name), column: 1, field: "", message: `${name} is not uploaded yet`, help: "drop that file on this page", waits: true })));
    }
    const asked = (this.asked = {});
    try {
      const plan = await this.request("POST", "/v1/plan");
      if (asked === this.asked) this.planned(plan);
    } catch (error) {
      if (error.name === "AbortError" || asked !== this.asked) return;
      this.wrong(error.problems.length ? error.problems : [{ line: 0, field: error.field ?? "", message: error.message, help: error.help }]);
    }
  }

  wrong(problems) {
    this.problems = problems;
    this.lines();
    this.submit.disabled = true;
    fill(this.plan);
    const one = (problem) => h("li", { class: problem.waits ? "waits" : null },
      problem.line > 0 ? h("button", { type: "button", onclick: () => this.go(problem) }, `line ${problem.line}`) : null,
      " ", problem.field && h("code", null, problem.field), problem.field ? ": " : "", problem.message, problem.help && h("small", null, h("b", null, "help "), problem.help));
    fill(this.list, card(problems.every((problem) => problem.waits) ? "Still needed" : `${count(problems.length)} ${problems.length === 1 ? "thing is" : "things are"} wrong`, h("ul", { class: "problems" }, problems.map(one))));
  }

  planned(plan) {
    this.problems = [];
    this.lines();
    fill(this.list);
    this.action = plan.action;
    this.submit.disabled = plan.action === "nothing";
    say(this.submit, { create: "Submit", update: "Apply changes", nothing: "Nothing to change" }[plan.action] ?? "Submit");
    const { fit } = plan;
    const words = { create: "A new job", update: "A new version", nothing: "No change" };
    fill(this.plan, card(words[plan.action] ?? plan.action,
      plan.changes.length ? h("ul", { class: "changes" }, plan.changes.map((change) => h("li", null, h("code", null, change)))) : h("p", { class: "dim" }, plan.action === "nothing" ? "It is so already." : `${count(plan.count)} ${plan.count === 1 ? "task" : "tasks"}`),
      this.lost?.length ? h("p", { class: "warn" }, `This page has no words for ${this.lost.join(", ")}: what is not written here is lost. Apply the job file itself with skep apply instead.`) : null,
      h("p", null, fit.agents === 0 ? "There is no agent: its tasks will wait." : h("span", null, h("b", null, `${count(fit.fitting)} of ${count(fit.agents)}`), ` agents (${percent(fit.fitting, fit.agents)}) have room for one of its tasks now.`)),
      fit.change ? h("p", { class: "help" }, h("b", null, "would fit "), fit.change) : null));
  }

  go({ line, column }) {
    const before = this.area.value.split("\n").slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    const end = this.area.value.indexOf("\n", before);
    this.area.focus();
    this.area.setSelectionRange(before + Math.max(0, column - 1), end < 0 ? this.area.value.length : end);
    this.area.scrollTop = Math.max(0, (line - 6) * 20);
  }

  async send() {
    if (this.submit.disabled) return;
    const name = this.jobName;
    this.submit.disabled = true;
    try {
      const made = name ? await this.request("PUT", jobPath(name)) : await this.request("POST", "/v1/jobs");
      toast(this.action === "update" ? `${name} has a new version` : `${name ?? made.id} is on record`);
      location.hash = `#/jobs/${made.id}`;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.wrong(error.problems.length ? error.problems : [{ line: 0, field: error.field ?? "", message: error.message, help: error.help }]);
    }
  }

  async take(files) {
    for (const file of [...files]) {
      if (/\.(toml|json)$/i.test(file.name)) {
        this.area.value = await file.text();
        this.pristine = false;
        this.changed();
      } else await this.put(file);
    }
  }

  async put(file) {
    const bar = h("progress", { max: 1, value: 0 });
    const says = h("small", null, "uploading");
    const row = h("li", null, h("b", null, file.name), " ", bar, " ", says);
    this.uploads.append(row);
    try {
      const digest = await upload(file, (part) => { bar.value = part; });
      this.files.set(base(file.name), { digest });
      bar.remove();
      say(says, `${digest.slice(0, 19)}…`);
      await this.mention(file);
      this.changed();
    } catch (error) {
      bar.remove();
      fill(says, `${error.message}${error.help ? ` — ${error.help}` : ""}`);
      row.append(h("button", { type: "button", onclick: () => { row.remove(); this.put(file); } }, "try again"));
    }
  }

  /** A file that nothing names yet becomes what the job runs, where nobody has written anything. */
  async mention(file) {
    const named = [...this.area.value.matchAll(SOURCES)].some((match) => base(match[2]) === base(file.name));
    if (named || !this.pristine) return;
    const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
    const starts = (...bytes) => bytes.every((byte, at) => head[at] === byte);
    const kind = starts(0, 0x61, 0x73, 0x6d) ? "wasm" : starts(0x7f, 0x45, 0x4c, 0x46) || starts(0x23, 0x21) ? "native" : starts(0x1f, 0x8b) || starts(0x28, 0xb5) ? "bundle" : "image";
    const name = file.name.toLowerCase().replace(/\.[a-z0-9.]+$/, "").replace(/[^a-z0-9-]+/g, "-").replace(/^-+|-+$/g, "") || "job";
    const source = JSON.stringify(file.name);
    const task = { wasm: `wasm = ${source}`, native: `native = ${source}\nfile = ${source}`, bundle: `native = ${source}\ncommand = ["./start"]`, image: `image = ${source}` }[kind];
    this.area.value = `name = ${JSON.stringify(name)}\nkind = "batch"\ncount = 1\n\n[task]\n${task}\nargs = []\n\n[resources]\ncpu = 0.1\nmemory = "${kind === "wasm" ? 16 : 64}MiB"\n`;
  }
}

function base(path) {
  return path.split("/").pop();
}

customElements.define("skep-edit", Edit);
