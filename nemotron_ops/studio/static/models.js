// Models: search the hub, downloads, what is on disk, recipes.
import { api, attempt, dialog, el, size, t, table } from "./base.js";

const at = (id) => document.getElementById(id);

at("hub").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = at("words").value.trim();
  if (!words) return;
  at("found").replaceChildren(el("p", { class: "hint" }, t.loading));
  const found = await attempt(() => api(`/api/search?words=${encodeURIComponent(words)}`));
  const rows = (found?.models ?? found ?? []).map((m) => [m.repo ?? m.id, String(m.downloads ?? ""), m.gated ? "🔒" : "", el("button", { onclick: () => plan(m.repo ?? m.id) }, t.fits), el("button", { onclick: () => fetchModel(m.repo ?? m.id) }, t.download)]);
  at("found").replaceChildren(rows.length ? table([t.model, "↓", "", "", ""], rows) : el("p", { class: "hint" }, t.none_here));
});

async function plan(model) {
  dialog(el("p", {}, t.loading));
  const found = await attempt(() => api(`/api/plan?model=${encodeURIComponent(model)}`));
  if (!found) { at("dialog").close(); return; }
  const rows = found.quants.map((q) => {
    const fitting = q.contexts.filter((c) => c.fits);
    const words = q.unknown || (fitting.length ? `${t.fits_yes}: ${fitting.at(-1).placement.mode}` : `${t.fits_no}: ${q.contexts[0]?.why_not ?? ""}`);
    return [q.quant + (q.recommended ? " ★" : ""), size(q.weight_bytes), words, fitting.length ? String(fitting.at(-1).ctx_size) : "", el("button", { class: "small", onclick: () => { fetchModel(found.model, q.quant); at("dialog").close(); } }, t.download)];
  });
  dialog(el("h2", {}, model), rows.length ? table([el("abbr", { title: t.quant_help }, t.quant), t.size, el("abbr", { title: t.fits_help }, t.fits), t.context, ""], rows) : "", el("details", {}, el("summary", {}, t.plan), el("pre", {}, JSON.stringify(found, null, 2))));
}

async function fetchModel(model, quant) {
  await attempt(() => api("/api/fetch", { model, quant }));
  showJobs();
}

async function showJobs() {
  const found = await api("/api/status").catch(() => null);
  if (!found) return;
  const rows = found.jobs.map((job) => {
    const { done, total, unit, rate_per_s: rate, eta_s: left } = job.step;
    const amount = unit === "B" ? `${size(done ?? 0)} / ${size(total ?? 0)}` : done === undefined ? "" : `${done} / ${total ?? "?"}`;
    const more = [rate ? `${size(rate)}/s` : "", left ? `${Math.round(left)} s` : ""].filter(Boolean).join(" · ");
    const act = job.state === "running"
      ? el("button", { onclick: async () => { await attempt(() => api(`/api/jobs/${job.id}/stop`, {})); showJobs(); } }, t.stop)
      : job.state === "done" ? "" : el("button", { onclick: () => fetchModel(job.title.replace(/^fetch /, "")) }, t.resume);
    return [el("span", { title: job.command }, job.title), el("span", { class: `badge ${job.state}` }, t[job.state] ?? job.state), total ? el("progress", { value: done, max: total, "aria-label": job.title }) : "", amount, more, act, job.state === "failed" ? el("span", { class: "error" }, job.lines.join(" ")) : ""];
  });
  if (rows.length) at("jobs").replaceChildren(table([t.model, t.state, "", "", "", "", ""], rows));
}

async function showDisk() {
  const found = await attempt(() => api("/api/stored"));
  if (!found) return;
  const models = found.models.models ?? found.models ?? [];
  at("disk").replaceChildren(models.length ? table([t.model, t.quant, t.size], models.map((m) => [m.id ?? m.repo ?? m.name, m.quant ?? "", size(m.size_bytes ?? 0)])) : el("p", { class: "hint" }, found.error || t.none_here));
  const recipes = found.recipes.recipes ?? found.recipes ?? [];
  at("recipes").replaceChildren(table([t.model, "", "", "", ""], recipes.map((r) => {
    const name = r.name ?? r;
    return [name, r.title, `${r.model} ${r.quant ?? ""}`, el("button", { onclick: () => plan(name) }, t.fits), el("button", { onclick: () => fetchModel(name) }, t.download)];
  })));
}

showDisk();
showJobs();
setInterval(() => { if (!document.hidden) showJobs(); }, 1500);
