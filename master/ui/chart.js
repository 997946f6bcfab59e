// Rates over the last minutes: how many attempts began and ended each second, as lines in one small picture.

import { Part, h, say, svg } from "./dom.js";
import { short } from "./format.js";
import { cluster, live } from "./live.js";

const [WIDE, HIGH, PAD] = [600, 150, 4];
/** The picture shows so much. */
const SPAN_MS = 180_000;

class Chart extends Part {
  begin() {
    this.lines = ["staged", "ended"].map((name) => svg("polyline", { class: `l-${name}` }));
    this.area = svg("polygon", { class: "area" });
    this.grid = [0.25, 0.5, 0.75].map((at) => svg("line", { class: "grid", x1: 0, x2: WIDE, y1: HIGH * at, y2: HIGH * at }));
    const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": "attempts that began and ended, each second" }, ...this.grid, this.area, ...this.lines);
    this.top = h("span", { class: "top" });
    this.words = ["started", "ended"].map((name) => [name, h("b", null, "0")]);
    const legend = h("p", { class: "legend" }, this.words.map(([name, value]) => h("span", { class: `k-${name}` }, h("i", { "aria-hidden": "true" }), value, ` ${name} a second`)));
    this.replaceChildren(h("div", { class: "plot" }, picture, this.top, h("span", { class: "from" }, "3 min ago"), h("span", { class: "to" }, "now")), legend);
    this.listen(live, "now", () => this.draw());
    this.draw();
  }

  draw() {
    const samples = cluster.samples;
    if (samples.length < 2) return;
    const end = samples.at(-1).at;
    const rates = samples.slice(1).map((sample, at) => {
      const seconds = Math.max(sample.at - samples[at].at, 1) / 1000;
      return { at: sample.at, staged: (sample.staged - samples[at].staged) / seconds, ended: (sample.ended - samples[at].ended) / seconds };
    }).filter((rate) => rate.at > end - SPAN_MS);
    const most = Math.max(...rates.map((rate) => Math.max(rate.staged, rate.ended)), 1);
    const ceiling = nice(most);
    const x = (at) => (WIDE * (at - end + SPAN_MS)) / SPAN_MS;
    const y = (rate) => HIGH - PAD - ((HIGH - 2 * PAD) * rate) / ceiling;
    const points = (name) => rates.map((rate) => `${x(rate.at).toFixed(1)},${y(rate[name]).toFixed(1)}`).join(" ");
    this.lines[0].setAttribute("points", points("staged"));
    this.lines[1].setAttribute("points", points("ended"));
    if (rates.length) this.area.setAttribute("points", `${x(rates[0].at).toFixed(1)},${HIGH} ${points("staged")} ${WIDE},${HIGH}`);
    say(this.top, `${short(ceiling)}/s`);
    const last = rates.at(-1) ?? { staged: 0, ended: 0 };
    say(this.words[0][1], short(Math.round(last.staged)));
    say(this.words[1][1], short(Math.round(last.ended)));
  }
}

/** The next of 1, 2, 5, 10, 20 and so on. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

customElements.define("skep-chart", Chart);
