// The cluster at a glance.

import "./map.js";
import "./deploy.js";
import "./chart.js";
import { Part, fill, h, say } from "./dom.js";
import { bytes, cores, count, percent, short } from "./format.js";
import { STATES, cluster, live } from "./live.js";
import { card, choice, empty, head, meter } from "./parts.js";

class Overview extends Part {
  begin() {
    this.tiles = h("div", { class: "tiles", role: "status", "aria-live": "off" });
    this.values = {};
    const tile = (name, label, href) => {
      const [value, sub, bar] = [h("b", null, "–"), h("small"), h("div")];
      this.values[name] = { value, sub, bar };
      this.tiles.append(h("a", { class: "tile", href, id: `tile-${name}` }, h("span", null, label), value, sub, bar));
    };
    tile("agents", "Agents", "#/agents");
    tile("tasks", "Tasks on agents", "#/jobs");
    tile("waiting", "Tasks waiting", "#/jobs");
    tile("cpu", "Cores promised", "#/roles");
    tile("memory", "Memory promised", "#/roles");
    this.map = h("skep-map");
    const metric = choice("coloured by", [["cpu", "Cores"], ["memory", "Memory"], ["tasks", "Tasks"]], "cpu", (name) => this.map.show(name));
    this.attention = h("div");
    this.none = h("div");
    this.replaceChildren(
      head("Overview", "Every agent is a cell; the fuller it is, the stronger its colour."),
      this.tiles,
      this.attention,
      h("skep-deploying"),
      h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", null, "Agents"), legend(), metric), this.map, this.none),
      card("Rates", h("skep-chart")),
    );
    this.listen(live, "now", () => this.show());
    this.show();
  }

  show() {
    if (!cluster.now) return;
    const { figures, capacity, allocated } = cluster.now;
    const set = (name, value, sub, part, label) => {
      const tile = this.values[name];
      say(tile.value, value);
      say(tile.sub, sub);
      if (part !== undefined) fill(tile.bar, meter(part, label));
    };
    set("agents", count(figures.agents_reachable), figures.agents_unreachable ? `${count(figures.agents_unreachable)} cannot be reached` : "all can be reached");
    set("tasks", count(figures.tasks_live), `${count(figures.jobs_live)} jobs live, ${count(figures.tasks_ended)} tasks ended`);
    set("waiting", count(figures.tasks_waiting), figures.tasks_waiting ? "each job says why" : "nothing waits");
    set("cpu", `${few(allocated.cpu_milli)} of ${few(capacity.cpu_milli)}`, percent(allocated.cpu_milli, capacity.cpu_milli), allocated.cpu_milli / (capacity.cpu_milli || 1), "cores promised");
    set("memory", bytes(allocated.memory_bytes), `${percent(allocated.memory_bytes, capacity.memory_bytes)} of ${bytes(capacity.memory_bytes)}`, allocated.memory_bytes / (capacity.memory_bytes || 1), "memory promised");
    this.values.agents.value.parentElement.classList.toggle("bad", figures.agents_unreachable > 0);
    const known = cluster.cells?.length > 0;
    if (known === this.known && figures.jobs_live + figures.jobs_ended > 0 === this.hasJobs) return;
    [this.known, this.hasJobs] = [known, figures.jobs_live + figures.jobs_ended > 0];
    fill(this.none, known ? [] : empty("No agent has joined yet. On a machine that is to run tasks:", "skep agent --to MASTER:7071 --join TOKEN", "skep tokens create --level join"));
    this.map.hidden = !known;
    const first = () => empty("Nothing has been run here yet. In a terminal, or with New job:", "skep run samples/dist/hello.wasm -- world", "skep apply samples/nap.toml", h("a", { class: "button primary", href: "#/new" }, "New job"));
    fill(this.attention, known && !this.hasJobs ? first() : []);
  }
}

const few = (milli) => (milli >= 1e7 ? short(Math.round(milli / 1000)) : cores(milli));

function legend() {
  const one = (name, word) => h("span", null, h("i", { class: `s-${name}`, "aria-hidden": "true" }), word);
  return h("p", { class: "states" }, h("span", null, "0 %", h("i", { class: "ramp", "aria-hidden": "true" }), "100 %"), one("lost", STATES[1]), one("drain", "draining"), one("away", "inactive"));
}

customElements.define("skep-overview", Overview);
