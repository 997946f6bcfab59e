// The one way to the master: with the token in a header, errors as they are, streams in pieces that leave the browser room.

import { breathe } from "./dom.js";

const KEY = "skep.token";
/** Pieces of a stream are worked at for so long, then the browser has its turn. */
const TURN_MS = 8;
const TRIES_MAX = 4;

/** A request that was refused, or that nobody answered. */
export class Refused extends Error {
  constructor(tried, status, error) {
    super(error?.message ?? `the master answered with ${status}`);
    Object.assign(this, { tried, status, code: error?.code ?? "", field: error?.field, help: error?.help, problems: error?.problems ?? [], retry: error?.retry_after_ms });
  }

  /** True where this master has no such path: it is of another version. */
  get isUnknownPath() {
    return (this.status === 404 && /path/.test(this.message)) || this.status === 405 || this.status === 501;
  }
}

/** Tells whether the master answers and the token is good: `token`, `away`, `back`. */
export const state = new EventTarget();
let away = false;

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

/** Takes the token out of the address, where `skep up` put it: behind the #, which no server sees; then it is gone from there too. */
export function takeTokenFromAddress() {
  const found = location.hash.match(/^#token=([A-Za-z0-9_.-]+)(?:&(.*))?$/);
  if (!found) return;
  setToken(found[1]);
  history.replaceState(null, "", `${location.pathname}#/${found[2] ?? ""}`);
}

function heard(isThere) {
  if (away === !isThere) return;
  away = !isThere;
  state.dispatchEvent(new Event(away ? "away" : "back"));
}

async function send(method, path, { body, type, signal, accept, last } = {}) {
  const headers = { authorization: `Bearer ${token()}` };
  if (type) headers["content-type"] = type;
  if (accept) headers.accept = accept;
  if (last) headers["last-event-id"] = last;
  const tried = `${method} ${path}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    heard(false);
    throw new Refused(tried, 0, { message: "the master does not answer", code: "away", help: "is it running? `skep status` on its machine says" });
  }
  heard(true);
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) state.dispatchEvent(new Event("token"));
  throw new Refused(tried, answer.status, found.error);
}

/** The answer as JSON, or as null where it is empty. What is only asked is asked again where the master is busy. */
export async function call(method, path, options = {}) {
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await send(method, path, options);
      const text = await answer.text();
      return text ? JSON.parse(text) : null;
    } catch (error) {
      const again = method === "GET" && [429, 503].includes(error.status) && tries < TRIES_MAX && !options.signal?.aborted;
      if (!again) throw error;
      await new Promise((done) => setTimeout(done, Math.min(error.retry ?? 300 * tries, 3000)));
    }
  }
}

export const get = (path, signal) => call("GET", path, { signal });
export const post = (path, json, signal) => call("POST", path, { body: JSON.stringify(json ?? {}), type: "application/json", signal });
export const patch = (path, json) => call("PATCH", path, { body: JSON.stringify(json), type: "application/json" });

/** A path with a query; what is null, false or empty is left out. */
export function path(base, query) {
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  const text = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return text ? `${base}?${text}` : base;
}

/** The path of a job by its id. */
export function jobPath(job, rest = "") {
  return `/v1/jobs/${encodeURIComponent(job)}${rest}`;
}

/** The lines of an answer as they come. */
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, since] = ["", performance.now()];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const line of parts) {
        yield line;
        if (performance.now() - since > TURN_MS) {
          await breathe();
          since = performance.now();
        }
      }
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Lines of JSON, parsed as they come. */
export async function* records(where, signal) {
  const answer = await send("GET", where, { signal, accept: "application/x-ndjson" });
  for await (const line of lines(answer)) if (line.trim()) yield JSON.parse(line);
}

/** Events of one answer. */
async function* events(where, signal, last) {
  const answer = await send("GET", where, { signal, accept: "text/event-stream", last });
  let event = { id: last, name: "message", data: "" };
  for await (const line of lines(answer)) {
    if (line === "") {
      if (event.data) yield event;
      event = { id: event.id, name: "message", data: "" };
    } else if (line.startsWith("data: ")) event.data += line.slice(6);
    else if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("id: ")) event.id = line.slice(4);
  }
}

/** Gives each event to `each(name, data)`, and goes on behind the last one where the stream breaks off, until `signal` says to stop. */
export async function follow(where, each, signal, failed) {
  let [last, wait] = [undefined, 250];
  while (!signal.aborted) {
    try {
      for await (const event of events(where, signal, last)) {
        wait = 250;
        last = event.id ?? last;
        if (signal.aborted) return;
        each(event.name, JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      failed?.(error);
      if ([400, 401, 403, 404].includes(error.status)) return;
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 5000);
  }
}

/** Uploads a file; `progress` hears the part that is there, 0 to 1. Answers with its digest. */
export function upload(file, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    const tried = `POST /v1/bundles (${file.name})`;
    request.open("POST", "/v1/bundles");
    request.setRequestHeader("authorization", `Bearer ${token()}`);
    request.upload.onprogress = (event) => event.lengthComputable && progress?.(event.loaded / event.total);
    request.onerror = () => failed(new Refused(tried, 0, { message: "the upload broke off", help: "try again: what arrived whole is kept" }));
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // Said below by its status.
      }
      if (request.status < 300) done(answer.digest);
      else failed(new Refused(tried, request.status, answer.error));
    };
    request.send(file);
  });
}
