// Tune: check data, train, and watch what is trained; all that is shown is read from the job's own record.
import { api, attempt, el, say, t, table } from "./base.js";
import { Jobs } from "./jobs.js";

const at = (id) => document.getElementById(id), form = at("train");
const WORKING = ["preparing", "training", "exporting", "proving"], SVG = "http://www.w3.org/2000/svg";
const jobs = new Jobs(at("jobs"), { wanted: (job) => /^tune /.test(job.title), ended: () => show(), empty: "" });

const given = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== "").map(([name, value]) => [name, name === "steps" ? Number(value) : value]));

at("check").addEventListener("click", async () => {
  if (!form.elements.data.reportValidity()) return;
  at("findings").replaceChildren(el("p", { class: "hint" }, t.loading));
  try {
    const found = await api("/api/tune/check", { data: form.elements.data.value });
    at("findings").replaceChildren(el("p", {}, say("tune_checked", { rows: found.rows, samples: found.samples, tokens: found.tokens, share: Math.round(100 * found.reasoning_share) })),
      found.findings.length ? table([t.tune_finding, t.tune_rows, ""], found.findings.map((f) => [el("span", { class: `badge ${f.level === "error" ? "failed" : ""}` }, f.name), `${f.count}: ${f.rows.join(", ")}${f.count > f.rows.length ? ", …" : ""}`, f.said])) : el("p", {}, t.tune_fine));
  } catch (error) { at("findings").replaceChildren(el("p", { class: "error" }, error.message)); }
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await attempt(() => api("/api/tune", given()))) { jobs.show(); show(); }
});

/** A loss curve. Numbers are for who cannot see it. */
function curve(losses) {
  if (losses.length < 2) return "";
  const low = Math.min(...losses), high = Math.max(...losses), span = high - low || 1;
  const made = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "polyline");
  made.setAttribute("viewBox", "0 0 300 60");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", say("tune_curve", { first: losses[0].toFixed(3), last: losses.at(-1).toFixed(3) }));
  line.setAttribute("points", losses.map((loss, n) => `${(300 * n / (losses.length - 1)).toFixed(1)},${(58 - 56 * (loss - low) / span).toFixed(1)}`).join(" "));
  made.append(line);
  return el("figure", { class: "curve" }, made, el("figcaption", { class: "hint" }, `${high.toFixed(3)} – ${low.toFixed(3)}`));
}

function row(job) {
  const act = (verb) => async () => { if (verb === "rm" && !confirm(`${t.delete} ${job.name}?`)) return; await attempt(() => api(`/api/tune/${job.name}/${verb}`, {})); jobs.show(); show(); };
  const working = WORKING.includes(job.state), over = ["paused", "stopped", "failed"].includes(job.state);
  return el("section", { class: "card wide", "aria-label": job.name },
    el("div", { class: "row" }, el("h3", {}, job.name), el("span", { class: `badge ${job.state}` }, t[`tune_${job.state}`] ?? job.state),
      el("span", { class: "hint" }, [job.recipe, say("tune_step", { n: job.step, all: job.steps || "?" }), job.loss ? say("tune_loss", { loss: Number(job.loss).toFixed(4) }) : ""].filter(Boolean).join(" · ")),
      el("span", { class: "push" }),
      job.state === "training" ? el("button", { class: "small", onclick: act("pause") }, t.pause) : "",
      over ? el("button", { class: "small", onclick: act("resume") }, t.resume) : "",
      working ? "" : el("button", { class: "small", onclick: act("rm") }, t.delete)),
    working && job.steps ? el("progress", { value: job.step, max: job.steps, "aria-label": job.name }) : "",
    job.reason ? el("p", { class: "error" }, job.reason) : "",
    job.state === "done" ? el("p", { class: "hint" }, say("tune_use", { recipe: job.recipe, name: job.name })) : "",
    curve(job.losses ?? []));
}

let timer, shown = "";
async function show() {
  clearTimeout(timer);
  const found = document.hidden ? null : await api("/api/tune").catch(() => null), now = JSON.stringify(found);
  if (found && now !== shown) {
    shown = now;
    at("tunes").replaceChildren(...(found.length ? found.map(row) : [el("p", { class: "hint" }, t.none_here)]));
  }
  timer = setTimeout(show, found?.some((job) => WORKING.includes(job.state)) ? 1500 : 6000);
}

show();
const stored = await api("/api/stored").catch(() => null);
at("recipes").replaceChildren(...(stored?.recipes ?? []).map((r) => el("option", { value: r.name })));
