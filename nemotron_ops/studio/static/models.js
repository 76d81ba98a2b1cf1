// Models: search the hub, downloads, what is on disk, recipes.
import { api, attempt, dialog, el, size, t, table, term } from "./base.js";
import { Jobs } from "./jobs.js";

const at = (id) => document.getElementById(id);
const jobs = new Jobs(at("jobs"), { wanted: (job) => /^(fetch|verify|import) /.test(job.title), ended: () => showDisk() });

at("hub").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = at("words").value.trim();
  if (!words) return;
  at("found").replaceChildren(el("p", { class: "hint" }, t.loading));
  let found = [];
  try { found = await api(`/api/search?words=${encodeURIComponent(words)}`); }
  catch (error) { at("found").replaceChildren(el("p", { class: "error" }, error.message)); return; }
  const rows = found.map((m) => [
    [el("strong", {}, m.repo), m.gated ? term(t.gated, t.gated_help) : "", m.why ? el("p", { class: "hint" }, m.why) : ""],
    m.downloads.toLocaleString(), m.quants.length ? `${m.quants.length} · ${size(m.quants[0].size_bytes)} – ${size(m.quants.at(-1).size_bytes)}` : "",
    m.quants.length ? el("button", { onclick: () => plan(m.repo) }, t.choose_quant) : ""]);
  at("found").replaceChildren(rows.length ? table([t.model, t.downloads_a_month, term(t.quant, t.quant_help), ""], rows) : el("p", { class: "hint" }, t.nothing_found));
});

async function plan(model) {
  dialog(el("p", {}, t.planning));
  const found = await attempt(() => api(`/api/plan?model=${encodeURIComponent(model)}`));
  if (!found) { at("dialog").close(); return; }
  const rows = found.quants.map((q) => {
    const fitting = q.contexts.filter((c) => c.fits);
    const place = fitting.at(-1)?.placement;
    const words = q.unknown || (place ? `${t.fits_yes}: ${t[`mode_${place.mode}`] ?? place.mode}` : `${t.fits_no}: ${q.contexts[0]?.why_not ?? ""}`);
    return [q.quant + (q.recommended ? ` ★ ${t.recommended}` : ""), size(q.weight_bytes), words, q.largest_context ? q.largest_context.toLocaleString() : "",
      el("button", { class: "small", onclick: () => { fetchModel(model, q.quant); at("dialog").close(); } }, t.download)];
  });
  dialog(el("h2", {}, model), rows.length ? table([term(t.quant, t.quant_help), t.size, term(t.fits, t.fits_help), term(t.most_context, t.context_help), ""], rows) : "");
}

async function fetchModel(model, quant) {
  await attempt(() => api("/api/fetch", { model, quant }));
  jobs.show();
}

async function removeModel(model) {
  const would = await attempt(() => api("/api/models/remove", { model }));
  if (!would || !confirm(`${t.delete} ${model} (${size(would.size_bytes)})?`)) return;
  await attempt(() => api("/api/models/remove", { model, sure: true }));
  showDisk();
}

async function showDisk() {
  const found = await attempt(() => api("/api/stored"));
  if (!found) return;
  at("disk").replaceChildren(found.models.length ? table([t.model, t.size, ""], found.models.map((m) => [m.id, size(m.size_bytes), [
    el("a", { class: "button small", href: `/run?serve=${encodeURIComponent(m.id)}` }, `${t.start} …`),
    el("button", { class: "small", onclick: async () => { await attempt(() => api("/api/models/verify", { model: m.id })); jobs.show(); } }, t.verify),
    el("button", { class: "small", onclick: () => removeModel(m.id) }, t.delete)]])) : el("p", { class: "hint" }, found.error || t.none_here));
  at("recipes").replaceChildren(table([t.model, "", "", ""], found.recipes.map((r) => [el("strong", {}, r.name), r.title, `${r.model} ${r.quant ?? ""}`, [
    el("button", { class: "small", onclick: () => plan(r.name) }, t.fits),
    el("button", { class: "small", onclick: () => fetchModel(r.name) }, t.download),
    el("a", { class: "button small", href: `/run?serve=${encodeURIComponent(r.name)}` }, `${t.start} …`)]])));
}

at("bring").addEventListener("submit", async (event) => {
  event.preventDefault();
  await attempt(() => api("/api/models/import", { path: at("path").value.trim() }));
  jobs.show();
});
showDisk();
