// Two to four panes: one question, models or settings side by side, at once or one after the other.
import { api, attempt, el, say, t } from "./base.js";
import { follow } from "./feed.js";
import { MessageView } from "./messages.js";

const at = (id) => document.getElementById(id);
const MOST = 4;
const panes = [];
let models = [];

const actions = { copy: (m, v) => navigator.clipboard.writeText(v.said.innerText), endThinking: (m) => api(`/api/messages/${m.id}/end-thinking`, {}) };

class Pane {
  constructor() {
    this.chat = "";
    this.leaf = "";
    this.views = new Map();
    this.model = el("select", { "aria-label": t.model });
    this.temperature = el("input", { type: "number", step: "0.05", placeholder: t.temperature, "aria-label": t.temperature });
    this.thinking = el("select", { "aria-label": t.thinking }, el("option", { value: "" }, `${t.thinking}: ${t.auto}`), el("option", { value: "on" }, `${t.thinking}: ${t.on}`), el("option", { value: "off" }, `${t.thinking}: ${t.off}`));
    this.better = el("button", { type: "button", class: "small", hidden: true, onclick: () => vote(this) }, t.vote);
    this.remove = el("button", { type: "button", class: "icon small", "aria-label": t.remove_pane, onclick: () => removePane(this) }, "×");
    this.list = el("div", { role: "log", "aria-live": "off", tabindex: "0", "aria-label": t.compare });
    this.root = el("section", { class: "pane" }, el("div", { class: "head" }, this.model, this.temperature, this.thinking, this.better, this.remove), this.list);
    this.fill();
  }

  fill() {
    const chosen = this.model.value;
    this.model.replaceChildren(...models.map((name) => el("option", { value: name }, name)));
    this.model.value = models.includes(chosen) ? chosen : models[Math.min(panes.length, models.length - 1)] ?? "";
  }

  settings() {
    const found = { model: this.model.value, thinking: { on: true, off: false }[this.thinking.value] };
    if (this.temperature.value !== "") found.temperature = Number(this.temperature.value);
    if (at("seed").checked) found.seed = 42;
    return found;
  }

  /** Ask, and resolve when the answer has ended. */
  async ask(content) {
    if (!this.chat) {
      this.chat = (await api("/api/chats", { title: `⇄ ${content}`.slice(0, 60), settings: this.settings() })).id;
      await api(`/api/chats/${this.chat}`, { archived: true });
    }
    await api(`/api/chats/${this.chat}/ask`, { content, parent: this.leaf, settings: this.settings() });
    const chat = await api(`/api/chats/${this.chat}`);
    this.leaf = chat.leaf;
    this.views.clear();
    this.list.replaceChildren(...chat.messages.map((m) => { const v = new MessageView(m, actions); this.views.set(m.id, v); return v.root; }));
    this.end?.();
    return new Promise((resolve) => {
      const done = () => { this.end?.(); this.end = null; this.better.hidden = false; resolve(); };
      const reload = async () => {
        const now = await api(`/api/chats/${this.chat}`);
        const last = now.messages.at(-1), made = new MessageView(last, actions);
        this.views.get(last.id)?.root.replaceWith(made.root);
        this.views.set(last.id, made);
        if (!made.running) done();
      };
      this.end = follow(this.chat, chat.at, (line) => queue(this, line, done), reload);
      if (![...this.views.values()].some((v) => v.running)) done();
    });
  }

  take(line, done) {
    const near = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < 60;
    this.views.get(line.turn)?.take(line);
    if (near) this.root.scrollTop = this.root.scrollHeight;
    if (line.end) done();
  }
}

// one paint for all panes
let waiting = [];
function queue(pane, line, done) {
  waiting.push([pane, line, done]);
  if (waiting.length === 1) requestAnimationFrame(() => { const all = waiting; waiting = []; for (const [p, l, d] of all) p.take(l, d); });
}

function addPane() {
  if (panes.length >= MOST) return;
  const made = new Pane();
  panes.push(made);
  at("panes").append(made.root);
  at("add").disabled = panes.length >= MOST;
  for (const pane of panes) pane.remove.disabled = panes.length <= 2;
}

function removePane(pane) {
  if (panes.length <= 2) return;
  pane.end?.();
  panes.splice(panes.indexOf(pane), 1);
  pane.root.remove();
  at("add").disabled = false;
  for (const one of panes) one.remove.disabled = panes.length <= 2;
}

/** At once, or in which order: as chosen, or as the memory plan says, loaded models first. */
async function order() {
  const how = at("turns").value, all = [...panes.keys()];
  if (how) return { together: how === "once", panes: all };
  const found = await api("/api/compare/order", { models: panes.map((pane) => pane.model.value) });
  at("why").textContent = found.together ? "" : say("asked_in_turn", { device: found.short.join(", ") });
  return found;
}

function hideNames(hidden) {
  for (const pane of panes) { pane.model.hidden = hidden; for (const v of pane.views.values()) v.head.hidden = hidden; }
}

function vote(pane) {
  hideNames(false);
  for (const one of panes) { one.better.hidden = true; one.root.classList.toggle("voted", one === pane); }
  at("notice").textContent = `${t.vote}: ${pane.model.value}`;
  setTimeout(() => { at("notice").textContent = ""; }, 4000);
}

at("add").addEventListener("click", addPane);
at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const content = at("question").value.trim();
  if (!content) return;
  at("send").disabled = true;
  at("question").value = "";
  await attempt(async () => {
    const { together, panes: turns } = await order();
    if (together) await Promise.all(panes.map((pane) => pane.ask(content)));
    else for (const n of turns) await panes[n].ask(content);
    hideNames(at("blind").checked);
  });
  at("send").disabled = false;
  at("spoken").textContent = t.answer_done;
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("ask").requestSubmit(); }
});
const found = await api("/api/status").catch(() => null);
models = found?.models.map((m) => m.id) ?? [];
addPane();
addPane();
at("send").disabled = false;
