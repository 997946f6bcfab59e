// One job: its tasks, what they wait for, what it is made of; scaled, edited, restarted, rolled back and stopped from here.

import "./logs.js";
import "./deploy.js";
import { call, follow, get, jobPath, path, post } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { LIVE, PHASES, amounts, brief, bytes, clock, count, lasts, moment, short, span, title } from "./format.js";
import { stand } from "./jobs.js";
import { agentName } from "./live.js";
import { ask, attempt, card, command, failure, facts, field, head, pager, phaseBar, pill, table, toast, when } from "./parts.js";

const LIMIT = 50;

class Job extends Part {
  begin() {
    Object.assign(this, { from: [0], phase: "" });
    this.top = h("div");
    this.why = h("div");
    this.deploy = h("skep-deploy", { job: this.id0, ended: () => this.load() });
    this.table = table("tasks", [
      ["Task", "main", (task) => h("b", null, String(task.index))],
      ["State", "", (task) => [pill(task.phase), task.health ? [" ", pill(task.health.state)] : null]],
      ["Attempt", "num", (task) => (task.attempt ? `#${task.attempt}` : "–")],
      ["Version", "num", (task) => (task.attempt ? `v${task.version}` : "–")],
      ["Agent", "", (task) => (task.agent ? h("a", { href: `#/agents/${task.agent}` }, agentName(task.agent)) : "–")],
      ["Since", "num", (task) => when(task.since_ms)],
      ["How it is", "wide", (task) => tells(task)],
    ], (task) => task.id, (task) => `#/jobs/${this.id0}/tasks/${task.index}`);
    this.pager = pager((way) => {
      if (way > 0 && this.next !== undefined) this.from.push(this.next);
      if (way < 0) this.from.pop();
      this.tasks();
    });
    this.says = h("div");
    const phases = h("select", { "aria-label": "state", onchange: () => {
      this.phase = phases.value;
      this.from = [0];
      this.tasks();
    } }, h("option", { value: "" }, "all states"), h("option", { value: LIVE.join(",") }, "not ended"), PHASES.map((phase) => h("option", { value: phase }, phase)));
    this.log = h("section", { class: "card" });
    this.spec = h("div");
    this.replaceChildren(this.top, this.deploy, this.why, h("section", { class: "card flush" }, h("div", { class: "bar in" }, h("h2", null, "Tasks"), phases), this.table, this.says), this.pager, this.log, this.spec);
    this.fresh = calmly(500, () => this.load(), this.ending);
    this.load();
    follow(path("/v1/events", { job: this.id0 }), () => { this.fresh(); this.deploy.fresh?.(); }, this.ending);
  }

  async load() {
    try {
      this.job = await get(jobPath(this.id0), this.ending);
      this.show();
      await this.tasks();
      await this.explain();
    } catch (error) {
      if (error.name !== "AbortError") fill(this.top, head("Job"), failure(error, () => this.load()));
    }
  }

  show() {
    const job = this.job;
    const stands = stand(job);
    const live = job.state !== "ended";
    const actions = [
      live && job.kind !== "system" && h("button", { type: "button", id: "scale", onclick: () => this.scale() }, "Scale"),
      live && job.name && h("a", { class: "button", id: "edit", href: `#/jobs/${job.id}/edit` }, "Edit"),
      live && lasts(job) && h("button", { type: "button", id: "restart", onclick: () => this.restart() }, "Restart"),
      live && h("button", { type: "button", id: "stop", class: "danger", onclick: () => this.stop() }, "Stop"),
      !live && job.name && h("a", { class: "button", href: `#/jobs/${job.id}/edit` }, "Run again"),
    ];
    const key = JSON.stringify([job, stands]);
    if (key === this.shown) return;
    this.shown = key;
    const focused = this.top.contains(document.activeElement) ? document.activeElement.id : "";
    fill(this.top,
      head(title(job), h("span", null, pill(stands), ` ${job.kind} in role `, h("b", null, job.role), ` · version ${job.version} · submitted `, when(job.submitted_ms), job.restarts ? ` · ${short(job.restarts)} restarts` : ""), actions),
      h("section", { class: "card" }, phaseBar(job.tasks, job.count), h("p", { class: "states" }, PHASES.filter((phase) => job.tasks[phase]).map((phase) => h("span", null, pill(phase), " ", h("b", null, count(job.tasks[phase])))), h("span", { class: "dim" }, job.kind === "system" ? `on ${count(job.count)} ${job.count === 1 ? "agent that matches" : "agents that match"}` : `of ${count(job.count)}`), ["healthy", "unready", "unhealthy"].filter((word) => job.health?.[word]).map((word) => h("span", null, pill(word), " ", h("b", null, count(job.health[word])))))));
    if (focused) this.top.querySelector(`#${focused}`)?.focus();
    this.parts();
    if (!this.log.firstChild) {
      const follows = !lasts(job) || job.count <= 8;
      fill(this.log, h("h2", null, "Output"), follows ? h("skep-logs", { job: job.id }) : h("p", { class: "dim" }, `Of ${count(job.count)} tasks of a service the output is read one by one: open a task, or type `, command(`skep logs ${title(job)}`)));
    }
  }

  parts() {
    const { spec } = this.job;
    const member = (one) => card(one.name ? `Program ${one.name}` : "Program", facts([
      ["kind", one.kind], ["bundle", h("code", { title: one.bundle }, brief(one.bundle))], ["command", one.process?.command.join(" ")], ["arguments", one.args.length ? h("code", null, one.args.join(" ")) : null],
      ["environment", Object.keys(one.env).length ? Object.entries(one.env).map(([name, value]) => h("div", null, h("code", null, `${name}=${value}`))) : null],
      ["config", Object.keys(one.config).length ? Object.entries(one.config).map(([name, value]) => h("div", null, h("code", null, `${name} = ${value}`))) : null],
      ["promised", amounts(one.resources)], ["ports", one.ports.join(", ")], ["health", checks(one.health, true)], ["readiness", checks(one.readiness, false)], ["network", one.process?.network],
      ["ends at", [one.limits.fuel_max && `${short(one.limits.fuel_max)} fuel`, one.limits.time_ms_max && `${span(one.limits.time_ms_max)}`, one.limits.cpu_time_ms_max && `${span(one.limits.cpu_time_ms_max)} of processor time`, `${bytes(one.limits.memory_bytes_max)} of memory`].filter(Boolean).join(" · ")],
    ]));
    const restart = spec.restart;
    fill(this.spec, h("div", { class: "grid" }, spec.tasks.map(member), card("Rules", facts([
      ["id", h("code", null, this.job.id)], ["priority", String(this.job.priority)], ["restart", `${restart.policy}${restart.retries_max === null ? "" : `, ${restart.retries_max} times at most`}`],
      ["backoff", restart.policy === "never" ? null : `${span(restart.backoff_first_ms)} × ${restart.backoff_factor_milli / 1000}, at most ${span(restart.backoff_max_ms)}`],
      ["replaced at a time", spec.update_parallel > 1_000_000 ? null : String(spec.update_parallel)], ["rollout", rollout(spec.update)], ["begins after", spec.after?.join(", ")], ["fenced", spec.fenced ? "never two alive at once" : null],
      ["constraints", spec.place?.constraints.map((one) => h("div", null, h("code", null, one.join(" "))))], ["spread over", spec.place?.spread.join(", ")],
    ]))));
  }

  async tasks() {
    const asked = (this.asked = {});
    try {
      const page = await get(path(jobPath(this.id0, "/tasks"), { from: this.from.at(-1), limit: LIMIT, phase: this.phase }), this.ending);
      if (asked !== this.asked) return;
      this.next = page.next;
      this.table.update(page.tasks);
      fill(this.says, page.tasks.length ? [] : h("p", { class: "empty" }, this.phase ? "No task is in that state." : "It has no task."));
      const words = page.tasks.length ? `${count(page.tasks.length)} of ${count(this.job.count)} ${this.job.count === 1 ? "task" : "tasks"}${page.tasks[0].index ? `, from ${count(page.tasks[0].index)} on` : ""}` : "";
      this.pager.update(words, this.from.length > 1, page.next !== undefined && (this.job.kind === "system" || page.tasks.at(-1)?.index + 1 < this.job.count));
    } catch (error) {
      if (error.name !== "AbortError") fill(this.says, failure(error, () => this.tasks()));
    }
  }

  async explain() {
    if (!this.job.tasks.waiting || this.job.state === "ended") return fill(this.why);
    fill(this.why, await reasons(this.id0, undefined, this.ending));
  }

  async scale() {
    const input = h("input", { type: "number", name: "count", min: "0", max: "10000000", value: String(this.job.count), required: true });
    if (!(await ask(`Scale ${title(this.job)}`, field("How many tasks", input, `${this.job.count} now`), "Scale"))) return;
    await attempt(() => post(jobPath(this.id0, "/scale"), { count: Number(input.value) }), `${title(this.job)} is to have ${count(Number(input.value))} tasks`);
    this.load();
  }

  async stop() {
    const grace = h("input", { type: "number", name: "grace", min: "0", max: "3600", value: "5" });
    const body = [h("p", null, `Its ${count(this.job.count)} tasks are asked to end, and ended by force after:`), field("Seconds", grace)];
    if (!(await ask(`Stop ${title(this.job)}?`, body, "Stop", true))) return;
    await attempt(() => post(jobPath(this.id0, "/stop"), { grace_ms: Math.round(Number(grace.value) * 1000) }), `${title(this.job)} is being stopped`);
    this.load();
  }

  async restart() {
    if (!(await ask(`Restart ${title(this.job)}?`, h("p", null, "Its tasks are replaced, as many at a time as its update rules say."), "Restart"))) return;
    try {
      await call("POST", jobPath(this.id0, "/restart"), { body: "{}", type: "application/json" });
      toast(`${title(this.job)} is being restarted`);
    } catch (error) {
      toast(error.isUnknownPath ? "this master cannot restart jobs yet: edit it, which replaces its tasks" : error.message, true);
    }
    this.load();
  }
}

/** What a task did or waits for, in a few words. */
export function tells(task) {
  if (task.exit) return h("span", { class: task.exit.kind === "code" && task.exit.code === 0 ? "" : "warn" }, task.exit.text, task.retry_at_ms ? h("small", { title: moment(task.retry_at_ms) }, ` · again at ${clock(task.retry_at_ms)}`) : null);
  if (task.health?.reason) return h("span", { class: "warn" }, task.health.reason);
  if (task.progress) return [h("progress", { max: 100, value: task.progress.percent }), ` ${task.progress.note}`];
  if (task.ports.length) return h("small", null, `ports ${task.ports.join(", ")}`);
  return task.phase === "waiting" ? "waits for a place" : "";
}

/** How the tasks of a service are replaced. */
function rollout(update) {
  if (!update) return null;
  const parts = [update.strategy, update.canary ? `${count(update.canary)} first` : null, update.min_healthy_milli !== null ? `at least ${update.min_healthy_milli / 10} % at work` : null, update.max_over_milli ? `${update.max_over_milli / 10} % over` : null, `within ${span(update.deadline_ms)}`, update.auto_rollback ? "back by itself where it fails" : "stays where it fails"];
  return parts.filter(Boolean).join(" · ");
}

/** What is asked of a task, how often, and, where that ends it, when it is given up. */
function checks(check, ends) {
  if (!check) return null;
  const what = check.path ?? check.export ?? (check.command?.length ? check.command.join(" ") : "");
  return `${check.kind} ${what}${check.port ? ` at port ${check.port}` : ""} · every ${span(check.every_ms)}${ends ? `, ${check.failures} failures end it` : ""}`;
}

/** Why an agent is none for a task, as the end of a sentence. */
function lack(reason) {
  if (reason === "unreachable") return "cannot be reached";
  if (reason.startsWith("place: ")) return `are kept from it by ${reason.slice(7)}`;
  if (reason.startsWith("single: ")) return `have no single ${reason.slice(8)} with so much free`;
  return `lack ${reason}`;
}

/** Why tasks wait, with the smallest change that would mend it. */
export async function reasons(job, index, signal) {
  try {
    const why = await get(path(jobPath(job, "/explain"), { index }), signal);
    const short = Object.entries(why.fit.short).sort((a, b) => b[1] - a[1]);
    return card("Why it waits", h("p", null, why.text),
      why.agents?.length ? h("ul", { class: "reasons" }, why.agents.map((one) => h("li", null, h("a", { href: `#/agents/${one.agent}` }, one.name), ` ${one.why}`))) : null,
      short.length ? h("ul", { class: "reasons" }, short.map(([reason, agents]) => h("li", null, h("b", null, `${count(agents)} of ${count(why.fit.agents)}`), ` agents ${lack(reason)}`))) : null,
      why.fit.change ? h("p", { class: "help" }, h("b", null, "would fit "), why.fit.change) : null,
      why.retry_at_ms ? h("p", { class: "dim" }, `The next is started again at ${clock(why.retry_at_ms)}.`) : null);
  } catch (error) {
    return error.name === "AbortError" ? null : failure(error);
  }
}

customElements.define("skep-job", Job);
