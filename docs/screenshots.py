"""Makes the pictures of the web page in docs/images: `make screenshots`. Needs a build of llama.cpp and Chromium.

A real endpoint with the tiny model, a loopback hub, and a person who clicks; each page light and dark, wide and narrow.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from nemotron_ops.builds.store import store
from nemotron_ops.models.synthetic.shape import DENSE
from nemotron_ops.models.synthetic.write import write_sparse, write_tiny
from nemotron_ops.paths import user_layout
from tests.fakes.hub import Hub
from tests.fakes.ports import free_port
from tests.fakes.shapes import NANO_30B
from tests.stages.browser import Visit, chromium
from tests.stages.installation import installation_in, wait_for_line

IMAGES = Path(__file__).parent / "images"
WIDE, NARROW = {"width": 1180, "height": 780}, {"width": 390, "height": 780}
QUESTION = "What is 2 + 2?"


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """A hub with the 30B, of which only the header is real, and a small model."""
    with Hub() as made:
        for label, quant in (("UD-Q4_K_XL", "Q4_K"), ("Q8_0", "Q8_0")):
            name = f"Nemotron-3-Nano-30B-A3B-{label}.gguf"
            path = write_sparse(NANO_30B, folder / name, quant=quant)[0]
            made.add("unsloth/Nemotron-3-Nano-30B-A3B-GGUF", name, path, sha256="ab" * 32)
        made.add("owner/Nemotron-Mini-GGUF", "Mini-Q8_0.gguf", write_tiny(DENSE, folder / "Mini-Q8_0.gguf")[0])
        made.downloads = {"unsloth/Nemotron-3-Nano-30B-A3B-GGUF": 345678, "owner/Nemotron-Mini-GGUF": 12}
        yield made


class Album:
    """Takes the pictures of one look: wide or narrow, light or dark."""

    def __init__(self, browser: Browser, base: str, look: str, **context: Any) -> None:
        self.visit, self.look = Visit(browser, base, may_be_refused=True, **context), look
        self.tab = self.visit.tab

    def take(self, name: str) -> None:
        self.tab.wait_for_timeout(500)
        self.tab.screenshot(path=IMAGES / f"studio-{name}{self.look}.png")

    def go(self, path: str) -> None:
        self.tab.goto(f"{self.visit.base}/{path}")

    def pages(self) -> None:
        """Every page once a model runs."""
        self.go("welcome")
        expect(self.tab.locator('.choice[data-name="30b"]')).to_contain_text("UD-Q4_K_XL", timeout=60_000)
        self.take("welcome")
        self.go("chat")
        self.visit.ask(QUESTION, until="2 + 2 = 4.")
        self.take("chat")
        self.go("compare")
        self.tab.fill("#question", QUESTION)
        self.tab.click("#send")
        expect(self.tab.locator(".pane").nth(1)).to_contain_text("2 + 2 = 4.")
        self.take("compare")
        self.go("models")
        self.tab.fill("#words", "nemotron")
        self.tab.keyboard.press("Enter")
        self.tab.locator("#found table").wait_for()
        self.take("models")
        self.go("run?serve=30b")
        self.tab.locator(".plan :is(meter, .error)").first.wait_for(timeout=60_000)
        self.take("sheet")
        self.tab.get_by_role("button", name="Close").click()
        self.take("run")
        self.go("tune")
        self.tab.get_by_label("Model", exact=True).fill("tiny-train")
        self.tab.get_by_label("File of rows").fill(str(IMAGES.parent / "examples" / "greeting.jsonl"))
        self.tab.get_by_role("button", name="Check the data").click()
        expect(self.tab.locator("#findings")).to_contain_text("4 samples", timeout=60_000)
        self.tab.get_by_label("File of rows").fill("/data/greeting.jsonl")
        self.take("tune")
        self.go("settings")
        self.tab.get_by_role("button", name="Look what this machine has").click()
        expect(self.tab.locator("#tools")).to_contain_text("attacks", timeout=60_000)
        self.take("settings")


def main() -> None:
    """Take all pictures."""
    layout = user_layout(os.environ, uid=os.getuid())
    build = store.current(layout) or next(iter(store.listed(layout)), None)  # `make llama-cpp` makes none current
    assert build is not None, "make a build first: make llama-cpp"
    with tempfile.TemporaryDirectory() as folder, hub(Path(folder)) as made, chromium() as browser:
        installation = installation_in(Path(folder) / "home", build.binary("llama-server").parent)
        words = ("studio", "tiny", "--port", str(free_port()), "--studio-port", str(free_port()))
        with installation.with_env(made.env).started(*words) as child:
            address = wait_for_line(child, "studio ").split()[1]
            wait_for_line(child, "ready ")
            base = address.partition("/setup")[0]
            first = Album(browser, base, "", viewport=WIDE)
            first.visit.set_up(address)
            first.pages()
            looks: dict[str, dict[str, Any]] = {
                "-dark": {"viewport": WIDE, "color_scheme": "dark"},
                "-phone": {"viewport": NARROW},
                "-phone-dark": {"viewport": NARROW, "color_scheme": "dark"},
            }
            for look, context in looks.items():
                album = Album(browser, base, look, **context)
                album.visit.log_in()
                album.pages()


if __name__ == "__main__":
    main()
