// What runs: models and their instances with state, memory, requests; why one died; engines; logs and events.
import { api, attempt, dialog, el, size, t, table } from "./base.js";
import { Jobs } from "./jobs.js";
import { openSheet } from "./serve.js";

const at = (id) => document.getElementById(id);
const jobs = new Jobs(at("jobs"), { wanted: (job) => !/^(fetch|verify|import) /.test(job.title), ended: () => { show(); builds(); } });

async function act(verb, name) {
  await attempt(() => api("/api/instances", { verb, names: [name] }));
  show();
}

async function log(name) {
  const found = await attempt(() => api(`/api/logs?name=${encodeURIComponent(name)}`));
  if (found) dialog(el("h2", {}, `${t.log}: ${name}`), el("pre", { class: "log" }, (found.logs?.[0]?.lines ?? []).join("\n")));
}

async function template(model) {
  const found = await attempt(() => api(`/api/template?model=${encodeURIComponent(model)}`));
  if (!found) return;
  const text = el("textarea", { class: "log", rows: 20, spellcheck: false, "aria-label": t.template, value: found.chat_template });
  const use = async (value) => {
    if (!await attempt(() => api("/api/template", { model, ...value }))) return;
    at("dialog").close();
    jobs.show();
  };
  dialog(el("h2", {}, `${t.template}: ${model}`), el("p", { class: "hint" }, t.template_words), text,
    el("div", { class: "row" }, el("button", { class: "primary", type: "button", onclick: () => use({ text: text.value }) }, t.save),
      el("button", { type: "button", disabled: !found.own, onclick: () => use({ own: true }) }, t.template_own)));
}

async function remove(model) {
  if (!confirm(`${t.remove_model} ${model}`)) return;
  await attempt(() => api("/api/serve", { op: "remove", model }));
  jobs.show();
}

function model(one, wished, instances) {
  const own = instances.filter((i) => i.model === one.name), first = own[0];
  const now = { name: one.name, quant: wished?.quant, profile: wished?.profile, ctx_size: wished?.flags?.ctx_size, parallel: wished?.flags?.parallel };
  return el("section", { class: "card wide", "aria-label": one.name },
    el("div", { class: "row" }, el("h3", {}, one.name), el("span", { class: "hint" }, [wished?.target, first?.ctx_tokens ? `${t.context} ${first.ctx_tokens.toLocaleString()}` : "", first?.build].filter(Boolean).join(" · ")),
      el("span", { class: "push" }), wished ? el("button", { class: "small", onclick: () => template(wished.target) }, t.template) : "", wished ? el("button", { class: "small", onclick: () => openSheet({ model: wished.target, now, begun: () => jobs.show() }) }, `${t.change} …`) : "",
      wished ? el("button", { class: "small", onclick: () => remove(one.name) }, t.remove) : ""),
    own.length ? table([t.instance, t.state, t.slots, t.requests, t.speed, t.memory, t.restarts, ""], own.map(row)) : el("p", { class: "hint" }, t.none_here));
}

function row(one) {
  const load = one.load_progress === null || one.load_progress === undefined ? "" : el("progress", { value: one.load_progress, max: 1, "aria-label": t.starting });
  const planned = sum(one.planned_bytes), memory = [one.rss_bytes ? size(one.rss_bytes) : "", planned ? size(planned) : ""].filter(Boolean).join(" / ");
  const buttons = one.state === "ready" || one.state === "starting" ? ["restart", "drain", "stop"] : ["start"];
  return [el("strong", {}, one.name), [el("span", { class: `badge ${one.state}` }, t[`is_${one.state}`] ?? t[one.state] ?? one.state), load, one.reason ? el("p", { class: "error" }, one.reason, one.hint ? ` — ${one.hint}` : "") : ""],
    `${one.busy ?? 0} / ${one.slots}`, String(one.inflight ?? 0), speed(one), el("span", { title: t.memory_help }, memory), String(one.restarts),
    [...buttons.map((verb) => el("button", { class: "small", onclick: () => act(verb, one.name) }, t[verb])), el("button", { class: "small", onclick: () => log(one.name) }, t.log)]];
}

const sum = (bytes) => Object.values(bytes ?? {}).reduce((a, b) => a + b, 0);

// Tokens per second between two looks at an instance's count.
const seen = new Map();
function speed(one) {
  if (one.tokens === undefined || one.tokens === null) return "";
  const before = seen.get(one.name), now = { tokens: one.tokens, at: performance.now() };
  seen.set(one.name, now);
  if (!before || now.tokens <= before.tokens) return "";
  return (1000 * (now.tokens - before.tokens) / (now.at - before.at)).toFixed(0);
}

let shown = "";
async function show() {
  const found = await api("/api/status").catch(() => null);
  if (!found) return;
  const said = found.supervisor;
  at("endpoint").textContent = said.error ? `${t.no_supervisor} ${said.error}` : `${said.endpoint.url} · ${said.version}`;
  const now = JSON.stringify([said.instances, said.wish, said.models]);
  if (now === shown) return;
  shown = now;
  const wish = new Map((said.wish ?? []).map((w) => [w.name ?? w.target, w]));
  at("instances").replaceChildren(...(said.models?.length ? said.models.map((m) => model(m, wish.get(m.name), said.instances)) : [el("p", { class: "hint" }, t.no_model_runs)]));
}

async function events() {
  const found = await api("/api/logs").catch(() => null);
  if (!found) return;
  at("events").replaceChildren(...(found.events ?? []).slice(-30).reverse().map((e) => el("li", {}, `${new Date(e.time_s * 1000).toLocaleTimeString()}  ${e.instance || ""} ${e.kind}: ${e.message}`)));
}

async function builds() {
  const found = await attempt(() => api("/api/builds"));
  if (!found) return;
  at("builds").replaceChildren(found.length ? table([t.build, t.backend, t.size, t.state], found.map((b) => [b.version || b.id, b.backend, size(b.size_bytes), [b.current ? el("span", { class: "badge ready" }, t.current) : "", b.proven ? ` ${t.proven}` : ""]])) : el("p", { class: "hint" }, t.no_build));
  at("back").hidden = found.length < 2;
}

at("serve").addEventListener("click", () => openSheet({ begun: () => jobs.show() }));
at("upgrade").addEventListener("click", async () => { await attempt(() => api("/api/upgrade", {})); jobs.show(); });
at("back").addEventListener("click", async () => { if (!confirm(t.roll_back)) return; await attempt(() => api("/api/upgrade", { back: true })); jobs.show(); });
show();
events();
builds();
setInterval(() => { if (!document.hidden) show(); }, 1000);
setInterval(() => { if (!document.hidden) events(); }, 5000);
const wanted = new URLSearchParams(location.search).get("serve");
if (wanted) openSheet({ model: wanted, begun: () => jobs.show() });
