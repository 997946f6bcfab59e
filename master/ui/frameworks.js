// Frameworks that take offers: who they are, what they hold, and why they are offered no more.

import { follow, get, path, post } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { amounts, count } from "./format.js";
import { agentName } from "./live.js";
import { ask, attempt, card, empty, failure, head, pager, phaseBar, pill, table, when } from "./parts.js";

const LIMIT = 50;

class Frameworks extends Part {
  begin() {
    this.after = [null];
    this.table = table("frameworks", [
      ["Framework", "main", (one) => [h("b", null, one.name || one.id), h("small", null, ` ${one.id}`)]],
      ["State", "", (one) => pill(one.connected ? "connected" : "away", one.connected ? "running" : "unreachable")],
      ["Roles", "", (one) => one.roles.join(", ")],
      ["Tasks", "wide", (one) => [phaseBar(one.tasks, one.tasks_total), h("small", null, count(one.tasks_total))]],
      ["Offers held", "num", (one) => count(one.offers)],
      ["Since", "num", (one) => when(one.since_ms)],
    ], (one) => one.id, (one) => `#/frameworks/${one.id}`);
    this.none = h("div");
    this.pager = pager((way) => { way > 0 ? this.after.push(this.next) : this.after.pop(); this.load(); });
    this.replaceChildren(head("Frameworks", "Programs that take offers and place tasks themselves."), h("section", { class: "card flush" }, this.table, this.none), this.pager);
    this.fresh = calmly(1000, () => this.load(), this.ending);
    this.load();
    follow("/v1/events", (name) => ["framework", "tasks", "missed"].includes(name) && this.fresh(), this.ending);
  }

  async load() {
    try {
      const page = await get(path("/v1/frameworks", { limit: LIMIT, after: this.after.at(-1) }), this.ending);
      this.next = page.next;
      this.table.update(page.frameworks);
      this.table.hidden = page.frameworks.length === 0;
      fill(this.none, page.frameworks.length ? [] : empty("No framework has subscribed; jobs need none. To try one:", "python3 samples/frameworks/primes.py 100"));
      this.pager.update("", this.after.length > 1, page.next);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.none, failure(error, () => this.load()));
    }
  }
}

class Framework extends Part {
  begin() {
    [this.top, this.why, this.none] = [h("div"), h("div", { class: "grid" }), h("div")];
    this.after = [""];
    this.table = table("tasks of the framework", [
      ["Task", "main", (task) => h("b", null, task.name)],
      ["State", "", (task) => pill(task.state)],
      ["Agent", "", (task) => h("a", { href: `#/agents/${task.agent}` }, agentName(task.agent))],
      ["Promised", "", (task) => amounts(task.resources)],
      ["Ended as", "", (task) => task.exit?.text ?? "–"],
      ["At", "num", (task) => when(task.at_ms)],
    ], (task) => task.name, (task) => `#/jobs/${task.job}/tasks/0`);
    this.pager = pager((way) => { way > 0 ? this.after.push(this.next) : this.after.pop(); this.load(); });
    this.replaceChildren(this.top, this.why, h("section", { class: "card flush" }, this.table, this.none), this.pager);
    this.fresh = calmly(1000, () => this.load(), this.ending);
    this.load();
    this.every(3000, () => this.fresh());
  }

  async load() {
    try {
      const base = `/v1/frameworks/${encodeURIComponent(this.id0)}`;
      const [why, tasks] = await Promise.all([get(`${base}/explain`, this.ending), get(path(`${base}/tasks`, { limit: LIMIT, after: this.after.at(-1) }), this.ending)]);
      const end = async () => {
        if (await ask(`End ${why.name}?`, h("p", null, "All of its tasks are stopped, and it is forgotten."), "End it", true)) await attempt(() => post(`${base}/teardown`), `${why.name} is being ended`);
      };
      const key = JSON.stringify(why);
      if (key !== this.shown) {
        this.shown = key;
        fill(this.top, head(why.name || why.framework, h("span", null, pill(why.connected ? "connected" : "away", why.connected ? "running" : "unreachable"), ` ${why.text}`), h("button", { type: "button", class: "danger", onclick: end }, "End")));
        fill(this.why, why.roles.map((role) => card(`As ${role.role}`, h("p", null, `${count(role.shown)} of ${count(role.agents)} agents are offered to it; its share is ${(role.role_share_ppm / 10_000).toFixed(1)} %.`), role.closed ? h("p", { class: "warn" }, `offered nothing: ${role.closed}`) : null, h("ul", { class: "reasons" }, Object.entries(role.reasons).map(([reason, agents]) => h("li", null, h("b", null, count(agents)), ` agents: ${reason}`))))),
          why.demand.length ? card("What it wants", h("ul", { class: "reasons" }, why.demand.map((wish) => h("li", null, h("b", null, count(wish.count)), ` × ${amounts(wish.resources)}${wish.constraints.length ? ` where ${wish.constraints.join(", ")}` : ""} (${count(wish.held)} offered)`)))) : null);
      }
      this.next = tasks.next;
      this.table.update(tasks.tasks);
      this.table.hidden = tasks.tasks.length === 0;
      fill(this.none, tasks.tasks.length ? [] : empty("It has no task now."));
      this.pager.update("", this.after.length > 1, tasks.next);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.top, head("Framework"), failure(error, () => this.load()));
    }
  }
}

customElements.define("skep-frameworks", Frameworks);
customElements.define("skep-framework", Framework);
