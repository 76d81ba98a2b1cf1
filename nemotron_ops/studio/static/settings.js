// Language, presets, keys, tools, sessions, password.
import { api, attempt, el, notice, say, t, table } from "./base.js";

const at = (id) => document.getElementById(id);

at("language").addEventListener("change", (event) => {
  document.cookie = `nemotron_language=${event.target.value}; path=/; max-age=31536000; samesite=strict`;
  location.reload();
});

async function presets() {
  const found = await attempt(() => api("/api/presets"));
  const names = Object.keys(found ?? {});
  at("presets").replaceChildren(names.length ? table([t.preset, "", ""], names.map((name) => [name, JSON.stringify(found[name]),
    el("button", { class: "small", onclick: async () => { await attempt(() => api("/api/presets", { name, remove: true })); presets(); } }, t.delete)])) : el("p", { class: "hint" }, t.none_here));
}

async function sessions() {
  const found = await attempt(() => api("/api/sessions"));
  at("sessions").replaceChildren(table(["", "", ""], (found ?? []).map((s) => [s.agent, new Date(s.seen_s * 1000).toLocaleString(),
    s.this ? t.this_session : el("button", { class: "small", onclick: async () => { await attempt(() => api("/api/logout", { id: s.id })); sessions(); } }, t.end_session)])));
}

async function keys() {
  const found = await attempt(() => api("/api/keys"));
  if (!found) return;
  const revoke = async (key) => { if (!confirm(`${t.revoke} ${key.name}?`)) return; await attempt(() => api("/api/keys", { name: key.id, revoke: true })); keys(); };
  at("keys").replaceChildren(found.length ? table([t.key_name, "id", t.requests, "token", ""], found.map((key) => [key.name, el("code", {}, key.id ?? ""), String(key.used?.requests ?? ""), String(key.used?.tokens ?? ""),
    key.name === "studio" ? t.own_key : el("button", { class: "small", onclick: () => revoke(key) }, t.revoke)])) : el("p", { class: "hint" }, t.no_keys));
}

at("new-key").addEventListener("submit", async (event) => {
  event.preventDefault();
  const made = await attempt(() => api("/api/keys", Object.fromEntries(new FormData(event.target))));
  if (!made) return;
  at("key-text").hidden = false;
  at("key-text").replaceChildren(t.key_once, " ", el("code", {}, made.text), " ", el("button", { class: "small", onclick: async () => { await attempt(() => navigator.clipboard.writeText(made.text)); notice(t.copied); } }, t.copy));
  event.target.reset();
  keys();
});

/** Sandboxes of this machine, and which tools models have. Without a sandbox that holds, code stays off. */
async function tools(change) {
  at("tools").replaceChildren(el("p", { class: "hint" }, t.tools_holding));
  const found = await attempt(() => api("/api/tools", change));
  if (!found) { at("tools").replaceChildren(el("p", { class: "error" }, t.failed)); return; }
  const walls = found.backends.map((b) => [b.backend, b.works ? say("tools_held", { held: b.attacks_held, all: b.attacks }) : [b.reason, b.fix ? el("p", { class: "hint" }, b.fix) : ""]]);
  const rows = ["python", "web", "mcp"].map((tool) => {
    const on = found.enabled.includes(tool), able = tool !== "python" || found.backend;
    return [t[`tool_${tool}`], on && able ? t.on : t.off, el("button", { class: "small", disabled: !able && !on, onclick: () => tools({ tool, on: !on }) }, on ? t.tools_off : t.tools_on)];
  });
  at("tools").replaceChildren(found.backend ? el("p", {}, say("tools_wall", { name: found.backend })) : el("p", { class: "error" }, t.tools_no_wall), table([t.tools_title, t.state, ""], rows), table([t.tools_sandbox, ""], walls));
}
at("tools-look").addEventListener("click", () => tools());

at("others").addEventListener("click", async () => { await attempt(() => api("/api/logout", { others: true })); sessions(); });
at("logout").addEventListener("click", async () => { await attempt(() => api("/api/logout", {})); location.href = "/login"; });
at("password").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, error = form.querySelector(".error");
  error.textContent = "";
  try {
    await api("/api/password", Object.fromEntries(new FormData(form)));
    form.reset();
    notice(t.done);
    sessions();
  } catch (failure) { error.textContent = failure.message; }
});
presets();
keys();
sessions();
