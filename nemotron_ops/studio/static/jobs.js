// The list of jobs: what it does, how far it is, how long it takes, why it ended.
import { api, attempt, el, say, size, span, t } from "./base.js";

/** Shows jobs in `place` and keeps them fresh while the page is visible. `wanted` chooses, `ended` is told of each end. */
export class Jobs {
  constructor(place, { wanted = () => true, ended = () => {}, empty = t.none_here } = {}) {
    Object.assign(this, { place, wanted, ended, empty, states: new Map(), shown: "" });
    this.show();
  }

  async show() {
    clearTimeout(this.timer);
    const found = document.hidden ? null : await api("/api/jobs").catch(() => null);
    if (found) this.draw(found.filter(this.wanted));
    const runs = [...this.states.values()].includes("running");
    this.timer = setTimeout(() => this.show(), runs ? 700 : 4000);
  }

  draw(jobs) {
    for (const job of jobs) {
      if (this.states.get(job.id) === "running" && job.state !== "running") this.ended(job);
    }
    this.states = new Map(jobs.map((job) => [job.id, job.state]));
    const now = JSON.stringify(jobs);
    if (now === this.shown) return;
    this.shown = now;
    this.place.replaceChildren(...(jobs.length ? jobs.map((job) => this.row(job)) : [el("p", { class: "hint" }, this.empty)]));
  }

  row(job) {
    const { what, done, total, eta_s: left } = job.step, running = job.state === "running";
    const post = async (verb) => { await attempt(() => api(`/api/jobs/${job.id}/${verb}`, {})); this.show(); };
    return el("section", { class: "job", "aria-label": job.title },
      el("div", { class: "row" }, el("strong", { title: job.command }, job.title), el("span", { class: `badge ${job.state}` }, t[`is_${job.state}`] ?? t[job.state] ?? job.state),
        running ? el("button", { class: "small", onclick: () => post("stop") }, t.stop) : "",
        ["failed", "stopped"].includes(job.state) ? el("button", { class: "small", onclick: () => post("again") }, t.resume) : "",
        running ? "" : el("button", { class: "small", "aria-label": `${t.forget}: ${job.title}`, onclick: () => post("forget") }, "×")),
      running && total ? el("progress", { value: done ?? 0, max: total, "aria-label": `${job.title}: ${what ?? ""}` }) : "",
      running ? el("p", { class: "hint" }, [what ?? t.starting, amount(job.step), left ? say("left", { time: span(left) }) : ""].filter(Boolean).join(" · ")) : "",
      running && job.lines.length ? el("p", { class: "hint" }, job.lines.at(-1)) : "",
      job.cause && job.state === "failed" ? el("p", { class: "error" }, job.cause) : "");
  }
}

/** How much of a step is done, in its unit, with the rate. */
function amount({ done, total, unit, rate_per_s: rate }) {
  if (done === undefined) return "";
  if (unit === "B") return `${size(done)}${total ? ` / ${size(total)}` : ""}${rate ? ` · ${size(rate)}/s` : ""}`;
  if (unit === "%") return `${Math.round(done)} %`;
  return total ? `${done} / ${total}` : String(done);
}
