"""The page in a real browser (Debian's Chromium), in front of a scripted endpoint. Costs about 15 s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from nemotron_ops.studio.login.store import LoginStore
from tests.fakes.endpoint import Script, endpoint
from tests.stages.browser import Visit, chromium
from tests.stages.studio import Page, page
from tests.tables.hostile import HOSTILE

NARROW = {"width": 390, "height": 780}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, script: Script) -> Iterator[Page]:
    with endpoint(script) as base, page(tmp_path_factory.mktemp("browser") / "studio", base) as made:
        yield made


def test_from_the_first_launch_to_an_answer_by_clicks(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base, may_be_refused=True, viewport={"width": 1280, "height": 800})
    tab = visit.tab
    visit.set_up(f"{studio.base}/setup#{LoginStore(studio.folder).new_code()}")
    tab.click("#go")
    tab.wait_for_url("**/chat")
    script.thinking = ["Let me count."]
    visit.ask("Count.", until="one two three")
    tab.locator("article.assistant details.thinking").first.wait_for()
    assert tab.locator("#chats a").first.inner_text() == "Count."
    tab.reload()
    tab.get_by_text("one two three").wait_for()
    for name in ("compare", "models", "run", "settings"):
        tab.goto(f"{studio.base}/{name}")
        tab.locator(f'nav a[aria-current="page"][href="/{name}"]').wait_for()
    visit.end()


def test_hostile_answers_run_nothing_and_fetch_nothing(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base)
    visit.log_in()
    script.thinking, script.tokens = [], [f"{text}\n\n" for text in HOSTILE] + ["the end"]
    visit.ask("<img src=x onerror=alert(1)>", until="the end")
    violations = visit.tab.evaluate(
        "() => document.querySelectorAll('script:not([src]), iframe, object, .said img').length"
    )
    assert violations == 0
    visit.tab.reload()
    visit.tab.locator("article.assistant").last.get_by_text("the end").wait_for()
    visit.end()


def test_an_answer_is_stopped_and_goes_on(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base)
    visit.log_in()
    script.tokens, script.hold_at = ["one ", "two ", "three"], 2
    visit.ask("Go.", until="one two")
    visit.tab.click("#send")
    visit.tab.get_by_text("Stopped.").wait_for()
    script.hold_at, script.tokens = -1, ["three"]
    visit.tab.get_by_role("button", name="Continue").click()
    visit.tab.get_by_text("one two three").wait_for()
    visit.end()


def test_two_panes_answer_side_by_side(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base)
    visit.log_in()
    script.tokens, script.hold_at = ["one ", "two ", "three"], -1
    visit.tab.goto(f"{studio.base}/compare")
    visit.tab.locator(".pane").nth(1).wait_for()
    visit.tab.fill("#question", "Count.")
    visit.tab.click("#send")
    for pane in (0, 1):
        visit.tab.locator(".pane").nth(pane).get_by_text("one two three").wait_for()
    assert sorted(body["model"] for body in script.asked[-2:]) == ["one", "two"]
    visit.end()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_shows_the_chat_in_its_width(browser: Browser, studio: Page, colours: Any) -> None:
    visit = Visit(browser, studio.base, viewport=NARROW, color_scheme=colours, locale="zh-CN")
    visit.log_in()
    visit.tab.goto(f"{studio.base}/chat")
    visit.tab.get_by_role("button", name="发送").wait_for()
    assert visit.tab.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]
    names = visit.tab.evaluate(
        "() => [...document.querySelectorAll('button, input, select, textarea, a')].filter(e => e.checkVisibility() && "
        "!(e.getAttribute('aria-label') || e.innerText || e.labels?.length || e.title)).map(e => e.outerHTML)"
    )
    assert names == []  # every control has a name
    visit.end()
