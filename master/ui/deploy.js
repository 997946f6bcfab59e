// Deployments, which bring a service to another version step by step, and the versions that are kept. An older master has no such paths: then nothing is
// shown.

import { call, get, jobPath, path } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { clock, count, moment } from "./format.js";
import { live } from "./live.js";
import { ask, attempt, card, meter, pill, when } from "./parts.js";

const OPEN = ["running", "waiting", "paused"];
/** Deployments of the overview. */
const SHOWN_MAX = 8;

/** Why a version is or was the present one. */
const CAUSES = { applied: "applied", restarted: "restarted", "rolled-back": "gone back to", failed: "returned by itself", resized: "another number of tasks" };

/** How far one is. */
function way(one) {
  return meter(one.count ? one.ready / one.count : 1, `ready of ${one.title}`);
}

/** That of one job, and its versions. */
class Deploy extends Part {
  begin() {
    this.fresh = calmly(500, () => this.load(), this.ending);
    this.load();
  }

  async load() {
    if (this.none) return;
    const none = (error) => { this.none = error.isUnknownPath; return null; };
    const found = await get(jobPath(this.job, "/versions"), this.ending).catch(none);
    const all = this.none ? null : await get(path("/v1/deployments", { job: this.job, ended: true }), this.ending).catch(none);
    if (!this.isConnected) return;
    const versions = found?.versions ?? [];
    const last = all?.deployments?.[0];
    const key = JSON.stringify([versions.map(({ version, current, since_ms }) => [version, current, since_ms]), last]);
    if (key === this.shown) return;
    this.shown = key;
    const focused = this.contains(document.activeElement) ? document.activeElement.textContent : "";
    const tells = last && (last.state !== "done" || last.cause === "failed");
    fill(this, tells ? this.stands(last) : null, versions.length > 1 ? this.versions(versions, last?.cause === "failed" ? last.from : 0) : null);
    if (focused) [...this.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  }

  stands(one) {
    const wish = (name, word, done, query) => h("button", { type: "button", class: name === "promote" ? "primary" : name === "cancel" ? "danger" : null, onclick: async () => {
      await attempt(() => call("POST", path(`/v1/deployments/${encodeURIComponent(one.id)}/${name}`, query)), done);
      this.ended?.();
      this.load();
    } }, word);
    const open = OPEN.includes(one.state);
    return card("Deployment",
      h("p", null, pill(one.state), " ", h("b", null, one.from ? `version ${one.from} → ${one.to}` : `version ${one.to}`), ` · ${one.text}`),
      open ? way(one) : null,
      h("p", { class: "states" }, [["ready", one.ready], ["new", one.new], ["old", one.old], ["beyond the count", one.extra], ["ended by themselves", one.failures]].filter(([, number]) => number).map(([word, number]) => h("span", null, h("b", null, count(number)), ` ${word}`)),
        open ? [h("span", null, "step ", h("b", null, `${one.step} of ${one.steps}`)), h("span", { title: moment(one.deadline_ms) }, `fails at ${clock(one.deadline_ms)}`)] : null),
      one.last_failure ? h("p", { class: "warn" }, "task ", h("a", { href: `#/jobs/${one.job}/tasks/${one.last_failure.index}` }, String(one.last_failure.index)), `: ${one.last_failure.exit.text}`) : null,
      open ? h("div", { class: "actions" }, one.state === "waiting" && wish("promote", "Promote", "all others follow"), one.state === "paused" ? wish("resume", "Resume", "it goes on") : wish("pause", "Pause", "it is held"), wish("cancel", "Cancel", "the version before returns"), wish("cancel", "Leave as it is", "all stays as it is", { back: "false" })) : null);
  }

  /** `failed`: the number of the one that had to be left, or 0. */
  versions(versions, failed) {
    const back = (one) => async () => {
      if (!(await ask(`Roll back to version ${one.version}?`, h("p", null, "Its tasks are replaced by those of that version, step by step."), "Roll back"))) return;
      await attempt(() => call("POST", jobPath(this.job, "/rollback"), { body: JSON.stringify({ version: one.version }), type: "application/json" }), `going back to version ${one.version}`);
      this.ended?.();
      this.load();
    };
    const row = (one) => h("li", null, h("b", null, `v${one.version}`), ` ${CAUSES[one.cause] ?? one.cause} `, when(one.since_ms), ` · ${count(one.count)} tasks `, one.version === failed ? pill("failed") : null, " ", one.current ? pill("now", "running") : h("button", { type: "button", onclick: back(one) }, `Roll back to v${one.version}`));
    return card("Versions", h("ul", { class: "versions" }, [...versions].sort((a, b) => b.version - a.version).map(row)));
  }
}

/** Those of the cluster that are under way. */
class Deploying extends Part {
  begin() {
    this.fresh = calmly(1500, () => this.load(), this.ending);
    this.listen(live, "now", () => this.fresh());
    this.load();
  }

  async load() {
    if (this.none) return;
    const all = await get("/v1/deployments", this.ending).catch((error) => { this.none = error.isUnknownPath; return null; });
    if (!this.isConnected || !all) return;
    const key = JSON.stringify(all.deployments.slice(0, SHOWN_MAX));
    if (key === this.shown) return;
    this.shown = key;
    const row = (one) => h("li", { class: "use" }, h("a", { href: `#/jobs/${one.job}` }, one.title), way(one), h("small", null, one.text));
    const more = all.deployments.length - SHOWN_MAX;
    fill(this, all.deployments.length ? card("Deployments", h("ul", { class: "versions" }, all.deployments.slice(0, SHOWN_MAX).map(row)), more > 0 ? h("p", { class: "dim" }, `and ${count(more)} more`) : null) : []);
  }
}

customElements.define("skep-deploy", Deploy);
customElements.define("skep-deploying", Deploying);
