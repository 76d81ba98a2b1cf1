// The stream of one visible tab. A hidden tab lets go after ten seconds and joins again by number.
// A browser opens six connections to a host, and streams hold them: of many visible tabs, four have a stream, and the
// others ask every second.
import { leave } from "./base.js";

const STREAMS = 4, ASK_MS = 1000;

/** Run `work(true)` with one of the streams of this browser, or `work(false)` where all are taken. */
async function withStream(work) {
  const locks = navigator.locks;  // absent where the page is neither loopback nor HTTPS
  if (!locks) { await work(true); return; }
  for (let n = 0; n < STREAMS; n += 1) {
    const done = await locks.request(`nemotron-feed-${n}`, { ifAvailable: true }, async (lock) => { if (lock) await work(true); return Boolean(lock); });
    if (done) return;
  }
  await work(false);
}

/** Calls `onLine` with each line after number `at`; `onLost` when lines are gone. Returns a function that ends it. */
export function follow(chat, at, onLine, onLost) {
  let control = null, ended = false, hiddenAt = 0, wait = 250;

  async function run() {
    while (!ended) {
      if (document.hidden && hiddenAt) { await visible(); continue; }
      control = new AbortController();
      try {
        await withStream(async (streams) => {
          if (ended) return;
          const answer = await fetch(`/feed?chats=${chat}:${at}${streams ? "" : "&once=1"}`, { signal: control.signal });
          if (answer.status === 401) { ended = true; leave(); return; }
          if (!answer.ok) throw new Error(String(answer.status));
          wait = streams ? 250 : ASK_MS;
          await read(answer.body.getReader());
        });
      } catch (error) {
        if (ended) return;
      }
      if (!ended && !document.hidden) { await new Promise((r) => setTimeout(r, wait)); wait = Math.min(5000, wait * 2); }
    }
  }

  async function read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const found = JSON.parse(line);
        if (found.at === undefined) continue;
        at = found.at;
        if (found.lost) onLost(); else onLine(found);
      }
    }
  }

  const visible = () => new Promise((resolve) => {
    const look = () => { if (!document.hidden) { document.removeEventListener("visibilitychange", look); resolve(); } };
    document.addEventListener("visibilitychange", look);
    look();
  });

  let timer;
  const watch = () => {
    clearTimeout(timer);
    if (!document.hidden) { hiddenAt = 0; return; }
    timer = setTimeout(() => { hiddenAt = Date.now(); control?.abort(); }, 10000);
  };
  document.addEventListener("visibilitychange", watch);
  run();
  return () => { ended = true; clearTimeout(timer); document.removeEventListener("visibilitychange", watch); control?.abort(); };
}
