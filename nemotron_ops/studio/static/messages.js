// One message as elements, and the patches of a running answer.
import { el, setHtml, say, t, size } from "./base.js";

/** A place for blocks of HTML: patch(number, html) replaces one of them. */
function blocks(parent) {
  const found = [];
  return (number, html) => {
    while (found.length <= number) { const made = el("div", { class: "block" }); found.push(made); parent.append(made); }
    setHtml(found[number], html);
    for (const code of found[number].querySelectorAll(".code")) {
      if (!code.querySelector("button")) code.append(el("button", { class: "copy small", type: "button" }, t.copy));
    }
  };
}

export class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.root = el("article", { class: `message ${message.role}`, id: `m-${message.id}`, "aria-label": message.role === "user" ? t.you : t.model });
    this.head = el("header", {});
    this.thoughts = el("div", { class: "thoughts" });
    this.summary = el("summary", {}, t.thinking);
    this.details = el("details", { class: "thinking", hidden: true }, this.summary, this.thoughts);
    this.said = el("div", { class: "said" });
    this.problem = el("p", { class: "problem", hidden: true });
    this.tools = el("div", { class: "tools" });
    this.root.append(this.head, this.details, this.said, this.extras(), this.problem, this.tools);
    this.patchSaid = blocks(this.said);
    this.patchThought = blocks(this.thoughts);
    message.html.forEach((html, at) => this.patchSaid(at, html));
    message.thinking.forEach((html, at) => this.patchThought(at, html));
    if (message.thinking.length) this.details.hidden = false;
    this.state(message.state, message.error, message.made_by);
  }

  extras() {
    const { pictures, files } = this.message;
    return el("div", { class: "pictures" }, pictures.map((src) => el("img", { src, alt: "", loading: "lazy" })),
      files.map((f) => el("span", { class: "badge" }, `${f.name} · ${size(f.size_bytes)}`)));
  }

  /** A line of the feed. */
  take(line) {
    for (const [at, html] of line.t ?? []) { this.details.hidden = false; this.patchThought(at, html); }
    for (const [at, html] of line.p ?? []) this.patchSaid(at, html);
    if (line.thought_s) this.summary.textContent = say("thought_for", { s: line.thought_s });
    if (line.end) { this.message.made_by = line.made_by; this.message.error = line.error; }
    if (line.state !== this.message.state || line.end) this.state(line.state, line.error, this.message.made_by);
  }

  get running() { return ["queued", "thinking", "answering"].includes(this.message.state); }

  state(state, error, madeBy) {
    this.message.state = state;
    const made = madeBy ?? {};
    const model = made.model || made.settings?.model || made.instance || "";
    this.head.textContent = this.message.role === "user" ? t.you : [model, state === "queued" ? t.queued : ""].filter(Boolean).join(" · ");
    if (state === "thinking") { this.summary.textContent = t.thinking_now; this.details.open = true; }
    if (!["queued", "thinking"].includes(state)) {  // a quick answer is never seen in between
      if (this.summary.textContent === t.thinking_now) this.summary.textContent = t.thinking;
      if (!this.touched) this.details.open = false;
    }
    if (made.thought_s) this.summary.textContent = say("thought_for", { s: made.thought_s });
    const words = { length: t.state_length, stopped: t.state_stopped, cut: t.state_cut, failed: `${t.state_failed} ${error ?? ""}` }[state];
    const lost = made.lost_in_thought && !this.running ? t.lost_in_thought : "";
    this.problem.textContent = words ?? lost;
    this.problem.hidden = !(words ?? lost);
    this.root.setAttribute("aria-busy", String(this.running));
    this.showTools(made);
  }

  showTools(made) {
    const { message, actions } = this;
    const button = (word, act) => act && el("button", { type: "button", onclick: () => act(message, this) }, t[word]);
    const parts = [];
    if (this.running) {
      if (message.state === "thinking") parts.push(button("end_thinking", actions.endThinking));
    } else {
      parts.push(button("copy", actions.copy), button("edit", actions.edit));
      if (message.role === "assistant") {
        if (["length", "stopped", "cut"].includes(message.state) || (message.state === "failed" && message.html.length)) parts.push(button("continue", actions.goOn));
        parts.push(button("regenerate", actions.regenerate), button("fork", actions.fork), times(made));
      }
      parts.unshift(versions(message, actions));
    }
    this.tools.replaceChildren(...parts.filter(Boolean));
  }
}

function versions(message, actions) {
  const at = message.siblings.indexOf(message.id);
  if (message.siblings.length < 2) return null;
  const step = (by, label, sign) => el("button", {
    type: "button", "aria-label": label, disabled: !message.siblings[at + by], onclick: () => actions.show(message.siblings[at + by]),
  }, sign);
  return el("span", {}, step(-1, t.previous, "‹"), say("version_of", { n: at + 1, all: message.siblings.length }), step(1, t.next, "›"));
}

function times(made) {
  const tokens = made.usage?.completion_tokens ?? made.tokens;
  if (!tokens || !made.took_s) return null;
  const rate = made.timings?.predicted_per_second ?? tokens / Math.max(0.001, made.took_s - (made.first_s ?? 0));
  return el("span", { title: made.instance ?? "" }, `${say("tokens_per_s", { n: rate.toFixed(1) })} · ${say("first_after", { s: (made.first_s ?? 0).toFixed(2) })}`);
}
