// One task: its life as a line of time, what it prints, and why it is where it is.

import "./logs.js";
import { follow, get, jobPath, path } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { bytes, clock, count, moment, short, span, title } from "./format.js";
import { reasons } from "./job.js";
import { agentName } from "./live.js";
import { card, failure, facts, head, pill } from "./parts.js";

const STEPS_MAX = 200;

class Task extends Part {
  begin() {
    Object.assign(this, { steps: [], name: `${this.id0}.${this.index}` });
    [this.top, this.why, this.facts] = [h("div"), h("div"), h("div")];
    this.life = h("ol", { class: "life", "aria-label": "life" });
    this.replaceChildren(this.top, this.why, h("div", { class: "grid" }, card("Life", this.life), this.facts), card("Output", h("skep-logs", { job: this.id0, task: this.index })));
    this.fresh = calmly(300, () => this.load(), this.ending);
    this.load();
    follow(path("/v1/events", { job: this.id0, kept: true }), (name, event) => this.hear(name, event), this.ending);
    this.every(1000, () => this.draw());
  }

  hear(name, event) {
    if (name === "job" && ["submitted", "applied", "scaled", "stopping", "ended"].includes(event.what)) this.step(event.at_ms, `job ${event.what}`, "job");
    if (name === "missed" && this.steps.length) this.step(null, "something is missing here", "missed");
    if (name === "tasks" || name === "health") {
      const own = event.attempts.find((one) => one.attempt.startsWith(`${this.name}#`));
      if (!own) return;
      this.step(event.at_ms, event.phase ?? event.health, event.phase ?? event.health, name === "tasks" ? own : null);
    }
    this.fresh();
  }

  step(at, word, kind, own) {
    this.steps.push({ at, word, kind, agent: own?.agent, attempt: own ? Number(own.attempt.split("#")[1]) : undefined });
    if (this.steps.length > STEPS_MAX) this.steps.shift();
    this.draw();
  }

  async load() {
    try {
      this.job ??= await get(jobPath(this.id0), this.ending);
      const page = await get(path(jobPath(this.id0, "/tasks"), { from: this.index, limit: 1 }), this.ending);
      const task = page.tasks[0];
      if (!task || task.index !== this.index) throw Object.assign(new Error(`the job has no task ${this.index}`), { tried: `task ${this.name}`, help: "scale it up to have one" });
      if (task.agent && task.agent !== this.task?.agent) this.agent = await get(`/v1/agents/${task.agent}`, this.ending).catch(() => null);
      this.task = task;
      this.show();
      this.draw();
      fill(this.why, task.phase === "waiting" && !task.retry_at_ms ? await reasons(this.id0, this.index, this.ending) : []);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.top, head("Task"), failure(error, () => this.load()));
    }
  }

  show() {
    const { task, job } = this;
    const key = JSON.stringify(task);
    if (key === this.shown) return;
    this.shown = key;
    fill(this.top, head(`${title(job)}.${task.index}`, h("span", null, pill(task.phase), " task of ", h("a", { href: `#/jobs/${job.id}` }, title(job)), task.attempt ? ` · attempt ${task.attempt} of version ${task.version}` : "")));
    const used = task.usage;
    fill(this.facts, card("How it is", facts([
      ["agent", task.agent && h("a", { href: `#/agents/${task.agent}` }, this.agent?.name ?? task.agent)],
      ["stands at", this.agent && [this.agent.domain.region, this.agent.domain.zone, this.agent.domain.rack].filter(Boolean).join(" / ")],
      ["ports", task.ports.length ? task.ports.join(", ") : null],
      ["health", task.health && [pill(task.health.state), task.health.reason ? ` ${task.health.reason}` : ""]],
      ["progress", task.progress && [h("progress", { max: 100, value: task.progress.percent }), ` ${task.progress.note}`]],
      ["ended", task.exit && h("span", { class: task.exit.kind === "code" && task.exit.code === 0 ? "" : "warn" }, task.exit.text)],
      ["started again at", task.retry_at_ms && clock(task.retry_at_ms)],
      ["ran for", used && span(used.time_us / 1000)], ["processor time", used?.cpu_us ? span(used.cpu_us / 1000) : null],
      ["fuel", used?.fuel ? short(used.fuel) : null], ["most memory", used && bytes(used.memory_peak_bytes)],
      ["id", h("code", null, task.id)],
    ])));
  }

  /** The steps that are known: those that were told, or of the record where none is kept any more. */
  draw() {
    if (!this.task) return;
    const steps = [...this.steps];
    if (!steps.some((step) => step.kind === "job")) steps.unshift({ at: this.job.submitted_ms, word: "job submitted", kind: "job" });
    const { phase, since_ms: since, attempt, agent } = this.task;
    const last = steps.filter((step) => step.attempt !== undefined).at(-1);
    if (attempt && (last?.word !== phase || last.attempt !== attempt)) steps.push({ at: since, word: phase, kind: phase, attempt, agent });
    if (!attempt) steps.push({ at: since || null, word: "waiting", kind: "waiting" });
    steps.sort((a, b) => (a.at ?? 0) - (b.at ?? 0));
    const line = (step, at) => {
      const next = steps[at + 1]?.at;
      const goes = at === steps.length - 1 && ["running", "waiting", "staging", "starting", "killing", "unreachable"].includes(step.kind);
      const lasted = next && step.at ? span(next - step.at) : goes && step.at ? `for ${span(Date.now() - step.at)}` : "";
      return h("li", { class: `p-${step.kind}` }, h("i", { "aria-hidden": "true" }), h("time", { title: step.at ? moment(step.at) : "" }, step.at ? clock(step.at) : ""), h("span", null, h("b", null, step.word), step.attempt ? h("small", null, ` attempt ${count(step.attempt)}`) : null, step.agent && step.kind === "staging" ? h("small", null, " on ", h("a", { href: `#/agents/${step.agent}` }, agentName(step.agent))) : null), h("span", { class: "lasted" }, lasted));
    };
    const key = steps.map((step) => `${step.at}${step.word}`).join();
    if (key === this.drawn) {
      const list = this.life.querySelectorAll(".lasted");
      const end = steps.at(-1);
      const ends = ["finished", "failed", "killed", "rejected", "lost", "job"].includes(end.kind);
      if (list.length && end.at && !ends) list[list.length - 1].textContent = `for ${span(Date.now() - end.at)}`;
      return;
    }
    this.drawn = key;
    const stays = this.life.scrollTop + this.life.clientHeight < this.life.scrollHeight - 40 && this.life.children.length > 0;
    fill(this.life, steps.map(line));
    if (!stays) this.life.scrollTop = this.life.scrollHeight;
  }
}

customElements.define("skep-task", Task);
