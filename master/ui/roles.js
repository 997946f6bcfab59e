// Roles: what each holds, its share of the cluster, what it may hold and is guaranteed.

import { get } from "./api.js";
import { Part, fill, h } from "./dom.js";
import { amounts, bytes, cores } from "./format.js";
import { cluster, live } from "./live.js";
import { empty, failure, head, meter, table } from "./parts.js";

const some = (kinds) => (kinds && Object.keys(kinds).length ? amounts(kinds) : "–");

class Roles extends Part {
  begin() {
    this.table = table("roles", [
      ["Role", "main", ({ role }) => h("b", null, role.role)],
      ["Share of the cluster", "wide", ({ role, limit }) => [meter(role.share, `share of ${role.role}`, limit), h("small", null, `${(role.share * 100).toFixed(role.share < 0.1 ? 1 : 0)} %${limit ? " · the mark is its limit" : ""}`)]],
      ["Holds", "", ({ role }) => h("span", null, `${cores(role.holds.cpu_milli)} cores`, h("br"), h("small", null, bytes(role.holds.memory_bytes)))],
      ["Weight", "num", ({ role }) => String(role.weight)],
      ["Limit", "", ({ role }) => some(role.limit)],
      ["Guarantee", "", ({ role }) => some(role.guarantee)],
      ["Preempts", "", ({ role }) => role.preempt],
      ["Of its hosts", "", ({ role }) => [role.policy.host_network && "network", ...role.policy.host_paths.map((one) => `${one.path}${one.writable ? " (may change it)" : ""}`)].filter(Boolean).join(", ") || "nothing"],
    ], ({ role }) => role.role);
    this.none = h("div");
    this.replaceChildren(head("Roles", "Whom resources are counted for. What becomes free goes first to the role with the least of its share."), h("section", { class: "card flush" }, this.table, this.none), h("p", { class: "dim" }, "An admin sets them with ", h("code", null, "skep roles set ROLE --weight 2 --limit cpu=8 --guarantee memory=16GiB"), "."));
    this.load();
    this.listen(live, "now", () => this.load());
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      const { roles } = await get("/v1/roles", this.ending);
      const all = cluster.now?.capacity;
      // Where of the share's bar the limit stands: at the kind that is bounded most.
      const limit = ({ limit: of }) => {
        const parts = all ? ["cpu_milli", "memory_bytes"].filter((kind) => of?.[kind] !== undefined && all[kind]).map((kind) => of[kind] / all[kind]) : [];
        return parts.length ? Math.min(...parts) : 0;
      };
      this.table.update(roles.map((role) => ({ role, limit: limit(role) })));
      this.table.hidden = roles.length === 0;
      fill(this.none, roles.length ? [] : empty("Nothing is said of any role, and none holds anything.", "skep run --detach --role web samples/dist/sleep.wasm -- 60000", "skep roles set web --weight 2 --limit cpu=8"));
    } catch (error) {
      if (error.name !== "AbortError") fill(this.none, failure(error));
    }
    this.loading = false;
  }
}

customElements.define("skep-roles", Roles);
