// The cluster at a glance, kept: one stream for all that is shown of it, paused while nobody looks.

import { follow, token } from "./api.js";

/** So many looks are kept for the rates. */
const SAMPLES_MAX = 300;
/** A page that nobody sees is quiet after so long. */
const HIDDEN_MS = 20_000;

/** Hears `whole` (agents came or went), `cells` (`detail`: places of those that changed) and `now` (figures). */
export const live = new EventTarget();

/** What was last told; null until then. */
export const cluster = { now: null, name: "", version: "", racks: [], cells: null, places: null, samples: [], heard: 0 };

let running = null;

function tell(name, detail) {
  live.dispatchEvent(new CustomEvent(name, { detail }));
}

function took(data) {
  const figures = data.figures;
  Object.assign(cluster, { now: { at_ms: data.at_ms, figures, capacity: data.capacity, allocated: data.allocated }, heard: Date.now() });
  const before = cluster.samples.at(-1);
  const sample = { at: data.at_ms, staged: figures.staged_total, ended: figures.ended_total, live: figures.tasks_live, waiting: figures.tasks_waiting };
  // A master that began anew counts anew.
  if (before && (sample.staged < before.staged || sample.ended < before.ended)) cluster.samples.length = 0;
  cluster.samples.push(sample);
  if (cluster.samples.length > SAMPLES_MAX) cluster.samples.shift();
}

function whole(data) {
  const total = data.racks.reduce((sum, rack) => sum + rack.agents, 0);
  const cells = new Uint8Array(4 * total);
  let at = 0;
  const racks = data.racks.map((rack) => {
    const text = atob(rack.cells);
    for (let i = 0; i < text.length; i += 1) cells[4 * at + i] = text.charCodeAt(i);
    const first = at;
    at += rack.agents;
    return { domain: rack.domain, first, agents: rack.agents, ids: rack.ids ?? [], names: rack.names ?? [] };
  });
  Object.assign(cluster, { name: data.cluster, version: data.version, racks, cells });
  took(data);
  tell("whole");
  tell("now");
}

function changes(data) {
  const places = [];
  const view = new DataView(cluster.cells.buffer);
  for (let i = 0; i < data.cells.length; i += 2) {
    view.setUint32(4 * data.cells[i], data.cells[i + 1]);
    places.push(data.cells[i]);
  }
  took(data);
  if (places.length) tell("cells", places);
  tell("now");
}

/** The rack of an agent's place, and its place in that. */
export function rackOf(place) {
  let [low, high] = [0, cluster.racks.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (cluster.racks[middle].first <= place) low = middle;
    else high = middle - 1;
  }
  const rack = cluster.racks[low];
  return { rack, at: place - rack.first };
}

/** What people call an agent, where the cluster is small; else the head of its id. */
export function agentName(id) {
  for (const rack of cluster.racks) {
    const at = rack.ids.indexOf(id);
    if (at >= 0) return rack.names[at];
  }
  return id.slice(0, 8);
}

/** What the four bytes of an agent say. */
export function cellOf(place) {
  const [state, cpu, memory, attempts] = cluster.cells.subarray(4 * place, 4 * place + 4);
  return { state, cpu: cpu / 255, memory: memory / 255, attempts };
}

export const STATES = ["reachable", "unreachable", "expected", "inactive", "draining", "drained"];

/** Begins to listen, where it does not yet and there is a token. */
export function start() {
  if (running || !token() || document.hidden) return;
  running = new AbortController();
  follow("/v1/overview/stream", (name, data) => (name === "whole" ? whole(data) : cluster.cells && changes(data)), running.signal, (error) => {
    if (error.status === 401) stop();
  });
}

export function stop() {
  running?.abort();
  running = null;
}

let hidden = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(stop, HIDDEN_MS);
  else start();
});
