// The first three steps: what this machine has, a model that fits, go.
import { api, attempt, el, size, t } from "./base.js";
import { Jobs } from "./jobs.js";

const at = (id) => document.getElementById(id);
const MODES = ["all on GPU", "experts on CPU", "some layers on GPU", "CPU only"];
let ready = false;

async function machine() {
  const found = await api("/api/doctor").catch(() => null);
  const findings = found?.facts?.findings ?? [];
  const shown = findings.filter((f) => ["GPU", "memory", "disk"].includes(f.what) || f.status === "missing");
  at("machine").replaceChildren(el("ul", {}, shown.map((f) => el("li", {}, `${t[`what_${f.what}`] ?? f.what}: ${f.found}`, f.fix ? ` — ${f.fix}` : ""))));
}

/** A card for each recipe at once; what fits is said as soon as its header is read. */
async function choices() {
  const found = await attempt(() => api("/api/stored"));
  const recipes = (found?.recipes ?? []).sort((a, b) => (a.name === "tiny") - (b.name === "tiny"));
  const cards = recipes.map((recipe) => {
    const words = el("p", { class: "hint" }, t.planning), start = el("button", { "aria-label": `${t.start}: ${recipe.name}`, onclick: () => begin(recipe.name) }, t.start);
    return { recipe, words, start, root: el("li", { class: "choice", "data-name": recipe.name }, el("div", {}, el("strong", {}, recipe.title), " ", el("code", {}, recipe.name), words), start) };
  });
  at("fitting").replaceChildren(el("ul", { class: "choices" }, cards.map((c) => c.root)), el("p", { class: "hint" }, t.welcome_more, " ", el("a", { href: "/models" }, t.models)));
  await Promise.all(cards.map(judge));
  const fitting = cards.filter((c) => c.mode !== undefined && c.recipe.name !== "tiny");
  const best = fitting.sort((a, b) => a.mode - b.mode || b.bytes - a.bytes)[0] ?? cards.find((c) => c.recipe.name === "tiny");
  if (!best) return;
  best.start.classList.add("primary");
  best.words.prepend(`★ ${t.recommended}. `);
}

async function judge(card) {
  try {
    const plan = await api(`/api/plan?model=${encodeURIComponent(card.recipe.name)}`);
    const quant = plan.quants.find((q) => q.recommended), cell = quant?.contexts.find((c) => c.ctx_size === plan.recommended.ctx_size);
    if (!cell) throw new Error(`${t.fits_no}: ${plan.quants.at(0)?.contexts.at(0)?.why_not ?? ""}`);
    Object.assign(card, { mode: MODES.indexOf(cell.placement.mode), bytes: quant.weight_bytes });
    card.words.textContent = `${t.fits_yes}: ${t[`mode_${cell.placement.mode}`] ?? cell.placement.mode}. ${quant.quant}, ${size(quant.weight_bytes)}`;
  } catch (error) {
    card.words.textContent = error.message;
    card.start.disabled = error.status === undefined;
  }
}

async function begin(model) {
  if (await attempt(() => api("/api/serve", { op: "add", model }))) jobs.show();
}

async function models() {
  const found = await api("/api/status").catch(() => null);
  const names = (found?.models ?? []).map((m) => m.id);
  const loads = (found?.supervisor.instances ?? []).filter((i) => i.state === "ready");
  if (names.length && loads.length && !ready) {
    ready = true;
    at("running").replaceChildren(el("p", {}, t.welcome_ready, " ", ...names.map((n) => el("span", { class: "badge ready" }, n))));
    at("go").textContent = t.welcome_ask;
    at("go").href = "/chat";
  }
  setTimeout(models, ready ? 5000 : 1000);
}

const jobs = new Jobs(at("jobs"), { wanted: (job) => job.title.startsWith("add ") && job.state !== "done", ended: () => models(), empty: "" });
machine();
choices();
models();
