"""Debian's Chromium, and a person in it: what went wrong in a visit is kept. Processes, playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from tests.fakes.programs import need
from tests.stages.studio import PASSWORD

REFUSED = "Failed to load resource"  # Chromium's words for any answer from 400 on


expect.set_options(timeout=20_000)  # two cores are shared with engines


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser."""
    need("chromium")
    with sync_playwright() as player:
        path = shutil.which("chromium")
        made = player.chromium.launch(executable_path=path, args=["--no-sandbox"])  # root has no user namespace
        yield made
        made.close()


class Visit:
    """One browser context at the page at `base`."""

    def __init__(self, browser: Browser, base: str, *, may_be_refused: bool = False, **context: Any) -> None:
        self.base = base
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("console", lambda m: self._said(m.type, m.text, may_be_refused))
        self.tab.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.tab.on("dialog", lambda d: self._dialog(d))
        self.tab.on("request", lambda r: None if r.url.startswith((base, "data:")) else self.wrong.append(r.url))
        self.agrees = False  # whether questions of the page are answered with yes; else they count as wrong

    def _said(self, kind: str, text: str, may_be_refused: bool) -> None:
        if kind in ("error", "warning") and not (may_be_refused and text.startswith(REFUSED)):
            self.wrong.append(text)

    def _dialog(self, dialog: Any) -> None:
        if self.agrees:
            dialog.accept()
        else:
            self.wrong.append(f"dialog {dialog.message}")
            dialog.dismiss()

    def set_up(self, address: str) -> None:
        """Make the password, with the code in the address that the terminal shows."""
        self.tab.goto(address)
        assert self.tab.input_value("[name=code]")
        assert "#" not in self.tab.url
        self.tab.fill("[name=password]", PASSWORD)
        self.tab.fill("[name=again]", PASSWORD)
        self.tab.click("button.primary")
        self.tab.wait_for_url("**/welcome")

    def log_in(self) -> None:
        self.tab.goto(f"{self.base}/login")
        self.tab.fill("[name=password]", PASSWORD)
        self.tab.click("button.primary")
        self.tab.wait_for_url("**/chat")

    def ask(self, text: str, *, until: str) -> None:
        self.tab.fill("#question", text)
        self.tab.click("#send")
        self.tab.locator("article.assistant").last.get_by_text(until).first.wait_for()

    def end(self) -> None:
        """Close it. Raises AssertionError for errors, warnings, dialogs, requests to elsewhere."""
        self.context.close()
        assert self.wrong == []
