// The sheet of parameters: an empty field is untouched and not sent. Presets.
import { api, attempt, el, t } from "./base.js";

export class Sheet {
  /** `changed` is called after each change; `asked` tells the model and the thinking switch. */
  constructor({ changed, asked }) {
    this.asked = asked;
    this.root = document.getElementById("sheet");
    this.fields = [...this.root.querySelectorAll("[name]")];
    this.preset = document.getElementById("preset");
    this.model = undefined;
    for (const field of this.fields) field.addEventListener("change", changed);
    const toggle = document.getElementById("tune");
    toggle.addEventListener("click", () => {
      this.root.hidden = !this.root.hidden;
      toggle.setAttribute("aria-expanded", String(!this.root.hidden));
      if (!this.root.hidden) { this.showPresets(); this.showAutomatic(); }
    });
    for (const id of ["model", "thinking"]) document.getElementById(id).addEventListener("change", () => this.showAutomatic());
    this.preset.addEventListener("change", () => { if (this.presets?.[this.preset.value]) this.set(this.presets[this.preset.value]); changed(); });
    document.getElementById("keep").addEventListener("click", async () => {
      const name = prompt(t.preset_name);
      if (!name) return;
      await attempt(() => api("/api/presets", { name, settings: this.values() }));
      this.showPresets();
    });
  }

  async showPresets() {
    this.presets = await api("/api/presets").catch(() => ({}));
    this.preset.replaceChildren(el("option", { value: "" }), ...Object.keys(this.presets).map((name) => el("option", { value: name }, name)));
  }

  /** What holds where a field is empty, and where that comes from. */
  async showAutomatic() {
    if (this.root.hidden) return;
    const asked = new URLSearchParams(this.asked()), found = await api(`/api/parameters?${asked}`).catch(() => null);
    for (const field of this.fields.filter((f) => f.type === "number")) {
      const one = found?.parameters[field.name];
      field.placeholder = one ? String(one.value) : t.auto;
      field.title = one ? `${one.source} · ${found.model}` : "";
      const told = field.parentElement.querySelector("small") ?? field.parentElement.insertBefore(el("small", { class: "hint" }), field);
      told.textContent = one?.source ?? "";
    }
  }

  set(settings) {
    for (const field of this.fields) {
      if (field.type === "checkbox") field.checked = settings[field.name] === true;
      else field.value = settings[field.name] ?? "";
    }
    const thinking = document.getElementById("thinking");
    if (thinking) thinking.value = { true: "on", false: "off" }[String(settings.thinking)] ?? "";
  }

  values() {
    const found = {};
    for (const field of this.fields) {
      if (field.type === "checkbox") { if (field.checked) found[field.name] = true; }
      else if (field.value !== "") found[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
    return found;
  }
}
