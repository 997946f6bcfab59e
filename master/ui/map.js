// All agents as one picture: a cell each, rack by rack, coloured by what of it is promised. Drawn on a canvas; of what changes only the cells that do.

import { get, path } from "./api.js";
import { Part, calmly, clean, fill, h } from "./dom.js";
import { bytes, cores, count } from "./format.js";
import { STATES, cellOf, cluster, live, rackOf } from "./live.js";

/** Steps of the scale of use. */
const STEPS = 12;
const [CELL_MIN, CELL_MAX, LABEL] = [6, 96, 18];
/** From this size on, a cell has its agent's name in it. */
const NAME_FROM = 60;
/** From this size on, cells are hexagons; below, squares: nobody sees the difference, and they are drawn faster. */
const HEX_FROM = 10;

class AgentMap extends Part {
  metric = "cpu";

  begin() {
    this.canvas = h("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "map of agents", "aria-describedby": "map-says" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.says = h("p", { id: "map-says", class: "quiet", "aria-live": "polite" });
    this.replaceChildren(this.canvas, this.tip, this.says);
    this.at = -1;
    this.redraw = calmly(100, () => this.draw(), this.ending);
    this.lookup = calmly(120, () => this.name(), this.ending);
    this.listen(live, "whole", () => { this.places = null; this.redraw(); });
    this.listen(live, "cells", (event) => this.some(event.detail));
    this.listen(this.canvas, "pointermove", (event) => this.point(this.find(event)));
    this.listen(this.canvas, "pointerleave", () => this.point(-1));
    this.listen(this.canvas, "click", (event) => this.open(this.find(event)));
    this.listen(this.canvas, "keydown", (event) => this.key(event));
    this.listen(this.canvas, "blur", () => this.point(-1));
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", () => this.repaint());
    this.listen(document, "skep-theme", () => this.repaint());
    const observer = new ResizeObserver(() => { this.places = null; this.redraw(); });
    observer.observe(this);
    this.ending.addEventListener("abort", () => observer.disconnect(), { once: true });
    this.redraw();
  }

  show(metric) {
    this.metric = metric;
    this.redraw();
  }

  repaint() {
    this.colours = null;
    this.redraw();
  }

  /** Where each cell is: racks as blocks side by side, of the largest cells with which all of them are at most so high. */
  lay() {
    const wide = Math.max(this.clientWidth, 200);
    const total = cluster.cells.length / 4;
    const room = Math.max(240, Math.min(window.innerHeight * (total > 1000 ? 0.62 : 0.4), 620));
    let size = total <= 60 ? CELL_MAX : 36;
    let placed = this.blocks(size, wide);
    while (size > CELL_MIN && placed.high > room) {
      size = Math.max(CELL_MIN, size > 16 ? size - 2 : size - 1);
      placed = this.blocks(size, wide);
    }
    const xs = new Float32Array(total);
    const ys = new Float32Array(total);
    for (const { rack, x, y, columns } of placed.blocks) {
      for (let at = 0; at < rack.agents; at += 1) {
        const row = Math.floor(at / columns);
        xs[rack.first + at] = x + (at % columns) * size + (size >= HEX_FROM && row % 2 ? size / 2 : 0);
        ys[rack.first + at] = y + row * this.rise(size);
      }
    }
    this.places = { xs, ys, size, high: placed.high, wide, blocks: placed.blocks };
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(wide * scale);
    this.canvas.height = Math.round(placed.high * scale);
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${placed.high}px`;
    this.pen = this.canvas.getContext("2d", { alpha: true });
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
  }

  rise(size) {
    return size >= HEX_FROM ? size * 0.87 : size;
  }

  blocks(size, wide) {
    const blocks = [];
    const labelled = cluster.racks.length > 1 || cluster.racks[0]?.domain !== "//";
    const above = labelled ? LABEL : 2;
    const gap = size < HEX_FROM ? 9 : 16;
    let [x, y, row] = [0, 0, 0];
    for (const rack of cluster.racks) {
      const most = Math.max(1, Math.floor((wide - size) / size));
      const columns = Math.min(most, Math.max(labelled ? Math.ceil(42 / size) : 1, Math.ceil(Math.sqrt(rack.agents * (cluster.racks.length === 1 ? 6 : 1.6)))));
      const high = above + Math.ceil(rack.agents / columns) * this.rise(size) + size * 0.3;
      const broad = columns * size + size / 2;
      if (x > 0 && x + broad > wide) [x, y, row] = [0, y + row + gap, 0];
      blocks.push({ rack, x, y: y + above, columns, broad, high: high - above });
      [x, row] = [x + broad + gap, Math.max(row, high)];
    }
    return { blocks, high: Math.ceil(y + row + 2) };
  }

  paint() {
    const css = getComputedStyle(this);
    const of = (name) => css.getPropertyValue(name).trim();
    const [low, high] = [rgb(of("--use-low")), rgb(of("--use-high"))];
    const mix = (at) => low.map((part, i) => Math.round(part + (high[i] - part) * at));
    const use = Array.from({ length: STEPS + 1 }, (_, step) => `rgb(${mix(step / STEPS).join(" ")})`);
    this.colours = { use, lost: of("--lost"), away: of("--away"), drain: of("--drain"), ink: of("--ink"), dim: of("--dim"), line: of("--line"), focus: of("--focus"), paper: of("--paper"), over: of("--over") };
  }

  draw() {
    if (!cluster.cells || !this.isConnected) return;
    if (!this.places) this.lay();
    if (!this.colours) this.paint();
    this.pen.clearRect(0, 0, this.places.wide, this.places.high);
    this.labels();
    this.cells(Array.from({ length: cluster.cells.length / 4 }, (_, place) => place));
    this.names();
    this.cursor();
    const racks = cluster.racks.length;
    this.canvas.setAttribute("aria-label", `${count(cluster.cells.length / 4)} agents in ${count(racks)} ${racks === 1 ? "rack" : "racks"}; arrow keys go from one to the next, Enter opens it`);
  }

  labels() {
    const { blocks } = this.places;
    if (blocks.length === 1 && blocks[0].rack.domain === "//") return;
    this.pen.font = `11px ${getComputedStyle(this).fontFamily}`;
    this.pen.fillStyle = this.colours.dim;
    for (const { rack, x, y, broad } of blocks) {
      const parts = clean(rack.domain).split("/");
      const full = parts.filter(Boolean).join(" / ") || "no rack";
      const brief = parts.slice(2).filter(Boolean).join("/") || full;
      const text = this.pen.measureText(full).width <= broad ? full : brief;
      this.pen.fillText(cut(this.pen, text, broad), x, y - 6);
    }
  }

  /** Names in cells that have room for them. */
  names() {
    const { xs, ys, size, blocks } = this.places;
    if (size < NAME_FROM) return;
    this.pen.textAlign = "center";
    for (const { rack } of blocks) {
      rack.names.forEach((name, at) => {
        const place = rack.first + at;
        const { state, attempts, ...parts } = cellOf(place);
        const part = this.metric === "tasks" ? Math.min(attempts / 64, 1) : parts[this.metric];
        this.pen.fillStyle = state !== 0 || part > 0.5 ? this.colours.over : this.colours.ink;
        const [x, y] = [xs[place] + size / 2, ys[place] + size / 2 + size * 0.06];
        this.pen.font = `600 12px ${getComputedStyle(this).fontFamily}`;
        this.pen.fillText(cut(this.pen, clean(name), size * 0.8), x, y + (state === 0 ? 0 : -size * 0.2));
        this.pen.font = `11px ${getComputedStyle(this).fontFamily}`;
        if (state === 0) this.pen.fillText(this.metric === "tasks" ? `${attempts} tasks` : `${Math.round(part * 100)} %`, x, y + 15);
      });
    }
    this.pen.textAlign = "start";
  }

  /** Draws these cells, colour by colour. */
  cells(places) {
    const groups = new Map();
    for (const place of places) {
      const { state, ...parts } = cellOf(place);
      const part = this.metric === "tasks" ? Math.min(parts.attempts / 64, 1) : parts[this.metric];
      const key = state === 0 ? Math.ceil(part * STEPS) : -state;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(place);
    }
    for (const [key, group] of groups) {
      const colour = key >= 0 ? this.colours.use[key] : { 1: this.colours.lost, 2: this.colours.away, 3: this.colours.away }[-key] ?? this.colours.drain;
      this.pen.fillStyle = colour;
      this.pen.beginPath();
      group.forEach((place) => this.outline(place));
      this.pen.fill();
      if (key < 0) this.marks(group, -key);
    }
  }

  outline(place) {
    const { xs, ys, size } = this.places;
    const [x, y] = [xs[place], ys[place]];
    if (size < HEX_FROM) {
      this.pen.rect(x, y, size - 1, size - 1);
      return;
    }
    const r = size * 0.53;
    const [cx, cy] = [x + size / 2, y + size / 2 + size * 0.06];
    const half = r * 0.866;
    this.pen.moveTo(cx, cy - r);
    this.pen.lineTo(cx + half, cy - r / 2);
    this.pen.lineTo(cx + half, cy + r / 2);
    this.pen.lineTo(cx, cy + r);
    this.pen.lineTo(cx - half, cy + r / 2);
    this.pen.lineTo(cx - half, cy - r / 2);
    this.pen.closePath();
  }

  /** A shape for each state beside the colour: a cross for who cannot be reached, a bar for who is given nothing. */
  marks(group, state) {
    const { xs, ys, size } = this.places;
    this.pen.strokeStyle = this.colours.paper;
    this.pen.lineWidth = Math.max(1, size / 9);
    this.pen.beginPath();
    for (const place of group) {
      const [x, y, q] = [xs[place] + size / 2 - 0.5, ys[place] + size / 2 + (size >= HEX_FROM ? size * 0.06 : -0.5), size / 5];
      if (state === 1) {
        this.pen.moveTo(x - q, y - q);
        this.pen.lineTo(x + q, y + q);
        this.pen.moveTo(x + q, y - q);
      } else this.pen.moveTo(x + q, y);
      this.pen.lineTo(x - q, state === 1 ? y + q : y);
    }
    this.pen.stroke();
  }

  some(places) {
    if (!this.places || !this.colours || places.length > 2000) return this.redraw();
    const { xs, ys, size } = this.places;
    // The edges of neighbours are drawn softly into each other: a cell is drawn over itself, larger changes anew.
    if (size >= HEX_FROM) return this.redraw();
    for (const place of places) this.pen.clearRect(xs[place], ys[place], size, size);
    this.cells(places);
    this.cursor();
  }

  cursor() {
    if (this.at < 0 || this.at >= cluster.cells.length / 4) return;
    this.pen.strokeStyle = this.colours.focus;
    this.pen.lineWidth = 2;
    this.pen.beginPath();
    this.outline(this.at);
    this.pen.stroke();
  }

  find(event) {
    if (!this.places) return -1;
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { size, blocks } = this.places;
    const block = blocks.find((one) => x >= one.x && x <= one.x + one.broad && y >= one.y && y <= one.y + one.high);
    if (!block) return -1;
    const row = Math.floor((y - block.y) / this.rise(size));
    const column = Math.floor((x - block.x - (size >= HEX_FROM && row % 2 ? size / 2 : 0)) / size);
    const at = row * block.columns + column;
    return column >= 0 && column < block.columns && at < block.rack.agents ? block.rack.first + at : -1;
  }

  point(place) {
    if (place === this.at) return;
    this.at = place;
    this.known = null;
    this.tip.hidden = place < 0;
    this.redraw();
    if (place < 0) return;
    const { xs, ys, size } = this.places;
    const right = xs[place] > this.clientWidth / 2;
    this.tip.style.top = `${ys[place] + size + 6}px`;
    this.tip.style.left = right ? "auto" : `${xs[place]}px`;
    this.tip.style.right = right ? `${this.clientWidth - xs[place] - size}px` : "auto";
    this.describe(null);
    this.lookup();
  }

  describe(agent) {
    const { rack, at } = rackOf(this.at);
    const { state, cpu, memory, attempts } = cellOf(this.at);
    const name = agent?.name ?? rack.names[at] ?? "agent";
    const used = agent
      ? [`${cores(agent.allocated.cpu_milli)} of ${cores(agent.capacity.cpu_milli)} cores`, `${bytes(agent.allocated.memory_bytes)} of ${bytes(agent.capacity.memory_bytes)}`, `${count(agent.attempts)} tasks`]
      : [`${Math.round(cpu * 100)} % of cores`, `${Math.round(memory * 100)} % of memory`, `${attempts === 255 ? "255 or more" : attempts} tasks`];
    const word = agent && agent.mode !== "active" ? `${agent.state}, ${agent.mode}` : agent?.state ?? STATES[state];
    fill(this.tip, h("b", null, name), h("span", { class: "dim" }, ` ${word}`), used.map((text) => h("div", null, text)), h("div", { class: "dim" }, rack.domain.split("/").filter(Boolean).join(" / ")));
    if (document.activeElement === this.canvas) fill(this.says, `${name}, ${word}, ${used.join(", ")}`);
  }

  /** The agent at the cursor, by asking for it: the picture has no names of thousands. */
  async agent(place) {
    const { rack, at } = rackOf(place);
    const found = await get(path("/v1/agents", { domain: rack.domain, skip: at, limit: 1 }), this.ending);
    return found.agents[0];
  }

  async name() {
    const place = this.at;
    if (place < 0) return;
    const agent = await this.agent(place).catch(() => null);
    if (agent && place === this.at) this.describe(agent);
  }

  async open(place) {
    if (place < 0) return;
    const { rack, at } = rackOf(place);
    const id = rack.ids[at] ?? (await this.agent(place).catch(() => null))?.id;
    if (id) location.hash = `#/agents/${id}`;
  }

  key(event) {
    const total = (cluster.cells?.length ?? 0) / 4;
    if (!total || !this.places) return;
    const { blocks } = this.places;
    const at = Math.max(this.at, 0);
    const columns = blocks.find(({ rack }) => at >= rack.first && at < rack.first + rack.agents)?.columns ?? 1;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -total, End: total };
    if (event.key === "Enter" && this.at >= 0) this.open(this.at);
    else if (event.key in steps) this.point(this.at < 0 ? 0 : Math.min(total - 1, Math.max(0, this.at + steps[event.key])));
    else return;
    event.preventDefault();
  }
}

function cut(pen, text, wide) {
  if (pen.measureText(text).width <= wide) return text;
  let short = text;
  while (short.length > 1 && pen.measureText(`${short}…`).width > wide) short = short.slice(0, -1);
  return `${short}…`;
}

function rgb(text) {
  const hex = text.replace("#", "");
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) || 0);
}

customElements.define("skep-map", AgentMap);
