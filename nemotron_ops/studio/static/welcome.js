// The first three steps: what this machine has, a model that fits, go.
import { api, el, t } from "./base.js";

const at = (id) => document.getElementById(id);

async function machine() {
  const found = await api("/api/doctor").catch(() => null);
  const findings = found?.facts?.findings ?? [];
  const shown = findings.filter((f) => ["GPU", "memory", "disk"].includes(f.what) || f.status === "missing");
  at("machine").replaceChildren(el("ul", {}, shown.map((f) => el("li", {}, `${f.what}: ${f.found}`, f.fix ? ` — ${f.fix}` : ""))));
}

async function model() {
  const found = await api("/api/status").catch(() => null);
  const names = (found?.models ?? []).map((m) => m.id);
  if (names.length) {
    at("fitting").replaceChildren(el("p", {}, t.welcome_ready, " ", ...names.map((n) => el("span", { class: "badge ready" }, n))));
    at("go").textContent = t.chat;
    return;
  }
  at("fitting").replaceChildren(el("p", {}, t.welcome_none), el("pre", {}, "nemotron-ops add 4b"), el("p", {}, el("a", { href: "/models" }, t.models)));
  setTimeout(model, 1500);
}
machine();
model();
