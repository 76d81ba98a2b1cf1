// What runs: instances with state, memory, requests; why one died; logs and events.
import { api, attempt, dialog, el, size, t, table } from "./base.js";

const at = (id) => document.getElementById(id);

async function act(verb, name) {
  await attempt(() => api("/api/instances", { verb, names: [name] }));
  show();
}

async function log(name) {
  const found = await attempt(() => api(`/api/logs?name=${encodeURIComponent(name)}`));
  if (found) dialog(el("h2", {}, `${t.log}: ${name}`), el("pre", { class: "log" }, (found.logs?.[0]?.lines ?? []).join("\n")));
}

function row(one) {
  const load = one.load_progress === null || one.load_progress === undefined ? "" : el("progress", { value: one.load_progress, max: 1, "aria-label": t.starting });
  const memory = Object.values(one.used_bytes ?? {}).reduce((a, b) => a + b, 0) || Object.values(one.planned_bytes ?? {}).reduce((a, b) => a + b, 0);
  const buttons = one.state === "ready" || one.state === "starting" ? ["restart", "drain", "stop"] : ["start"];
  return [el("strong", {}, one.name), [el("span", { class: `badge ${one.state}` }, t[one.state] ?? one.state), load, one.reason ? el("p", { class: "error" }, one.reason, one.hint ? ` — ${one.hint}` : "") : ""],
    `${one.busy ?? 0} / ${one.slots}`, String(one.inflight ?? 0), memory ? size(memory) : "", String(one.restarts), one.build ?? "",
    [...buttons.map((verb) => el("button", { class: "small", onclick: () => act(verb, one.name) }, t[verb])), el("button", { class: "small", onclick: () => log(one.name) }, t.log)]];
}

let shown = "";
async function show() {
  const found = await api("/api/status").catch(() => null);
  if (!found) return;
  const said = found.supervisor;
  at("endpoint").textContent = said.error ? `${t.no_supervisor} ${said.error}` : `${said.endpoint.url} · ${said.version}`;
  const now = JSON.stringify(said.instances);
  if (now === shown) return;
  shown = now;
  at("instances").replaceChildren(said.instances.length ? table([t.instance, t.state, t.slots, t.requests, t.memory, t.restarts, "build", ""], said.instances.map(row)) : el("p", { class: "hint" }, t.none_here));
}

async function events() {
  const found = await api("/api/logs").catch(() => null);
  if (!found) return;
  at("events").replaceChildren(...(found.events ?? []).slice(-30).reverse().map((e) => el("li", {}, `${new Date(e.time_s * 1000).toLocaleTimeString()}  ${e.instance || ""} ${e.kind}: ${e.message}`)));
}

show();
events();
setInterval(() => { if (!document.hidden) show(); }, 1000);
setInterval(() => { if (!document.hidden) events(); }, 5000);
