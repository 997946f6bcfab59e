// Elements made of data: every text from the cluster becomes a text node, without control characters, so it can neither be markup nor move a cursor.

const ESCAPES = /\u001b\[[0-?]*[ -\/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[@-Z\\-_]?/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** A text without what moves cursors, rings bells, colours, or turns the direction of what follows. Tabs and ends of lines stay. */
export function clean(text) {
  return String(text).replace(/\r\n/g, "\n").replace(ESCAPES, "").replace(CONTROLS, "");
}

/**
 * An element. Of `props`, `on…` are listeners, `class` and names with a dash or `role` attributes, all else properties; what is null or false is left
 * out. Children are elements, texts, numbers, or lists of these.
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "vars") for (const [key, of] of Object.entries(value)) element.style.setProperty(`--${key}`, of);
    else if (tag.includes("-") && !name.includes("-") && name !== "role") element[name] = value;
    else if (name in element && !name.includes("-") && name !== "role" && name !== "list") element[name] = typeof value === "string" ? clean(value) : value;
    else element.setAttribute(name, value === true ? "" : clean(value));
  }
  add(element, children);
  return element;
}

/** Appends children as `h` does. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(clean(child)));
  }
}

/** Puts other children in place of those that are there; does nothing where these are the same elements. */
export function fill(element, ...children) {
  const nodes = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : document.createTextNode(clean(child)))));
}

/** Puts a text in place where it is another one. */
export function say(element, text) {
  const plain = clean(text);
  if (element.textContent !== plain) element.textContent = plain;
}

/** A part of an SVG picture. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An element of our own: `begin` when it comes into the page, `ending` (an AbortSignal) when it leaves. */
export class Part extends HTMLElement {
  #ending = new AbortController();

  connectedCallback() {
    if (this.#ending.signal.aborted) this.#ending = new AbortController();
    this.begin();
  }

  disconnectedCallback() {
    this.#ending.abort();
  }

  get ending() {
    return this.#ending.signal;
  }

  begin() {}

  /** Listens for as long as the element is in the page. */
  listen(target, name, what) {
    target.addEventListener(name, what, { signal: this.ending });
  }

  /** Does something again and again for as long as the element is in the page. */
  every(ms, what) {
    const timer = setInterval(what, ms);
    this.ending.addEventListener("abort", () => clearInterval(timer), { once: true });
  }
}

/** At most one call in `ms`; the last one is never lost. */
export function calmly(ms, what, signal) {
  let timer = 0;
  let last = 0;
  signal?.addEventListener("abort", () => clearTimeout(timer), { once: true });
  return () => {
    if (timer || signal?.aborted) return;
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      what();
    }, Math.max(0, last + ms - performance.now()));
  };
}

/** Gives the browser room to draw and to hear its reader. */
export function breathe() {
  return new Promise((done) => setTimeout(done, 0));
}
