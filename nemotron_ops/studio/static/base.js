// What all pages share: requests, texts, safe HTML, small notices. No other script of this site makes HTML from text.

const policy = globalThis.trustedTypes?.createPolicy("studio", { createHTML: (html) => html });
export const t = await fetch("/words.json").then((r) => r.json());
const token = document.querySelector('meta[name="form-token"]').content;

/** HTML that the server has cleaned, into an element. */
export function setHtml(element, html) {
  element.innerHTML = policy ? policy.createHTML(html) : html;
}

/** An element with attributes, properties that begin with "on", and children (texts stay texts). */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "value" || (key in made && typeof value !== "string")) made[key] = value;  // a textarea has no such attribute
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return made;
}

export function say(text, parts = {}) {
  return (t[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
}

let quiet;
export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { place.textContent = ""; }, 5000);
}

export class Failed extends Error {
  constructor(status, said) { super(said); this.status = status; }
}

/** JSON of a route. A session that has ended leads to the login, once. */
export async function api(path, body, { signal } = {}) {
  const options = body === undefined
    ? { signal }
    : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed(0, t.offline);
  }
  const value = await answer.json().catch(() => ({}));
  if (answer.status === 401 && value.login) leave();
  if (!answer.ok) throw new Failed(answer.status, value.error ?? t.failed);
  return value;
}

let leaving = false;
export function leave() {
  if (leaving) return;
  leaving = true;
  notice(t.session_over);
  setTimeout(() => { location.href = "/login"; }, 1500);
}

/** Send a file; answers what a message needs to carry it. */
export async function sendFile(file) {
  const form = await fetch(`/api/files?name=${encodeURIComponent(file.name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/x-www-form-urlencoded", "X-Form-Token": token, "X-File-Type": file.type },
    body: file,
  });
  const value = await form.json().catch(() => ({}));
  if (!form.ok) throw new Failed(form.status, value.error ?? t.failed);
  return value;
}

/** Run something, and tell what went wrong. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    notice(error.message || t.failed);
    return undefined;
  }
}

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${bytes >= 100 || at === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

/** Seconds for people. */
export function span(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  return s < 3600 ? `${Math.round(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.round(s % 3600 / 60)} min`;
}

export function table(head, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, head.map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, ...[cell].flat()))))));
}

/** A word that explains itself: a button, so that a key and a screen reader reach it, with its words in a popover. */
let terms = 0;
export function term(word, words) {
  const id = `term-${terms += 1}`;
  return el("span", { class: "term" }, el("button", { type: "button", class: "word", popovertarget: id, "aria-haspopup": "true" }, word), el("span", { id, popover: "", class: "words" }, words));
}

export function dialog(...content) {
  const box = document.getElementById("dialog");
  document.getElementById("dialog-body").replaceChildren(...content);
  if (!box.open) box.showModal();
  return box;
}
