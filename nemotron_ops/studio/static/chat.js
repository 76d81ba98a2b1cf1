// The chat page: list of chats, the branch that is shown, questions and running answers.
import { api, attempt, dialog, el, notice, say, sendFile, t } from "./base.js";
import { follow } from "./feed.js";
import { MessageView } from "./messages.js";
import { Sheet } from "./sheet.js";

const at = (id) => document.getElementById(id);
const list = at("messages"), question = at("question"), form = at("ask");
const sheet = new Sheet({ changed: () => countSoon(), asked: () => ({ model: at("model").value, thinking: at("thinking").value }) });
const state = { chat: at("thread").dataset.chat, leaf: "", views: new Map(), end: null, files: [], running: null, bottom: true, contexts: null };

// ---- the list of chats

async function showChats() {
  const chats = await attempt(() => api(`/api/chats?words=${encodeURIComponent(at("words").value)}&archived=${Number(at("archived").checked)}`));
  if (!chats) return;
  at("chats").replaceChildren(...chats.map((chat) => el("li", { class: chat.id === state.chat ? "shown" : "" },
    el("a", { href: `/chat/${chat.id}`, title: chat.title, onclick: (e) => { if (e.button === 0 && !e.ctrlKey && !e.metaKey) { e.preventDefault(); open(chat.id); } } }, (chat.pinned ? "★ " : "") + (chat.title || t.untitled)),
    el("button", { class: "icon", "aria-label": `${t.rename}: ${chat.title}`, onclick: () => manage(chat) }, "⋯"))));
  if (!chats.length) at("chats").replaceChildren(el("li", { class: "hint" }, t.no_chats));
}

function manage(chat) {
  const title = el("input", { value: chat.title, "aria-label": t.rename });
  const change = async (value) => { await attempt(() => api(`/api/chats/${chat.id}`, value)); at("dialog").close(); showChats(); };
  dialog(el("h2", {}, chat.title || t.untitled), el("label", {}, t.rename, title),
    el("div", { class: "row" },
      el("button", { type: "button", class: "primary", onclick: () => change({ title: title.value }) }, t.save),
      el("button", { type: "button", onclick: () => change({ pinned: !chat.pinned }) }, chat.pinned ? t.unpin : t.pin),
      el("button", { type: "button", onclick: () => change({ archived: !chat.archived }) }, chat.archived ? t.unarchive : t.archive),
      el("button", { type: "button", onclick: async () => {
        if (!confirm(t.delete_chat)) return;
        await change({ delete: true });
        if (chat.id === state.chat) open("");
      } }, t.delete)));
}

// ---- one chat

async function open(chat, { push = true } = {}) {
  keepDraft();
  state.end?.();
  Object.assign(state, { chat, leaf: "", views: new Map(), end: null, running: null, bottom: true });
  if (push) history.pushState(null, "", chat ? `/chat/${chat}` : "/chat");
  at("side").classList.remove("open");
  list.replaceChildren();
  if (push) question.value = "";  // what was typed before this script ran stays
  if (!chat) {
    list.append(el("div", { class: "empty" }, el("h1", {}, t.empty_title), el("p", {}, t.empty_words)));
    showChats(); running(null); question.focus();
    return;
  }
  await load();
  showChats();
  question.focus();
}

async function load() {
  const chat = await attempt(() => api(`/api/chats/${state.chat}`));
  if (!chat || chat.id !== state.chat) return;
  state.end?.();
  state.leaf = chat.leaf;
  sheet.set(chat.settings);
  chooseModel(chat.settings.model ?? "");
  if (!question.value) question.value = sessionStorage.getItem(`draft:${chat.id}`) ?? chat.draft;
  state.drafted = chat.id;
  if (question.value !== chat.draft) draftSoon();
  state.views.clear();
  list.replaceChildren();
  if (chat.earlier) list.append(earlier());
  for (const message of chat.messages) list.append(view(message).root);
  running([...state.views.values()].find((v) => v.running) ?? null);
  if (!state.running) announce([...state.views.values()].at(-1)?.message.state);
  state.bottom = true;
  toBottom();
  grow();
  document.title = `${chat.title || t.untitled} · ${t.title}`;
  state.end = follow(state.chat, chat.at, take, load);
  countSoon();
}

function earlier() {
  const button = el("button", { type: "button", onclick: async () => {
    const first = [...state.views.keys()][0];
    const more = await attempt(() => api(`/api/chats/${state.chat}?before=${first}`));
    if (!more) return;
    const height = list.scrollHeight, old = [...state.views];
    state.views = new Map();
    const made = more.messages.map((m) => view(m).root);
    for (const [id, one] of old) state.views.set(id, one);
    button.replaceWith(...(more.earlier ? [earlier()] : []), ...made);
    list.scrollTop += list.scrollHeight - height;
  } }, t.earlier);
  return button;
}

function view(message) {
  const made = new MessageView(message, actions);
  made.summary.addEventListener("click", () => { made.touched = true; });
  state.views.set(message.id, made);
  return made;
}

// ---- the feed: one paint for all lines of a frame

let waiting = [];
function take(line) {
  waiting.push(line);
  if (waiting.length === 1) requestAnimationFrame(paint);
}

function paint() {
  const lines = waiting;
  waiting = [];
  let reload = false;
  for (const line of lines) {
    const one = state.views.get(line.turn);
    if (!one) { reload = true; continue; }
    one.take(line);
    if (line.end) {
      running(null);
      announce(line.state);
      countSoon();
    }
  }
  if (reload) load(); else toBottom();
}

/** Told once, when an answer that was asked for here has ended. */
function announce(how) {
  if (!state.awaited) return;
  at("spoken").textContent = how === "done" ? t.answer_done : "";
  state.awaited = false;
}

function toBottom() {
  if (state.bottom) list.scrollTop = list.scrollHeight;
  at("end").hidden = state.bottom;
}

list.addEventListener("scroll", () => {
  state.bottom = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  at("end").hidden = state.bottom;
}, { passive: true });
at("end").addEventListener("click", () => { state.bottom = true; toBottom(); });

function running(one) {
  state.running = one;
  at("send").textContent = one ? t.stop : t.send;
}

// ---- asking

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (state.running) { await attempt(() => api(`/api/messages/${state.running.message.id}/stop`, {})); return; }
  const content = question.value;
  if (!content.trim() && !state.files.length) return;
  if (at("gauge").classList.contains("full")) { await count(); if (at("gauge").classList.contains("full")) { notice(t.too_long); return; } }
  at("send").disabled = true;
  await attempt(async () => {
    if (!state.chat) {
      const made = await api("/api/chats", { settings: settings() });
      state.chat = made.id;
      history.pushState(null, "", `/chat/${made.id}`);
    }
    await api(`/api/chats/${state.chat}/ask`, { content, parent: state.leaf, attachments: state.files, settings: settings() });
    await api(`/api/chats/${state.chat}`, { settings: settings() });
    question.value = "";
    keepDraft();
    state.files = [];
    showFiles();
    at("spoken").textContent = "";
    state.awaited = true;
    await load();
    showChats();
  });
  at("send").disabled = false;
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  if (event.key === "Escape" && state.running) form.requestSubmit();
});
question.addEventListener("input", () => { grow(); countSoon(); draftSoon(); });
question.addEventListener("paste", async (event) => {
  const files = [...(event.clipboardData?.files ?? [])], text = event.clipboardData?.getData("text") ?? "";
  if (files.length) { event.preventDefault(); await addFiles(files); }
  else if (text.length > 8000) { event.preventDefault(); await addFiles([new File([text], "paste.txt", { type: "text/plain" })]); }
});

function grow() {
  question.rows = Math.min(14, Math.max(1, question.value.split("\n").length));
}

let draftTimer;
function draftSoon() { clearTimeout(draftTimer); draftTimer = setTimeout(keepDraft, 800); }
function keepDraft() {
  clearTimeout(draftTimer);
  const { chat } = state, draft = question.value;
  if (!chat || state.drafted !== chat) return;  // before its load, the field says nothing of this chat
  sessionStorage.setItem(`draft:${chat}`, draft);  // until the server has it: the session may have ended
  api(`/api/chats/${chat}`, { draft }).then(() => sessionStorage.removeItem(`draft:${chat}`), () => {});
}

async function addFiles(files) {
  for (const file of files) {
    if (file.type.startsWith("image/") && blind()) { notice(t.no_pictures); continue; }
    const kept = await attempt(() => sendFile(file));
    if (kept) state.files.push(kept);
  }
  showFiles();
  countSoon();
}
function showFiles() {
  at("files").replaceChildren(...state.files.map((f) => el("li", {}, f.name, " ",
    el("button", { type: "button", class: "small", "aria-label": `${t.remove_file}: ${f.name}`, onclick: () => { state.files = state.files.filter((o) => o !== f); showFiles(); } }, "×"))));
}
at("attach").addEventListener("change", async (event) => { await addFiles([...event.target.files]); event.target.value = ""; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); addFiles([...(event.dataTransfer?.files ?? [])]); });

function settings() { return { ...sheet.values(), model: at("model").value, thinking: { on: true, off: false }[at("thinking").value] }; }

// ---- what a message can do

const actions = {
  show: async (id) => { await attempt(() => api(`/api/chats/${state.chat}`, { show: id })); load(); },
  copy: async (message) => { await attempt(() => navigator.clipboard.writeText(message.content || state.views.get(message.id).said.innerText)); notice(t.copied); },
  endThinking: (message) => attempt(() => api(`/api/messages/${message.id}/end-thinking`, {})),
  goOn: async (message) => { await attempt(() => api(`/api/messages/${message.id}/continue`, {})); load(); },
  regenerate: async (message) => { await attempt(() => api(`/api/messages/${message.id}/regenerate`, { settings: settings() })); load(); },
  fork: async (message) => { const made = await attempt(() => api(`/api/messages/${message.id}/fork`, {})); if (made) open(made.id); },
  edit: (message, one) => edit(message, one),
};

async function edit(message, one) {
  const whole = message.role === "user" ? message.content : (await attempt(() => api(`/api/chats/${state.chat}`)))?.messages.find((m) => m.id === message.id)?.content ?? message.content;
  const text = el("textarea", { rows: 8, value: whole, "aria-label": t.edit });
  const done = async () => {
    if (message.role === "user") await attempt(() => api(`/api/chats/${state.chat}/ask`, { content: text.value, parent: message.parent, settings: settings() }));
    else await attempt(() => api(`/api/messages/${message.id}/edit`, { content: text.value }));
    load();
  };
  one.said.replaceChildren(text, el("div", { class: "row" }, el("button", { type: "button", class: "primary", onclick: done }, message.role === "user" ? t.send : t.save), el("button", { type: "button", onclick: load }, t.cancel)));
  text.focus();
}

list.addEventListener("click", async (event) => {
  const button = event.target.closest(".code .copy");
  if (!button) return;
  await attempt(() => navigator.clipboard.writeText(button.parentElement.querySelector("pre").innerText));
  notice(t.copied);
});

// ---- the gauge

let countTimer;
function countSoon() { clearTimeout(countTimer); countTimer = setTimeout(count, 600); }
async function count() {
  if (!state.chat || state.running) return;
  const chat = state.chat;
  const found = await api(`/api/chats/${chat}/count`, { content: question.value, parent: state.leaf, settings: settings() }).catch(() => null);
  if (!found || chat !== state.chat || found.tokens === null || found.tokens === undefined) { at("gauge").textContent = ""; return; }
  const most = context(), full = most > 0 && found.tokens >= most;
  at("gauge").textContent = full ? t.too_long : say("tokens_of", { n: found.tokens, all: most || "?" });
  at("gauge").classList.toggle("full", full);
  at("send").disabled = full;
}

// ---- models

async function showModels() {
  const found = await api("/api/status").catch(() => null);
  if (!found) return;
  const select = at("model"), chosen = select.value || select.dataset.wanted || "";
  const names = found.models.map((m) => m.id);
  const first = names.length > 1 ? [] : [el("option", { value: "" }, names.length ? t.default_model : t.no_model)];  // of several, one is named
  select.replaceChildren(...first, ...names.map((n) => el("option", { value: n }, n)));
  chooseModel(chosen);
  state.contexts = new Map();
  state.seeing = new Set();
  for (const model of found.supervisor.models ?? []) {
    const slots = found.supervisor.instances.filter((i) => i.model === model.name).map((i) => i.ctx_tokens ?? 0);
    const sees = found.supervisor.instances.some((i) => i.model === model.name && i.sees);
    for (const name of model.names) { state.contexts.set(name, Math.max(0, ...slots)); if (sees) state.seeing.add(name); }
  }
}
/** The context of the chosen model; of the only one, or the least, where none is chosen. */
function context() {
  const all = [...(state.contexts ?? new Map()).values()].filter(Boolean);
  return state.contexts?.get(at("model").value.split(":")[0]) ?? (all.length ? Math.min(...all) : 0);
}
/** Whether the chosen model is known to see no pictures. */
function blind() {
  const name = at("model").value.split(":")[0];
  return name ? state.contexts?.has(name) && !state.seeing.has(name) : state.contexts?.size > 0 && !state.seeing.size;
}
function chooseModel(name) {
  const select = at("model");
  select.dataset.wanted = name;
  if ([...select.options].some((o) => o.value === name)) select.value = name;
}

// ---- begin

at("new").addEventListener("click", () => open(""));
at("words").addEventListener("input", () => { clearTimeout(showChats.timer); showChats.timer = setTimeout(showChats, 200); });
at("archived").addEventListener("change", showChats);
at("toggle").addEventListener("click", () => { const is = at("side").classList.toggle("open"); at("toggle").setAttribute("aria-expanded", String(is)); });
at("preview").addEventListener("click", () => attempt(async () => {
  const found = await api(`/api/chats/${state.chat}/preview`, { content: question.value, parent: state.leaf, settings: settings() });
  dialog(el("h2", {}, t.prompt_preview), el("pre", {}, found.prompt), el("pre", { class: "hint" }, JSON.stringify(found.request, null, 2)));
}));
for (const link of document.querySelectorAll("#more a")) {
  link.addEventListener("click", (event) => { event.preventDefault(); if (state.chat) location.href = `/api/chats/${state.chat}/export.${link.dataset.kind}`; });
}
addEventListener("popstate", () => open(location.pathname.split("/")[2] ?? "", { push: false }));
addEventListener("pagehide", keepDraft);
at("model").dataset.wanted = new URLSearchParams(location.search).get("model") ?? "";
await showModels();
setInterval(() => { if (!document.hidden) showModels(); }, 10000);
await open(state.chat, { push: false });
at("send").disabled = false;
