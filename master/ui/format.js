// Amounts, times and states as people read them.

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(amount) {
  let [value, at] = [Number(amount), 0];
  while (value >= 1024 && at < SIZES.length - 1) [value, at] = [value / 1024, at + 1];
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${SIZES[at]}`;
}

export function cores(milli) {
  const value = milli / 1000;
  return value >= 100 ? count(Math.round(value)) : String(Number(value.toFixed(value >= 10 ? 1 : 2)));
}

/** Digits in groups of three, with thin spaces. */
export function count(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function short(number) {
  const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]];
  for (const [size, unit] of units) {
    if (number >= size) return `${Number((number / (unit === "k" ? 1e3 : size)).toFixed(1))}${unit}`;
  }
  return count(number);
}

export function percent(part, all) {
  if (!all) return "0 %";
  const value = (100 * part) / all;
  return value > 0 && value < 1 ? "<1 %" : `${Math.round(value)} %`;
}

export function span(ms) {
  if (ms < 0) return "0 s";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(ms, now = Date.now()) {
  const passed = now - ms;
  if (passed < 2000) return "just now";
  if (passed < 60_000) return `${Math.floor(passed / 1000)} s ago`;
  if (passed < 3_600_000) return `${Math.floor(passed / 60_000)} min ago`;
  if (passed < 172_800_000) return `${Math.floor(passed / 3_600_000)} h ago`;
  return `${Math.floor(passed / 86_400_000)} d ago`;
}

export function clock(ms) {
  const time = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function moment(ms) {
  return new Date(ms).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** The states of tasks in the order of a life, as they are drawn. */
export const PHASES = [
  "running", "starting", "staging", "waiting", "killing", "unreachable", "failed", "rejected", "lost", "killed", "finished",
];

export const LIVE = ["waiting", "staging", "starting", "running", "killing", "unreachable"];

/** What a job needs: cores, memory and so on, of an amount of the API. */
export function amounts(amount) {
  const parts = [];
  if (amount.cpu_milli) parts.push(`${cores(amount.cpu_milli)} cores`);
  if (amount.memory_bytes) parts.push(bytes(amount.memory_bytes));
  if (amount.disk_bytes) parts.push(`${bytes(amount.disk_bytes)} disk`);
  if (amount.ports) parts.push(`${count(amount.ports)} ports`);
  for (const [kind, milli] of Object.entries(amount.devices_milli ?? {})) parts.push(`${cores(milli)} ${kind}`);
  if (amount.revocable) parts.push("revocable");
  return parts.join(" · ") || "nothing";
}

/** Whether a job's tasks are kept running until it is stopped. */
export const lasts = (job) => job.kind === "service" || job.kind === "system";

/** How people call a job. */
export function title(job) {
  return job.name ?? job.id;
}

/** A digest that fits on a line. */
export function brief(digest) {
  return String(digest ?? "").replace(/^sha256:(.{12}).*$/, "sha256:$1…");
}
