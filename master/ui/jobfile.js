// A job as the API shows it, written as the job file that it could have been; defaults are left out.

/** What this page knows how to write; of anything else it says so. */
const KNOWN = {
  spec: ["tasks", "resources", "restart", "update_parallel", "update", "after", "fenced", "place"],
  member: ["name", "kind", "bundle", "metering", "strict", "file", "process", "args", "env", "config", "stdin", "resources", "ports", "limits", "health", "readiness"],
  check: ["kind", "port", "path", "command", "export", "delay_ms", "ignore_1xx", "grace_ms", "every_ms", "timeout_ms", "failures"],
  update: ["strategy", "min_healthy_milli", "max_over_milli", "canary", "deadline_ms", "auto_rollback", "failures_max", "settle_ms"],
  process: ["command", "user", "dir", "network", "mounts", "stop_signal"],
  resources: ["cpu_milli", "memory_bytes", "disk_bytes", "ports", "devices_milli", "revocable"],
  limits: ["fuel_max", "cpu_time_ms_max", "time_ms_max", "memory_bytes_max", "table_elements_max", "host_bytes_max", "processes_max", "log_bytes_max", "log_bytes_per_s_max"],
  restart: ["policy", "retries_max", "backoff_first_ms", "backoff_factor_milli", "backoff_max_ms"],
  place: ["constraints", "spread"],
};

const MIB = 1 << 20;
const DEFAULTS = { tables: 20_000, host: 8 * MIB, processes: 256, log: MIB, rate: 16 * MIB, fuel: 1e12 };

const quote = (text) => JSON.stringify(text).replace(/\u007f/g, "\\u007f");
const key = (name) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : quote(name));
const list = (values) => `[${values.map(quote).join(", ")}]`;
const pairs = (of) => `{ ${Object.entries(of).map(([name, value]) => `${key(name)} = ${typeof value === "string" ? quote(value) : value}`).join(", ")} }`;

function size(bytes) {
  for (const [unit, name] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [MIB, "MiB"], [1024, "KiB"]]) if (bytes && bytes % unit === 0) return quote(`${bytes / unit}${name}`);
  return quote(`${bytes}B`);
}

function time(ms) {
  for (const [unit, name] of [[3_600_000, "h"], [60_000, "m"], [1000, "s"]]) if (ms && ms % unit === 0) return quote(`${ms / unit}${name}`);
  return quote(`${ms}ms`);
}

const milli = (amount) => String(amount / 1000);

/** Fields of a job that this page has no words for: whoever edits it would lose them. */
export function unwritten(job) {
  const found = [];
  const look = (of, what, where) => {
    for (const [name, value] of Object.entries(of ?? {})) {
      const says = value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
      if (says && !KNOWN[what].includes(name)) found.push(`${where}${name}`);
    }
  };
  if (job.made_by) found.push("made_by");
  look(job.spec, "spec", "");
  look(job.spec.restart, "restart", "restart.");
  look(job.spec.place, "place", "place.");
  look(job.spec.update, "update", "update.");
  for (const member of job.spec.tasks) {
    look(member, "member", "task.");
    look(member.process, "process", "task.");
    look(member.resources, "resources", "resources.");
    look(member.limits, "limits", "limits.");
    look(member.health, "check", "health.");
    look(member.readiness, "check", "readiness.");
  }
  return found;
}

function program(member) {
  const out = [`${member.kind} = ${quote(member.bundle)}`];
  const put = (name, value) => value && out.push(`${name} = ${value}`);
  if (member.kind === "native") put("file", quote(member.file));
  const process = member.process;
  if (process) {
    put("command", process.command.length && list(process.command));
    put("user", process.user && quote(process.user));
    put("dir", process.dir && quote(process.dir));
    put("stop_signal", process.stop_signal);
    put("mount", process.mounts.length && `[${process.mounts.map((mount) => pairs({ host: mount.host, to: mount.to, writable: mount.writable })).join(", ")}]`);
  }
  put("args", member.args.length && list(member.args));
  put("env", Object.keys(member.env).length && pairs(member.env));
  put("config", Object.keys(member.config).length && pairs(member.config));
  put("stdin", member.stdin && quote(member.stdin));
  return out;
}

function resources(member) {
  const of = member.resources;
  const lent = of.revocable;
  const out = [["cpu", milli((of.cpu_milli || lent?.cpu_milli) ?? 0)], ["memory", size(of.memory_bytes || lent?.memory_bytes || 0)]];
  if (of.disk_bytes) out.push(["disk", size(of.disk_bytes)]);
  if (member.ports.length) out.push(["ports", list(member.ports)]);
  const devices = Object.entries(of.devices_milli ?? {});
  if (devices.length) out.push(["devices", `{ ${devices.map(([name, amount]) => `${key(name)} = ${milli(amount)}`).join(", ")} }`]);
  if (lent) out.push(["revocable", "true"]);
  return out;
}

function limits(member, kind) {
  const of = member.limits;
  const wasm = member.kind === "wasm";
  const out = [];
  const put = (name, value, unless, write) => value !== null && value !== undefined && value !== unless && out.push([name, write(value)]);
  if (wasm) put("fuel", of.fuel_max, kind === "batch" && member.metering !== "epoch" ? DEFAULTS.fuel : null, String);
  put("cpu_time", of.cpu_time_ms_max, null, time);
  put("time", of.time_ms_max, null, time);
  put("memory", of.memory_bytes_max, member.resources.memory_bytes || member.resources.revocable?.memory_bytes, size);
  if (wasm) put("tables", of.table_elements_max, DEFAULTS.tables, String);
  if (wasm) put("host", of.host_bytes_max, DEFAULTS.host, size);
  if (!wasm) put("processes", of.processes_max, DEFAULTS.processes, String);
  put("log", of.log_bytes_max, DEFAULTS.log, size);
  if (!wasm) put("log_rate", of.log_bytes_per_s_max, DEFAULTS.rate, size);
  if (member.process?.network === "host") out.push(["egress", quote("host")]);
  return out;
}

/** `[health]` or `[readiness]`; the latter ends nothing, and so has neither a delay, nor grace, nor failures. */
function check(of, name) {
  if (!of) return [];
  const target = { http: of.path && quote(of.path), https: of.path && quote(of.path), tcp: of.port && quote(of.port), exec: of.command?.length && list(of.command), wasm: of.export && quote(of.export) }[of.kind];
  const out = [[of.kind, target || '""']];
  if (of.kind !== "tcp" && of.port) out.push(["port", quote(of.port)]);
  if (of.delay_ms) out.push(["delay", time(of.delay_ms)]);
  if (of.ignore_1xx) out.push(["ignore_1xx", "true"]);
  if (name === "health" && of.grace_ms !== 30_000) out.push(["grace", time(of.grace_ms)]);
  if (of.every_ms !== 5_000) out.push(["every", time(of.every_ms)]);
  if (of.timeout_ms !== 5_000) out.push(["timeout", time(of.timeout_ms)]);
  if (name === "health" && of.failures !== 3) out.push(["failures", of.failures]);
  return out;
}

/** `[update]`: where shares of the count are said, as many at a time as these allow. */
function update(spec) {
  const of = spec.update ?? {};
  const out = [];
  const put = (name, value, usual, write = String) => value !== undefined && value !== null && value !== usual && out.push(`${name} = ${write(value)}`);
  const shares = (of.min_healthy_milli ?? null) !== null || of.max_over_milli > 0;
  put("parallel", spec.update_parallel, shares ? 10_000_000 : 1);
  put("strategy", of.strategy, "rolling", quote);
  put("min_healthy", of.min_healthy_milli, null, milli);
  put("max_over", of.max_over_milli, 0, milli);
  put("canary", of.canary, 0);
  put("deadline", of.deadline_ms, 600_000, time);
  put("auto_rollback", of.auto_rollback, true);
  put("max_failures", of.failures_max, null);
  put("settle", of.settle_ms, 1_000, time);
  return out;
}

function restart(job) {
  const of = job.spec.restart;
  const usual = job.kind === "service" || job.kind === "system" ? "always" : "never";
  const out = [];
  if (of.policy !== usual) out.push(`policy = ${quote(of.policy)}`);
  if (of.retries_max !== null && !(job.kind === "batch" && of.policy === "on-failure" && of.retries_max === 3)) out.push(`retries = ${of.retries_max}`);
  const waits = [];
  if (of.backoff_first_ms !== 1000) waits.push(`first = ${time(of.backoff_first_ms)}`);
  if (of.backoff_factor_milli !== 1150) waits.push(`factor = ${milli(of.backoff_factor_milli)}`);
  if (of.backoff_max_ms !== 300_000) waits.push(`max = ${time(of.backoff_max_ms)}`);
  if (waits.length) out.push(`backoff = { ${waits.join(", ")} }`);
  return out;
}

/** The job file. */
export function write(job) {
  const { spec } = job;
  const out = [];
  if (job.name) out.push(`name = ${quote(job.name)}`);
  if (job.role !== "default") out.push(`role = ${quote(job.role)}`);
  out.push(`kind = ${quote(job.kind)}`);
  if (job.kind !== "system") out.push(`count = ${job.count}`);
  if (job.priority !== 50) out.push(`priority = ${job.priority}`);
  if (spec.tasks.some((member) => member.strict)) out.push('runtime = "strict"');
  const table = (name, rows) => rows.length && out.push("", `[${name}]`, ...rows);
  const rows = (found) => found.map(([name, value]) => `${name} = ${value}`);
  const inline = (found) => `{ ${rows(found).join(", ")} }`;
  if (spec.tasks.length === 1 && !spec.tasks[0].name) {
    const [only] = spec.tasks;
    table("task", program(only));
    table("resources", rows(resources(only)));
    table("limits", rows(limits(only, job.kind)));
    for (const name of ["health", "readiness"]) table(name, rows(check(only[name], name)));
  } else {
    for (const member of spec.tasks) {
      out.push("", "[[task]]", `name = ${quote(member.name ?? "")}`, ...program(member), `resources = ${inline(resources(member))}`);
      const bounds = limits(member, job.kind);
      if (bounds.length) out.push(`limits = ${inline(bounds)}`);
      for (const name of ["health", "readiness"]) if (member[name]) out.push(`${name} = ${inline(check(member[name], name))}`);
    }
  }
  table("restart", restart(job));
  table("update", job.kind === "service" || job.kind === "system" ? update(spec) : spec.update_parallel === 1 ? [] : [`parallel = ${spec.update_parallel}`]);
  table("service", [spec.fenced && "fenced = true", spec.after?.length && `after = ${list(spec.after)}`].filter(Boolean));
  const place = [];
  if (spec.place?.spread.length) place.push(`spread = ${list(spec.place.spread)}`);
  if (spec.place?.constraints.length) place.push(`constraints = [${spec.place.constraints.map(list).join(", ")}]`);
  table("place", place);
  table("labels", Object.entries(job.labels ?? {}).map(([name, text]) => `${key(name)} = ${quote(text)}`));
  return `${out.join("\n")}\n`;
}
