// All jobs, a page at a time, and what they do now.

import { follow, get, path } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { LIVE, count, lasts, short, title } from "./format.js";
import { empty, failure, filter, head, pager, phaseBar, pill, table, when } from "./parts.js";

const LIMIT = 50;

/** How a job is, in one word. */
export function stand(job) {
  const of = (phase) => job.tasks[phase] ?? 0;
  if (job.state === "ended") return of("failed") + of("lost") + of("rejected") > 0 ? "failed" : of("killed") > 0 ? "killed" : "finished";
  if (job.state === "stopping") return "stopping";
  if (of("unreachable") > 0) return "unreachable";
  if (job.health?.unhealthy > 0) return "unhealthy";
  if (of("waiting") > 0) return "waiting";
  if (of("staging") + of("starting") > 0) return "starting";
  if (job.health?.unready > 0) return "unready";
  return lasts(job) ? (of("running") >= job.count ? "running" : "waiting") : "running";
}

export function jobColumns() {
  return [
    ["Job", "main", (job) => [h("b", null, title(job)), h("small", null, job.name ? ` ${job.id}` : "")]],
    ["State", "", (job) => pill(stand(job))],
    ["Tasks", "wide", (job) => [phaseBar(job.tasks, job.count), h("small", null, counted(job))]],
    ["Kind", "", (job) => `${job.kind}${job.version > 1 ? ` v${job.version}` : ""}`],
    ["Role", "", (job) => job.role],
    ["Restarts", "num", (job) => short(job.restarts)],
    ["Submitted", "num", (job) => when(job.submitted_ms)],
  ];
}

function counted(job) {
  const of = (phase) => job.tasks[phase] ?? 0;
  if (job.state === "ended") return `${count(of("finished"))} of ${count(job.count)} finished`;
  const live = LIVE.reduce((sum, phase) => sum + of(phase), 0) - of("waiting");
  const well = job.health ? `, ${count(job.health.healthy)} healthy` : "";
  if (job.kind === "system") return `on ${count(of("running"))} of ${count(job.count)} agents${well}`;
  return job.kind === "service" ? `${count(of("running"))} of ${count(job.count)} running${well}` : `${count(live)} live, ${count(of("finished"))} of ${count(job.count)} finished`;
}

class Jobs extends Part {
  begin() {
    const kept = sessionStorage.getItem("skep.jobs") ?? "";
    Object.assign(this, { match: kept, ended: sessionStorage.getItem("skep.ended") === "1", after: [null], next: null });
    this.table = table("jobs", jobColumns(), (job) => job.id, (job) => `#/jobs/${job.id}`);
    this.pager = pager((way) => this.turn(way));
    this.none = h("div");
    const ended = h("input", { type: "checkbox", checked: this.ended, onchange: () => {
      this.ended = ended.checked;
      sessionStorage.setItem("skep.ended", this.ended ? "1" : "");
      this.restart();
    } });
    this.replaceChildren(
      head("Jobs", null, h("a", { class: "button primary", href: "#/new" }, "New job")),
      h("div", { class: "bar" }, filter("Filter by name, id or role", (text) => {
        this.match = text;
        sessionStorage.setItem("skep.jobs", text);
        this.restart();
      }, kept), h("label", { class: "check" }, ended, " with those that have ended")),
      h("section", { class: "card flush" }, this.table, this.none), this.pager);
    this.fresh = calmly(1000, () => this.load(), this.ending);
    this.load();
    follow("/v1/events", (name, event) => this.hear(name, event), this.ending);
  }

  restart() {
    this.after = [null];
    this.load();
  }

  turn(way) {
    if (way > 0 && this.next) this.after.push(this.next);
    if (way < 0 && this.after.length > 1) this.after.pop();
    this.load();
  }

  /** Only what concerns what is shown makes it be asked for again. */
  hear(name, event) {
    const shown = this.shown ?? new Set();
    if (name === "missed" || name === "job" || (["tasks", "health"].includes(name) && shown.has(event.job))) this.fresh();
  }

  async load() {
    const asked = (this.asked = {});
    try {
      const where = path("/v1/jobs", { limit: LIMIT, after: this.after.at(-1), ended: this.ended, match: this.match });
      const page = await get(where, this.ending);
      if (asked !== this.asked) return;
      this.next = page.next;
      this.shown = new Set(page.jobs.map((job) => job.id));
      this.table.update(page.jobs);
      this.table.hidden = page.jobs.length === 0;
      fill(this.none, page.jobs.length ? [] : this.nothing());
      const first = (this.after.length - 1) * LIMIT + 1;
      const words = page.jobs.length ? `${count(first)} to ${count(first + page.jobs.length - 1)}` : "";
      this.pager.update(words, this.after.length > 1, page.next && page.jobs.length === LIMIT);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.none, failure(error, () => this.load()));
    }
  }

  nothing() {
    if (this.match) return empty(`No job has “${this.match}” in its name, id or role.`);
    if (this.ended) return empty("No job is on record.", "skep run samples/dist/hello.wasm -- world");
    return empty("No job is live.", "skep run samples/dist/hello.wasm -- world", "skep apply samples/nap.toml", h("a", { class: "button primary", href: "#/new" }, "New job"));
  }
}

customElements.define("skep-jobs", Jobs);
