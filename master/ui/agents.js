// Machines: all of them a page at a time, and each with what it has and is promised.

import { call, follow, get, path, post } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { bytes, cores, count } from "./format.js";
import { ask, attempt, card, empty, failure, facts, field, filter, head, meter, pager, pill, table, when } from "./parts.js";

const LIMIT = 50;

const where = (agent) => [agent.domain.region, agent.domain.zone, agent.domain.rack].filter(Boolean).join(" / ");
const standing = (agent) => (agent.state === "reachable" && agent.mode !== "active" ? agent.mode : agent.state);
const use = (agent, kind, label) => meter(agent.allocated[kind] / (agent.capacity[kind] || 1), label);

class Agents extends Part {
  begin() {
    Object.assign(this, { skip: 0, match: "" });
    this.table = table("agents", [
      ["Agent", "main", (agent) => [h("b", null, agent.name), h("small", null, ` ${agent.id.slice(0, 8)}`)]],
      ["State", "", (agent) => pill(standing(agent))],
      ["Where", "", (agent) => where(agent) || "–"],
      ["Cores", "wide", (agent) => [use(agent, "cpu_milli", "cores"), h("small", null, `${cores(agent.allocated.cpu_milli)} of ${cores(agent.capacity.cpu_milli)}`)]],
      ["Memory", "wide", (agent) => [use(agent, "memory_bytes", "memory"), h("small", null, `${bytes(agent.allocated.memory_bytes)} of ${bytes(agent.capacity.memory_bytes)}`)]],
      ["Tasks", "num", (agent) => count(agent.attempts)],
    ], (agent) => agent.id, (agent) => `#/agents/${agent.id}`);
    this.pager = pager((way) => { this.skip = Math.max(0, this.skip + way * LIMIT); this.load(); });
    this.none = h("div");
    this.replaceChildren(head("Agents"), h("div", { class: "bar" }, filter("Filter by name, id, place or state", (text) => { Object.assign(this, { match: text, skip: 0 }); this.load(); })), h("section", { class: "card flush" }, this.table, this.none), this.pager);
    this.fresh = calmly(2000, () => this.load(), this.ending);
    this.load();
    follow("/v1/events", (name) => ["agent", "tasks", "missed"].includes(name) && this.fresh(), this.ending);
  }

  async load() {
    const asked = (this.asked = {});
    try {
      const page = await get(path("/v1/agents", { limit: LIMIT, skip: this.skip || null, match: this.match }), this.ending);
      if (asked !== this.asked) return;
      // When it was last heard of changes all the time, and is not shown here.
      this.table.update(page.agents.map((agent) => ({ ...agent, heard_ms: 0 })));
      this.table.hidden = page.agents.length === 0;
      const nothing = () => (this.match ? empty(`No agent has “${this.match}” in its name, id, place or state.`) : empty("No agent has joined yet. On a machine that is to run tasks:", "skep agent --to MASTER:7071 --join TOKEN", "skep tokens create --level join"));
      fill(this.none, page.agents.length ? [] : nothing());
      const words = page.agents.length ? `${count(this.skip + 1)} to ${count(this.skip + page.agents.length)} of ${count(page.total)}` : "";
      this.pager.update(words, this.skip > 0, this.skip + LIMIT < page.total);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.none, failure(error, () => this.load()));
    }
  }
}

class Agent extends Part {
  begin() {
    [this.top, this.body] = [h("div"), h("div", { class: "grid" })];
    this.news = h("ol", { class: "life", "aria-label": "what happened here since this page is open" });
    this.table = table("tasks of the agent", [
      ["Task", "main", (task) => [h("b", null, `${task.title}.${task.index}`), h("small", null, ` #${task.attempt}`)]],
      ["State", "", (task) => pill(task.phase)],
      ["Role", "", (task) => task.role],
      ["Since", "num", (task) => when(task.since_ms)],
      ["Ports", "", (task) => task.ports.join(", ") || "–"],
    ], (task) => task.id, (task) => `#/jobs/${task.job}/tasks/${task.index}`);
    this.pager = pager((way) => { this.skip = Math.max(0, this.skip + way * LIMIT); this.tasks(); });
    this.skip = 0;
    this.none = h("div");
    this.replaceChildren(this.top, this.body, h("section", { class: "card flush" }, h("div", { class: "bar in" }, h("h2", null, "Tasks here")), this.table, this.none), this.pager, card("What happens here", this.news, h("p", { class: "dim" }, "Changes of state of this agent and of its tasks, as they come.")));
    this.fresh = calmly(1000, () => this.load(), this.ending);
    this.load();
    follow("/v1/events", (name, event) => this.hear(name, event), this.ending);
    this.every(5000, () => this.load());
  }

  hear(name, event) {
    if (name === "agent" && event.agent === this.id0) this.tell(event.at_ms, event.what, event.what);
    if (name === "tasks") for (const one of event.attempts) if (one.agent === this.id0) this.tell(event.at_ms, event.phase, event.phase, one.attempt);
    if (name === "missed") this.fresh();
  }

  tell(at, word, kind, attempt) {
    const task = attempt?.split("#")[0];
    const [job, index] = task?.split(".") ?? [];
    this.news.prepend(h("li", { class: `p-${kind}` }, h("i", { "aria-hidden": "true" }), when(at), h("span", null, h("b", null, word), task ? [" ", h("a", { href: `#/jobs/${job}/tasks/${index}` }, attempt)] : null)));
    while (this.news.children.length > 50) this.news.lastChild.remove();
    this.fresh();
  }

  async load() {
    try {
      this.agent = await get(`/v1/agents/${this.id0}`, this.ending);
      this.show();
      await this.tasks();
    } catch (error) {
      if (error.name !== "AbortError") fill(this.top, head("Agent"), failure(error, () => this.load()));
    }
  }

  async tasks() {
    const page = await get(path(`/v1/agents/${this.id0}/tasks`, { limit: LIMIT, skip: this.skip || null }), this.ending).catch((error) => {
      // One that is gone has none.
      if (error.status === 404) return { tasks: [], total: 0 };
      throw error;
    });
    this.table.update(page.tasks);
    this.table.hidden = page.tasks.length === 0;
    fill(this.none, page.tasks.length ? [] : empty("No task is here."));
    const words = page.total > LIMIT ? `${count(this.skip + 1)} to ${count(Math.min(this.skip + LIMIT, page.total))} of ${count(page.total)}` : "";
    this.pager.update(words, this.skip > 0, this.skip + LIMIT < page.total);
  }

  show() {
    const { agent } = this;
    const key = JSON.stringify({ ...agent, heard_ms: 0 });
    if (key === this.shown) return;
    this.shown = key;
    const active = agent.mode === "active";
    const act = (name, word, body, danger) => async () => {
      if (await ask(`${word} ${agent.name}?`, body, word, danger)) await attempt(() => post(`/v1/agents/${this.id0}/${name}`), `${agent.name}: ${name}`);
      this.load();
    };
    const actions = agent.state === "gone" ? [] : [
      active && h("button", { type: "button", id: "drain", onclick: act("drain", "Drain", h("p", null, "It is given no tasks; those of services go elsewhere at once, those of batch jobs have ten minutes to end.")) }, "Drain"),
      !active && h("button", { type: "button", id: "resume", onclick: act("resume", "Resume", h("p", null, "It is given tasks again.")) }, "Resume"),
      agent.state === "unreachable" && h("button", { type: "button", class: "danger", onclick: act("gone", "Give up", h("p", null, "It never comes back: its tasks are replaced at once, and it is let in no more."), true) }, "Give up"),
    ];
    const focused = this.top.contains(document.activeElement);
    fill(this.top, head(agent.name, h("span", null, pill(standing(agent)), ` ${where(agent) || "stands nowhere that it says"} · skep ${agent.version}`), actions));
    if (focused) this.top.querySelector("button")?.focus();
    const bar = (label, kind, text) => h("div", { class: "use" }, h("span", null, label), meter(agent.allocated[kind] / (agent.capacity[kind] || 1), label), h("small", null, `${text(agent.allocated[kind])} of ${text(agent.capacity[kind])}`));
    const devices = Object.entries(agent.devices_free_milli ?? {});
    fill(this.body,
      card("Promised", bar("cores", "cpu_milli", cores), bar("memory", "memory_bytes", bytes), bar("disk", "disk_bytes", bytes), bar("ports", "ports", count), h("p", null, h("b", null, count(agent.attempts)), " tasks are on it."),
        devices.map(([kind, free]) => h("p", null, `${kind}: `, free.map((one, at) => h("span", { class: "device" }, `${at}: ${one / 10} % free`))))),
      card("Facts", facts([["id", h("code", null, agent.id)], ...Object.entries(agent.attributes).map(([name, value]) => [name, value])]), this.label()),
      agent.weaknesses.length ? card("What it lacks", h("ul", { class: "reasons" }, agent.weaknesses.map((one) => h("li", null, one)))) : null);
  }

  /** An attribute more, or another value of one. */
  label() {
    const change = async () => {
      const [name, value] = [h("input", { name: "name", required: true, pattern: "[A-Za-z0-9._-]+" }), h("input", { name: "value" })];
      const body = [field("Attribute", name, "such as disk"), field("Value", value, "empty: it has none of that name any more")];
      if (!(await ask(`Label ${this.agent.name}`, body, "Label"))) return;
      const attributes = { [name.value]: value.value === "" ? null : value.value };
      await attempt(() => call("PATCH", `/v1/agents/${this.id0}`, { body: JSON.stringify({ attributes }), type: "application/json" }), `${this.agent.name} is labelled`);
      this.load();
    };
    return this.agent.state === "reachable" ? h("button", { type: "button", onclick: change }, "Label") : null;
  }
}

customElements.define("skep-agents", Agents);
customElements.define("skep-agent", Agent);
