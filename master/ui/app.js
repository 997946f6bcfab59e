// The frame around all pages: where one is, how one gets elsewhere, by mouse or by keys; the token; light and dark.

import "./overview.js";
import { setToken, state, takeTokenFromAddress, token } from "./api.js";
import { fill, h, say } from "./dom.js";
import { cluster, live, start, stop } from "./live.js";
import { field, show, toast } from "./parts.js";

/** Where one can go: path, word, key behind `g`. */
const PLACES = [["overview", "Overview", "o"], ["jobs", "Jobs", "j"], ["agents", "Agents", "a"], ["roles", "Roles", "r"], ["frameworks", "Frameworks", "f"], ["events", "Events", "e"]];

/** Paths and the elements that show them; all but the first are loaded when they are wanted. */
const PAGES = [
  [/^(?:overview)?$/, "overview", () => ["skep-overview", {}]],
  [/^new$/, "edit", () => ["skep-edit", {}]],
  [/^jobs$/, "jobs", () => ["skep-jobs", {}]],
  [/^jobs\/([^/]+)$/, "job", ([id]) => ["skep-job", { id0: id }]],
  [/^jobs\/([^/]+)\/edit$/, "edit", ([id]) => ["skep-edit", { id0: id }]],
  [/^jobs\/([^/]+)\/tasks\/(\d+)$/, "task", ([id, index]) => ["skep-task", { id0: id, index: Number(index) }]],
  [/^agents$/, "agents", () => ["skep-agents", {}]],
  [/^agents\/([^/]+)$/, "agents", ([id]) => ["skep-agent", { id0: id }]],
  [/^roles$/, "roles", () => ["skep-roles", {}]],
  [/^frameworks$/, "frameworks", () => ["skep-frameworks", {}]],
  [/^frameworks\/([^/]+)$/, "frameworks", ([id]) => ["skep-framework", { id0: id }]],
  [/^events$/, "events", () => ["skep-events", {}]],
];

const main = h("main", { id: "main", tabIndex: -1 });
const links = PLACES.map(([path, word, key]) => h("a", { href: `#/${path}`, "aria-keyshortcuts": `g ${key}` }, word));
const badge = h("p", { class: "cluster", role: "status" });
const banner = h("p", { class: "banner", role: "alert", hidden: true });

async function route() {
  takeTokenFromAddress();
  if (!token()) return;
  start();
  const path = location.hash.replace(/^#\/?/, "");
  const found = PAGES.map(([pattern, module, page]) => [path.match(pattern), module, page]).find(([match]) => match);
  links.forEach((link) => {
    const there = path.split("/")[0] || "overview";
    if (link.getAttribute("href") === `#/${there === "new" ? "jobs" : there}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  document.documentElement.classList.remove("open");
  if (!found) return fill(main, h("h1", null, "There is no such page"), h("p", null, h("a", { href: "#/overview" }, "Overview")));
  const [match, module, page] = found;
  const asked = (route.asked = {});
  try {
    await import(`./${module}.js`);
  } catch {
    return toast("this page could not be loaded: the master does not answer", true);
  }
  if (asked !== route.asked) return;
  const [tag, props] = page(match.slice(1).map(plain));
  const moved = main.firstChild !== null;
  fill(main, h(tag, props));
  window.scrollTo(0, 0);
  // Who goes by keys or hears the page goes on at its heading.
  if (moved) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
}

/** A part of a path; what is no text stays as it is. */
function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function welcome(wrong) {
  stop();
  // A page that is still being loaded comes too late.
  route.asked = null;
  const input = h("input", { type: "password", name: "token", required: true, autocomplete: "off", spellcheck: false });
  const form = h("form", { class: "card", onsubmit: (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    if (!location.hash) location.hash = "#/overview";
    fill(main);
    route();
  } }, h("h1", null, "Skep"), wrong ? h("p", { class: "warn", role: "alert" }, wrong) : h("p", null, "This cluster asks who you are."), field("Token", input, "It is kept in this tab only, and sent to this master only."), h("button", { type: "submit", class: "primary" }, "Go on"),
    h("p", { class: "dim" }, "skep up prints an address that brings one. Or make one: ", h("code", null, "skep tokens create --level operator")));
  fill(main, h("div", { class: "welcome" }, form));
  input.focus();
}

/** Light, dark, or as the system is; in turn. */
function theme(next) {
  const kept = localStorage.getItem("skep.theme") ?? "auto";
  const order = ["auto", "light", "dark"];
  const now = next ? order[(order.indexOf(kept) + 1) % 3] : kept;
  if (now === "auto") {
    localStorage.removeItem("skep.theme");
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem("skep.theme", now);
    document.documentElement.dataset.theme = now;
  }
  say(themer, { auto: "Auto", light: "Light", dark: "Dark" }[now]);
  document.dispatchEvent(new Event("skep-theme"));
}

const themer = h("button", { type: "button", id: "theme", title: "light, dark, or as the system is", onclick: () => theme(true) }, "Auto");

function help() {
  const key = (...keys) => keys.map((one) => [h("kbd", null, one), " "]);
  const rows = [["/", "filter"], ["n", "new job"], ["?", "this help"], ["t", "light or dark"], ["Esc", "leave a field or window"]].map(([one, word]) => [key(one), word]);
  const ways = PLACES.map(([, word, one]) => [key("g", one), word]);
  const list = (of) => h("dl", { class: "keys" }, of.map(([keys, word]) => [h("dt", null, keys), h("dd", null, word)]));
  show("Keys", list(ways), list(rows), h("p", { class: "dim" }, "In lists Tab goes from row to row and Enter opens one; on the map arrow keys go from agent to agent."));
}

let pending = "";

function typed(event) {
  const inField = event.target.closest?.("input, textarea, select, dialog");
  if (event.key === "Escape" && inField && !event.target.closest("dialog")) return event.target.blur();
  if (inField || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const [before, key] = [pending, event.key];
  pending = "";
  if (before === "g") {
    const place = PLACES.find(([, , one]) => one === key);
    if (place) location.hash = `#/${place[0]}`;
  } else if (key === "g") {
    pending = "g";
    setTimeout(() => { pending = ""; }, 1200);
    return undefined;
  } else if (key === "/") main.querySelector(".filter")?.focus();
  else if (key === "?") help();
  else if (key === "n") location.hash = "#/new";
  else if (key === "t") theme(true);
  else return undefined;
  event.preventDefault();
  return undefined;
}

function begin() {
  const mark = h("a", { class: "mark", href: "#/overview" }, h("img", { src: "/ui/icon.svg", alt: "", width: 26, height: 26 }), "skep");
  const menu = h("button", { type: "button", class: "menu", "aria-label": "menu", onclick: () => document.documentElement.classList.toggle("open") }, "☰");
  const leave = h("button", { type: "button", title: "forget the token", onclick: () => { setToken(""); welcome(); } }, "Sign out");
  fill(document.body,
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "to the page"),
    h("div", { class: "side" }, h("div", { class: "row" }, mark, menu), h("nav", { "aria-label": "pages" }, links), h("div", { class: "foot" }, badge, h("div", { class: "row" }, themer, h("button", { type: "button", title: "keys", onclick: help }, "?"), leave))),
    h("div", { class: "content" }, banner, main));
  theme(false);
  addEventListener("hashchange", route);
  document.addEventListener("keydown", typed);
  state.addEventListener("token", () => { if (token()) { setToken(""); welcome("That token is not known here, or is over."); } });
  state.addEventListener("away", () => { say(banner, "The master does not answer. What is shown may be old; it is asked again and again."); banner.hidden = false; });
  state.addEventListener("back", () => { banner.hidden = true; });
  live.addEventListener("now", () => {
    say(badge, `${cluster.name.length > 24 ? `${cluster.name.slice(0, 12)}…` : cluster.name} · ${cluster.version}`);
    badge.title = cluster.name;
  });
  takeTokenFromAddress();
  if (token()) route();
  else welcome();
}

begin();
