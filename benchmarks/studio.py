"""Measures the web page in headless Chromium: `make bench-studio`. Processes, playwright.

A scripted endpoint streams code, tables, lists and mathematics at a steady pace; the page shows it in three panes while
keys are typed. It is a process of its own, so its time is not counted. What is measured:

    main thread  share of wall time in tasks (CDP, `Performance.getMetrics`)
    frames       gaps between animation frames; a frame is dropped where a gap is longer than one and a half frames
    key to frame from a key's event to the next animation frame
    server       processor time of the page's process by 1,000 tokens, its memory, and its share of a core at rest
    page         kB of a first visit, first contentful paint
    long chat    from the address to the last message of a chat of 300,000 tokens

With `--peer FOLDER` llama.cpp's own page (its `tools/ui/dist`, built) is measured in the same run, with one answer
where ours shows three.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from playwright.sync_api import Browser, CDPSession
from playwright.sync_api import Page as Tab

from benchmarks.llama_page import llama_page
from nemotron_ops.studio.threads.store import Store, new_id
from nemotron_ops.studio.threads.tree import Message
from tests.fakes.endpoint import Script, endpoint
from tests.stages.browser import Visit, chromium
from tests.stages.studio import Page, page

MIXED = """## A heading

Some words with **weight**, `code`, $x^2 + y^2 = z^2$ and a [link](https://example.org).

| name | value | unit |
| --- | ---: | --- |
| alpha | 1.25 | m |
| beta | 2.5 | s |

```python
def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
```

- one item of a list
- another one, which is longer than the first

$$\\int_0^1 \\frac{1}{1 + x^2}\\,dx = \\frac{\\pi}{4}$$

"""
PROBE = """() => {
  const probe = { gaps: [], keys: [], last: performance.now() };
  globalThis.probe = probe;
  const frame = (now) => { probe.gaps.push(now - probe.last); probe.last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  addEventListener('keydown', (e) => {
    const at = e.timeStamp;
    requestAnimationFrame(() => probe.keys.push(performance.now() - at));
  }, true);
}"""
FRAME_MS = 1000 / 60


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is streamed."""

    panes: int = 3
    tokens: int = 3000  # of each pane
    rate: int = 120  # tokens a second and pane


def pieces(count: int) -> list[str]:
    """Mixed text as `count` pieces of about four letters."""
    text = MIXED * (1 + 4 * count // len(MIXED))
    return [text[4 * n : 4 * n + 4] for n in range(count)]


def serve_script(load: Load, pipe: Any) -> None:
    """The scripted endpoint's process: tells its address, and serves until it is ended."""
    with endpoint(Script(tokens=pieces(load.tokens), pace_s=1 / load.rate)) as base:
        pipe.send(base)
        pipe.recv()


def serve_peer(folder: Path, load: Load, pipe: Any) -> None:
    """The process of llama.cpp's page: tells its address, and serves until it is ended."""
    with llama_page(folder, pieces(load.tokens), 1 / load.rate) as base:
        pipe.send(base)
        pipe.recv()


@contextmanager
def streaming(load: Load, peer: Path | None = None) -> Iterator[str]:
    """The address of a scripted endpoint in a process of its own, or of llama.cpp's page in `peer` before one."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    if peer is None:
        child = context.Process(target=serve_script, args=(load, there), daemon=True)
    else:
        child = context.Process(target=serve_peer, args=(peer, load, there), daemon=True)
    child.start()
    try:
        yield str(here.recv())
    finally:
        here.send("end")
        child.join(10)


def busy_s(session: CDPSession) -> float:
    """Seconds of the main thread in tasks so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))


def measure_panes(visit: Visit, studio: Page, load: Load) -> dict[str, float]:
    """Stream into the panes while keys are typed."""
    tab = visit.tab
    tab.goto(f"{studio.base}/compare")
    for _ in range(load.panes - 2):
        tab.get_by_role("button", name="Add a pane").click()
    assert studio.process is not None
    process = psutil.Process(studio.process.pid)
    session = visit.context.new_cdp_session(tab)
    session.send("Performance.enable")
    tab.fill("#question", "Write at length.")
    tab.evaluate(PROBE)
    cpu, busy, begun = sum(process.cpu_times()[:2]), busy_s(session), time.monotonic()
    tab.click("#send")
    tab.locator(".pane .said").first.wait_for()
    tab.locator("#question").focus()
    while tab.locator('.pane article[aria-busy="true"]').count():
        tab.keyboard.press("x")
        time.sleep(0.5)
    wall = time.monotonic() - begun
    return {
        "main thread busy": (busy_s(session) - busy) / wall,
        **frames(tab),
        "server CPU ms per 1,000 tokens": (sum(process.cpu_times()[:2]) - cpu) * 1e6 / (load.panes * load.tokens),
        "server MiB after": process.memory_info().rss / 2**20,
        "tokens/s shown in all": load.panes * load.tokens / wall,
    }


def measure_peer(browser: Browser, folder: Path, load: Load) -> dict[str, float]:
    """llama.cpp's own page: a first visit, and one answer while keys are typed."""
    with streaming(load, folder) as base:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        tab = context.new_page()
        session = context.new_cdp_session(tab)
        found = first_visit(tab, session, base, "textarea")
        field = tab.locator("textarea").first
        field.fill("Write at length.")
        session.send("Performance.enable")
        tab.evaluate(PROBE)
        busy, begun = busy_s(session), time.monotonic()
        tab.keyboard.press("Enter")
        field.focus()
        while (wall := time.monotonic() - begun) < load.tokens / load.rate:
            tab.keyboard.press("x")
            time.sleep(0.5)
        found |= {"main thread busy": (busy_s(session) - busy) / wall, **frames(tab)}
        context.close()
    return found


def frames(tab: Tab) -> dict[str, float]:
    """What the probe has seen."""
    seen = tab.evaluate("() => globalThis.probe")
    gaps, keys = sorted(seen["gaps"]), sorted(seen["keys"])
    dropped = sum(max(0, round(gap / FRAME_MS) - 1) for gap in gaps if gap > 1.5 * FRAME_MS)
    return {
        "frames dropped": dropped / (len(gaps) + dropped),
        "longest gap ms": gaps[-1],
        "key to frame p50 ms": statistics.median(keys),
        "key to frame p95 ms": keys[int(0.95 * (len(keys) - 1))],
    }


def measure_first_visit(visit: Visit, studio: Page) -> dict[str, float]:
    """Weight and first paint of the chat page, from an empty cache."""
    session = visit.context.new_cdp_session(visit.tab)
    return first_visit(visit.tab, session, f"{studio.base}/chat", "#send")


def first_visit(tab: Tab, session: CDPSession, address: str, shown: str) -> dict[str, float]:
    """Weight and first paint of a page, until the element `shown` is there, and a second more."""
    sizes = [0]
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.on("Network.loadingFinished", lambda e: sizes.append(int(e["encodedDataLength"])))
    tab.goto(address)
    tab.locator(shown).first.wait_for()
    time.sleep(1)
    paint = tab.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return {"page kB": sum(sizes) / 1000, "first contentful paint ms": paint}


def measure_long_chat(visit: Visit, studio: Page, chat: str) -> dict[str, float]:
    """Open a chat of 300,000 tokens."""
    begun = time.monotonic()
    visit.tab.goto(f"{studio.base}/chat/{chat}")
    visit.tab.get_by_text("The very last words").wait_for()
    return {"chat of 300,000 tokens opens in s": time.monotonic() - begun}


def measure_rest(studio: Page, seconds: float = 10.0) -> dict[str, float]:
    """The page's process while a tab looks and nothing happens."""
    assert studio.process is not None
    process = psutil.Process(studio.process.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return {"server at rest, share of a core": (sum(process.cpu_times()[:2]) - before) / seconds}


def write_long_chat(folder: Path) -> str:
    """A stored chat of 300 questions and answers, 1,000 tokens each; returns its id."""
    store = Store(folder)
    chat, parent = store.create("A long one", {}), ""
    text = "".join(pieces(1000))
    for n in range(300):
        for role, content in (("user", f"Question {n}"), ("assistant", text)):
            last = n == 299 and role == "assistant"
            message = Message(
                id=new_id(), chat=chat.id, parent=parent, role=role, state="done", created_s=float(n),
                content=content + ("\n\nThe very last words" if last else ""),
            )  # fmt: skip
            store.add(message)
            parent = message.id
    store.close()
    return chat.id


@click.command()
@click.option("--tokens", default=3000, show_default=True, help="Tokens of each pane.")
@click.option("--rate", default=120, show_default=True, help="Tokens a second of each pane.")
@click.option("--panes", default=3, show_default=True, type=click.IntRange(2, 4))
@click.option("--peer", type=click.Path(exists=True, path_type=Path), help="llama.cpp's tools/ui/dist, built.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(tokens: int, rate: int, panes: int, peer: Path | None, as_json: bool) -> None:
    """Measure the web page in headless Chromium."""
    load = Load(panes=panes, tokens=tokens, rate=rate)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, streaming(load) as base:
        place = Path(folder) / "studio"
        place.mkdir(mode=0o700)
        chat = write_long_chat(place)
        with page(place, base) as studio, chromium() as browser:
            studio.set_up()
            visit = Visit(browser, studio.base, may_be_refused=True, viewport={"width": 1440, "height": 900})
            visit.log_in()
            found |= measure_first_visit(visit, studio)
            found |= measure_rest(studio)
            found |= measure_long_chat(visit, studio, chat)
            click.echo(f"streaming for {load.tokens / load.rate:.0f} s", err=True)
            found |= measure_panes(visit, studio, load)
            visit.context.close()
            other = measure_peer(browser, peer, load) if peer else {}
    if as_json:
        click.echo(json.dumps({"page": found, "llama.cpp's page": other}, indent=2))
        return
    for name, value in found.items():
        beside = f"   llama.cpp's page, one answer: {other[name]:10.3g}" if name in other else ""
        click.echo(f"{name:<36} {value:10.3g}{beside}")


if __name__ == "__main__":
    sys.exit(main())
