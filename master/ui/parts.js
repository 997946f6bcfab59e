// What all pages are made of: bars, pills, pages of rows, what failed, what is empty, questions before something is done.

import { clean, h, say } from "./dom.js";
import { PHASES, ago, count, moment } from "./format.js";

/** The heading of a page. */
export function head(text, sub, ...actions) {
  document.title = clean(`${text} · Skep`);
  return h("header", { class: "head" }, h("div", { class: "titles" }, h("h1", { tabIndex: -1 }, text), sub && h("p", { class: "sub" }, sub)), actions.length ? h("div", { class: "actions" }, actions) : null);
}

export function card(heading, ...children) {
  return h("section", { class: "card" }, heading && h("h2", null, heading), children);
}

/** How long ago something was; it goes on by itself. */
export function when(ms) {
  return ms ? h("time", { title: moment(ms), "data-at": String(ms) }, ago(ms)) : "–";
}

setInterval(() => {
  for (const one of document.querySelectorAll("time[data-at]")) say(one, ago(Number(one.dataset.at)));
}, 5000);

/** A word with a shape and a colour: never the colour alone. */
export function pill(word, kind = word) {
  return h("span", { class: `pill p-${kind}` }, h("i", { "aria-hidden": "true" }), word);
}

/** How many tasks are in which state, as one bar. */
export function phaseBar(tasks, total) {
  const parts = PHASES.filter((phase) => tasks[phase]);
  const words = parts.map((phase) => `${count(tasks[phase])} ${phase}`);
  const all = Math.max(total, parts.reduce((sum, phase) => sum + tasks[phase], 0), 1);
  const piece = (phase) => h("span", { class: `p-${phase}`, vars: { part: String(tasks[phase] / all) } });
  return h("span", { class: "phases", role: "img", "aria-label": words.join(", ") || "no task", title: words.join(" · ") }, parts.map(piece));
}

/** A part of a whole, from 0 to 1, with a mark where a limit is. */
export function meter(part, label, mark) {
  const share = Math.min(Math.max(part || 0, 0), 1);
  const bar = h("span", { class: share > 0.9 ? "meter full" : "meter", role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(share * 100)), vars: { part: String(share) } });
  if (mark > 0 && mark <= 1) bar.append(h("i", { vars: { at: String(mark) }, title: "limit" }));
  return bar;
}

/** A command to type, which a press copies. */
export function command(text) {
  const button = h("button", { class: "command", type: "button", title: "copy", onclick: async () => {
    await navigator.clipboard?.writeText(text).catch(() => {});
    toast("copied");
  } }, h("code", null, text));
  return button;
}

/** What there is where nothing is, and what to type next. */
export function empty(text, ...next) {
  return h("div", { class: "empty" }, h("p", null, text), next.map((one) => (typeof one === "string" ? command(one) : one)));
}

/** What was tried, why it failed, and what mends it. */
export function failure(error, again) {
  return h("div", { class: "failure", role: "alert" },
    h("p", { class: "what" }, error.message),
    h("p", { class: "tried" }, error.tried ? `tried: ${error.tried}` : "", error.field ? ` · at ${error.field}` : ""),
    error.help && h("p", { class: "help" }, h("b", null, "help "), error.help),
    again && h("button", { type: "button", onclick: again }, "try again"));
}

let toasts = null;

/** A short word at the edge, for a moment. */
export function toast(text, bad = false) {
  toasts ??= document.body.appendChild(h("div", { id: "toasts", role: "status", "aria-live": "polite" }));
  const one = h("p", { class: bad ? "bad" : null }, text);
  toasts.append(one);
  setTimeout(() => one.remove(), bad ? 9000 : 3500);
}

/** Does something and says what failed. True where it went well. */
export async function attempt(what, done) {
  try {
    await what();
    if (done) toast(done);
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    toast([error.message, error.help].filter(Boolean).join(" — "), true);
    return false;
  }
}

/** A question in a window of its own; `body` may hold fields. Answers true, or false where it was left. */
export function ask(heading, body, yes, danger = false) {
  return new Promise((answer) => {
    let agreed = false;
    const form = h("form", { method: "dialog", onsubmit: () => { agreed = true; } }, h("h2", null, heading), body,
      h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), h("button", { type: "submit", class: danger ? "danger" : "primary" }, yes)));
    const dialog = h("dialog", { "aria-label": heading, onclose: () => { dialog.remove(); answer(agreed); } }, form);
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input, .danger, .primary")?.focus();
  });
}

/** A window with something to read. */
export function show(heading, ...body) {
  const dialog = h("dialog", { "aria-label": heading, onclose: () => dialog.remove() }, h("form", { method: "dialog" }, h("h2", null, heading), body, h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A field with its label. */
export function field(label, input, hint) {
  return h("label", { class: "field" }, h("span", null, label), input, hint && h("small", null, hint));
}

/** Names and what they are. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "").map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

/**
 * A table whose rows stay the same elements while their data changes: `columns` are `[heading, class, cell(row)]`, `key(row)` tells rows apart, `open(row)`
 * is where a row leads.
 */
export function table(label, columns, key, open) {
  const body = h("tbody");
  const element = h("div", { class: "scroll" }, h("table", { "aria-label": label }, h("thead", null, h("tr", null, columns.map(([heading, kind]) => h("th", { class: kind, scope: "col" }, heading)))), body));
  let known = new Map();
  const made = (row) => {
    const cells = columns.map(([heading, kind, cell], at) => h("td", { class: kind, "data-label": heading }, at === 0 && open ? h("a", { href: open(row) }, cell(row)) : h("div", null, cell(row))));
    return { json: JSON.stringify(row), element: h("tr", { "data-key": key(row) }, cells) };
  };
  element.update = (rows) => {
    const now = new Map();
    for (const row of rows) {
      const before = known.get(key(row));
      now.set(key(row), before && before.json === JSON.stringify(row) ? before : made(row));
    }
    const focused = document.activeElement?.closest?.("tr")?.dataset.key;
    const inside = body.contains(document.activeElement);
    const next = [...now.values()].map((one) => one.element);
    if (next.length !== body.children.length || next.some((one, at) => body.children[at] !== one)) body.replaceChildren(...next);
    if (inside && !body.contains(document.activeElement)) [...body.children].find((one) => one.dataset.key === focused)?.querySelector("a, button")?.focus();
    known = now;
  };
  return element;
}

/** Back and forth through pages of rows. */
export function pager(go) {
  const back = h("button", { type: "button", onclick: () => go(-1) }, "‹ Previous");
  const forth = h("button", { type: "button", onclick: () => go(1) }, "Next ›");
  const where = h("span", { role: "status" });
  const element = h("nav", { class: "pager", "aria-label": "pages" }, back, where, forth);
  element.update = (text, hasBack, hasForth) => {
    say(where, text);
    back.disabled = !hasBack;
    forth.disabled = !hasForth;
    back.hidden = forth.hidden = !hasBack && !hasForth;
    element.hidden = back.hidden && !text;
  };
  return element;
}

/** The field that filters a list; `/` leads to it. */
export function filter(placeholder, changed, value = "") {
  let timer = 0;
  const input = h("input", { type: "search", class: "filter", placeholder, "aria-label": placeholder, "aria-keyshortcuts": "/", value, autocomplete: "off", spellcheck: false, oninput: () => {
    clearTimeout(timer);
    timer = setTimeout(() => changed(input.value.trim()), 150);
  } });
  return input;
}

/** A switch between a few words. */
export function choice(label, words, chosen, changed) {
  const buttons = words.map(([value, word]) => h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === buttons[words.findIndex(([one]) => one === value)])));
    changed(value);
  } }, word));
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}
