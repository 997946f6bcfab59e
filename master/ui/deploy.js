// A deployment that goes on and the versions before it, where the master has them: an older one has no such paths, and nothing is shown.

import { call, get, jobPath } from "./api.js";
import { Part, calmly, fill, h } from "./dom.js";
import { count, moment } from "./format.js";
import { ask, attempt, card, meter, pill, when } from "./parts.js";

class Deploy extends Part {
  begin() {
    this.fresh = calmly(700, () => this.load(), this.ending);
    this.load();
  }

  async load() {
    if (this.none) return;
    const none = (error) => { this.none = error.isUnknownPath; return null; };
    const found = await get(jobPath(this.job, "/versions"), this.ending).catch(none);
    const all = this.none ? null : await get("/v1/deployments", this.ending).catch(none);
    if (!this.isConnected) return;
    const versions = found?.versions ?? [];
    const going = (all?.deployments ?? []).filter((one) => one.job === this.job && !one.ended_ms);
    const key = JSON.stringify([versions, going]);
    if (key === this.shown) return;
    this.shown = key;
    fill(this, going.map((one) => this.going(one)), versions.length > 1 ? this.versions(versions) : null);
  }

  going(one) {
    const total = one.total ?? one.count ?? 0;
    const done = one.done ?? one.healthy ?? 0;
    const act = (name, word) => h("button", { type: "button", onclick: async () => { await attempt(() => call("POST", `/v1/deployments/${one.id}/${name}`, { body: "{}", type: "application/json" }), `${word}: asked`); this.ended?.(); this.load(); } }, word);
    const paused = one.state === "paused";
    return card("Deployment", h("p", null, pill(one.state ?? "going", "starting"), ` version ${one.from ?? "?"} → ${one.to ?? one.version ?? "?"} · ${count(done)} of ${count(total)}`, one.deadline_ms ? ` · until ${moment(one.deadline_ms)}` : ""), meter(total ? done / total : 0, "replaced"), one.reason ? h("p", { class: "warn" }, one.reason) : null,
      h("div", { class: "actions" }, one.state === "canary" && act("promote", "Promote"), paused ? act("resume", "Resume") : act("pause", "Pause"), act("cancel", "Cancel")));
  }

  versions(versions) {
    const back = (one) => async () => {
      if (!(await ask(`Roll back to version ${one.version}?`, h("p", null, "Its tasks are replaced by those of that version, as a new version."), "Roll back"))) return;
      await attempt(() => call("POST", jobPath(this.job, "/rollback"), { body: JSON.stringify({ version: one.version }), type: "application/json" }), `rolling back to version ${one.version}`);
      this.ended?.();
      this.load();
    };
    const newest = Math.max(...versions.map((one) => one.version));
    return card("Versions", h("ul", { class: "versions" }, [...versions].sort((a, b) => b.version - a.version).map((one) => h("li", null, h("b", null, `v${one.version}`), " ", one.at_ms ? when(one.at_ms) : null, " ", one.what ?? one.outcome ?? "", one.version === newest ? h("small", null, " now") : h("button", { type: "button", onclick: back(one) }, "Roll back to this")))));
  }
}

customElements.define("skep-deploy", Deploy);
