// The sheet before a start: model, context, quant, profile, slots, and the memory plan that follows them. Nothing loads
// before its button.
import { api, attempt, dialog, el, say, size, t, term } from "./base.js";

const CONTEXTS = [4096, 8192, 16384, 32768, 65536, 131072, 262144, 1048576];

/** Open the sheet. `model` is chosen already; `now` holds what it runs with, for a change; `begun` is told of the job. */
export async function openSheet({ model = "", now = null, begun = () => {} } = {}) {
  dialog(el("p", {}, t.loading));
  const stored = await attempt(() => api("/api/stored"));
  if (!stored) return;
  const sheet = new ServeSheet(stored, model, now, begun);
  dialog(sheet.root);
  sheet.planSoon(0);
}

class ServeSheet {
  constructor(stored, model, now, begun) {
    Object.assign(this, { recipes: stored.recipes, now, begun, serial: 0 });
    const names = [...stored.recipes.map((r) => r.name), ...stored.models.map((m) => m.id)];
    const changed = () => this.planSoon(300);
    this.model = el("input", { list: "model-names", value: model, readOnly: now !== null, required: true, placeholder: "30b, owner/name:QUANT, /path/model.gguf", onchange: () => { this.fill(); changed(); } });
    this.quant = el("select", { "aria-label": t.quant, onchange: changed });
    this.context = el("input", { "aria-label": t.context, type: "number", min: 256, step: 1, list: "contexts", placeholder: t.auto, oninput: changed });
    this.slots = el("input", { "aria-label": t.slots, type: "number", min: 1, max: 256, placeholder: t.auto, oninput: changed });
    this.profile = el("select", { "aria-label": t.profile, onchange: changed });
    this.plan = el("div", { class: "plan", "aria-live": "polite" });
    this.start = el("button", { class: "primary", type: "button", disabled: true, onclick: () => this.go() }, now ? t.change : t.start);
    this.root = el("div", { class: "serve" }, el("h2", {}, now ? say("change_of", { model }) : t.serve_a_model),
      el("datalist", { id: "model-names" }, names.map((n) => el("option", { value: n }))),
      el("datalist", { id: "contexts" }, CONTEXTS.map((n) => el("option", { value: n }))),
      el("label", {}, t.model, this.model),
      el("div", { class: "fields" },
        el("div", { class: "field" }, term(t.quant, t.quant_help), this.quant),
        el("div", { class: "field" }, term(t.context, t.context_help), this.context),
        el("div", { class: "field" }, term(t.slots, t.slots_help), this.slots),
        el("div", { class: "field" }, term(t.profile, t.profile_help), this.profile)),
      el("h3", {}, term(t.plan, t.fits_help)), this.plan,
      el("div", { class: "row" }, this.start, el("span", { class: "hint" }, t.serve_words)));
    this.fill();
    if (now?.ctx_size) this.context.value = now.ctx_size;
    if (now?.parallel) this.slots.value = now.parallel;
  }

  /** Quants are known after a plan; profiles from the recipe. */
  fill() {
    const recipe = this.recipes.find((r) => r.name === this.model.value.split(":")[0]);
    this.quant.replaceChildren(el("option", { value: this.now?.quant ?? "" }, this.now?.quant || t.auto));
    this.profile.replaceChildren(el("option", { value: "" }, t.auto), ...(recipe?.profiles ?? []).map((p) => el("option", { value: p }, p)));
    if (this.now?.profile) this.profile.value = this.now.profile;
  }

  get given() {
    const number = (field) => (field.value ? Number(field.value) : undefined);
    return { model: this.model.value.trim(), quant: this.quant.value || undefined, profile: this.profile.value || undefined, ctx_size: number(this.context), parallel: number(this.slots) };
  }

  planSoon(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.planNow(), ms);
  }

  async planNow() {
    const given = this.given, serial = this.serial += 1;
    if (!given.model) { this.plan.replaceChildren(el("p", { class: "hint" }, t.choose_model)); this.start.disabled = true; return; }
    this.plan.replaceChildren(el("p", { class: "hint" }, t.planning));
    const asked = new URLSearchParams(Object.entries({ ...given, quant: undefined }).filter(([, v]) => v !== undefined));
    let found = null, why = "";
    try { found = await api(`/api/plan?${asked}`); } catch (error) { why = error.message; }
    if (serial !== this.serial) return;
    if (!found) { this.plan.replaceChildren(el("p", { class: "error" }, why)); this.start.disabled = !this.model.value; return; }
    const chosen = found.quants.find((q) => q.quant === given.quant) ?? found.quants.find((q) => q.recommended) ?? found.quants[0];
    this.showQuants(found, given.quant);
    const context = given.ctx_size ?? found.recommended?.ctx_size;
    const cell = chosen.contexts.find((c) => c.ctx_size === context) ?? chosen.contexts.find((c) => c.fits) ?? chosen.contexts[0];
    this.plan.replaceChildren(...planLines(chosen, cell));
    this.start.disabled = !(cell?.fits || chosen.unknown);
  }

  showQuants(found, chosen) {
    const word = (q) => (q.recommended ? ` ★ ${t.recommended}` : q.contexts.some((c) => c.fits) || q.unknown ? "" : ` (${t.fits_no})`);
    this.quant.replaceChildren(el("option", { value: "" }, t.auto), ...found.quants.map((q) => el("option", { value: q.quant }, `${q.quant} · ${size(q.weight_bytes)}${word(q)}`)));
    this.quant.value = chosen ?? "";
  }

  async go() {
    this.start.disabled = true;
    const { model, ...options } = this.given;
    const job = await attempt(() => api("/api/serve", { op: this.now ? "change" : "add", model: this.now?.name ?? model, ...options }));
    if (!job) { this.start.disabled = false; return; }
    document.getElementById("dialog").close();
    this.begun(job);
  }
}

/** What of a plan a person reads: fits or not and why, a bar for each device, the parts. */
export function planLines(quant, cell) {
  if (quant.unknown) return [el("p", { class: "hint" }, quant.unknown)];
  if (!cell?.fits) return [el("p", { class: "error" }, `${t.fits_no}: ${cell?.why_not ?? ""}`)];
  const place = cell.placement, parts = place.estimate;
  const rows = Object.entries(place.bytes_by_device).map(([name, taken]) => {
    const room = place.free_bytes[name] || 1;
    return el("label", { class: "device" }, `${name}: ${size(taken)} / ${size(room)}`, el("meter", { value: taken, max: room, high: room * 0.9, "aria-label": name }));
  });
  const said = [[t.weights, parts.weights], [t.context_memory, parts.kv + parts.rs], [t.working_memory, parts.compute + parts.output], [t.prompt_cache, parts.prompt_cache_max + parts.checkpoints_max]];
  return [el("p", {}, `${quant.quant}, ${say("n_tokens", { n: cell.ctx_size.toLocaleString() })}: ${t[`mode_${place.mode}`] ?? place.mode}`), ...rows,
    el("p", { class: "hint" }, said.filter(([, n]) => n).map(([name, n]) => `${name} ${size(n)}`).join(", "))];
}
