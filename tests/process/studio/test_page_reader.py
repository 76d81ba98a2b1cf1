"""What a person at the page meets in a real browser: reload, scroll, keys, many tabs, an end of session. About 40 s."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes.endpoint import Script, endpoint
from tests.stages.browser import Visit, chromium
from tests.stages.studio import Page, page
from tests.tables.hostile import HOSTILE

LONG = [f"word{n} " + ("\n\n" if n % 12 == 0 else "") for n in range(1500)]
WAYS = "() => window.getSelection().toString()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Script]]:
    script = Script()
    with endpoint(script) as base, page(tmp_path_factory.mktemp("reader") / "studio", base) as made:
        made.set_up()
        yield made, script


@pytest.fixture
def script(shared: tuple[Page, Script]) -> Script:
    shared[1].gate.set()
    shared[1].__init__()  # type: ignore[misc]
    return shared[1]


@pytest.fixture
def studio(shared: tuple[Page, Script], script: Script) -> Page:
    return shared[0]


@pytest.fixture
def visit(browser: Browser, studio: Page) -> Iterator[Visit]:
    made = Visit(browser, studio.base, viewport={"width": 1280, "height": 800})
    made.log_in()
    yield made
    made.end()


def chat_of(studio: Page, script: Script, tokens: list[str]) -> str:
    """A chat with one answer."""
    script.tokens = tokens
    chat = studio.new_chat()
    studio.ask(chat, "Begin.")
    studio.wait_state(chat, "done")
    return chat


def test_a_reload_in_the_middle_shows_the_whole_answer(visit: Visit, studio: Page, script: Script) -> None:
    script.tokens, script.hold_at = [f"w{n} " for n in range(60)], 30
    visit.ask("Begin.", until="w29")
    visit.tab.reload()
    said = visit.tab.locator("article.assistant .said")
    expect(said).to_contain_text("w0 w1")
    script.gate.set()
    expect(said).to_contain_text("w59")
    assert said.inner_text().split() == [f"w{n}" for n in range(60)]


def test_another_browser_sees_the_chat(browser: Browser, visit: Visit, studio: Page, script: Script) -> None:
    script.tokens = ["seen everywhere"]
    visit.ask("Where is this kept?", until="seen everywhere")
    other = Visit(browser, studio.base)
    other.log_in()
    other.tab.get_by_role("link", name="Where is this kept?").first.click()
    expect(other.tab.locator("article.assistant").last).to_contain_text("seen everywhere")
    other.end()


def test_a_reader_who_has_scrolled_up_stays_there_and_one_at_the_end_follows(
    visit: Visit, studio: Page, script: Script
) -> None:
    chat = chat_of(studio, script, LONG)
    visit.tab.goto(f"{studio.base}/chat/{chat}")
    visit.tab.get_by_text("word1499").wait_for()
    script.tokens, script.pace_s = [w.replace("word", "more") for w in LONG], 0.001
    place = visit.tab.locator("#messages")
    visit.ask("More.", until="more20")
    place.evaluate("(e) => { e.scrollTop = 300; }")
    visit.tab.wait_for_timeout(300)
    before = place.evaluate("(e) => e.scrollTop")
    studio.wait_state(chat, "done")
    visit.tab.wait_for_timeout(300)
    assert place.evaluate("(e) => e.scrollTop") == before
    visit.tab.get_by_role("button", name="To the end").click()
    assert place.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight") < 2
    script.tokens = [w.replace("word", "most") for w in LONG]
    visit.ask("And more.", until="most1400")
    studio.wait_state(chat, "done")
    visit.tab.wait_for_timeout(300)
    assert place.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight") < 2


def test_what_cannot_fit_is_said_and_not_sent(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base)
    status = {"supervisor": {"models": [{"name": "one", "names": ["one", "two"]}], "endpoint": {"url": ""}}}
    status["supervisor"]["instances"] = [{"model": "one", "ctx_tokens": 5}]
    visit.tab.route("**/api/status", lambda r: r.fulfill(json={**status, "models": [{"id": "one"}]}))
    visit.log_in()
    chat = studio.new_chat()
    visit.tab.goto(f"{studio.base}/chat/{chat}")
    visit.tab.fill("#question", "This is counted as seven tokens.")
    expect(visit.tab.locator("#gauge.full")).to_contain_text("does not fit")
    expect(visit.tab.locator("#send")).to_be_disabled()
    asked = len(script.asked)
    visit.tab.keyboard.press("Enter")
    expect(visit.tab.locator("#notice")).to_contain_text("does not fit")
    assert len(script.asked) == asked
    assert visit.tab.input_value("#question").startswith("This is counted")
    visit.end()


def test_an_answer_cut_by_its_length_says_so_and_goes_on(visit: Visit, script: Script) -> None:
    script.tokens, script.reason = ["one ", "two "], "length"
    visit.ask("Count.", until="one two")
    expect(visit.tab.get_by_text("Cut by the limit of tokens.")).to_be_visible()
    script.tokens, script.reason = ["three"], "stop"
    visit.tab.get_by_role("button", name="Continue").click()
    expect(visit.tab.locator("article.assistant").last).to_contain_text("one two three")


def test_an_edited_answer_keeps_what_follows_and_an_edited_question_its_old_branch(
    visit: Visit, studio: Page, script: Script
) -> None:
    chat = chat_of(studio, script, ["one ", "two ", "three"])
    studio.ask(chat, "And then?", parent=studio.last(chat)["id"])
    studio.wait_state(chat, "done")
    tab = visit.tab
    tab.goto(f"{studio.base}/chat/{chat}")
    article = tab.locator("article.assistant").first
    article.get_by_role("button", name="Edit").click()
    field = article.get_by_label("Edit")
    expect(field).to_have_value("one two three")
    field.fill("one two four")
    article.get_by_role("button", name="Save").click()
    expect(article).to_contain_text("one two four")
    expect(tab.locator("article")).to_have_count(4)
    question = tab.locator("article.user").nth(1)
    question.get_by_role("button", name="Edit").click()
    expect(question.get_by_label("Edit")).to_have_value("And then?")
    question.get_by_label("Edit").fill("And before?")
    question.get_by_role("button", name="Send").click()
    expect(tab.locator("article.user").nth(1)).to_contain_text("2 of 2")
    tab.locator("article.user").nth(1).get_by_role("button", name="Previous").click()
    expect(tab.locator("article.user").nth(1)).to_contain_text("And then?")


def test_a_session_that_ends_keeps_the_draft_and_asks_no_further(browser: Browser, studio: Page) -> None:
    visit = Visit(browser, studio.base, may_be_refused=True)
    visit.log_in()
    chat = studio.new_chat()
    visit.tab.goto(f"{studio.base}/chat/{chat}")
    visit.tab.fill("#question", "A long thought that I would hate to type again")
    studio.post("/api/logout", others=True)
    visit.tab.fill("#words", "x")
    visit.tab.wait_for_url("**/login")
    asked: list[str] = []
    visit.tab.on("request", lambda r: asked.append(r.url))
    visit.tab.wait_for_timeout(1500)
    assert [u for u in asked if "/api/" in u or "/feed" in u] == []
    visit.log_in()
    visit.tab.goto(f"{studio.base}/chat/{chat}")
    expect(visit.tab.locator("#question")).to_have_value("A long thought that I would hate to type again")
    visit.end()


def test_nine_tabs_with_running_answers_all_load(visit: Visit, studio: Page, script: Script) -> None:
    script.tokens, script.hold_at = ["one ", "two ", "three"], 2
    chats = []
    for n in range(9):
        chats.append(studio.new_chat())
        studio.ask(chats[n], f"Question {n}")
    tabs = [visit.context.new_page() for _ in chats]
    for tab, chat in zip(tabs, chats, strict=True):
        tab.goto(f"{studio.base}/chat/{chat}")
        tab.bring_to_front()
        expect(tab.locator("article.assistant").last).to_contain_text("one two")
    script.gate.set()
    for tab in tabs:
        tab.bring_to_front()
        expect(tab.locator("article.assistant").last).to_contain_text("one two three")


def test_a_chat_works_by_the_keyboard_alone(visit: Visit, studio: Page, script: Script) -> None:
    tab = visit.tab
    tab.goto(f"{studio.base}/chat")
    expect(tab.locator("#question")).to_be_focused()
    script.tokens = ["typed and answered"]
    tab.keyboard.type("By keys alone")
    tab.keyboard.press("Enter")
    expect(tab.locator("article.assistant").last).to_contain_text("typed and answered")
    expect(tab.locator("#spoken")).to_have_text("The answer is complete.")  # announced once, not with every word
    seen = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        seen.add(tab.evaluate("() => document.activeElement.innerText || document.activeElement.id"))
    assert {"Another answer", "Copy", "Edit", "Parameters", "New chat", "Models"} <= seen


@pytest.mark.parametrize("where", ["chat", "compare", "models", "run", "settings", "welcome"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_enough_contrast(
    browser: Browser, studio: Page, where: str, colours: Any
) -> None:
    visit = Visit(browser, studio.base, may_be_refused=True, color_scheme=colours)
    visit.log_in()
    visit.tab.goto(f"{studio.base}/{where}")
    visit.tab.locator("main").wait_for()
    visit.tab.wait_for_timeout(300)
    assert visit.tab.evaluate(NAMELESS) == []
    assert visit.tab.evaluate(FAINT) == []
    visit.end()


NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, a, meter, progress')].filter(
  e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.innerText || e.labels?.length || e.title)
).map(e => e.outerHTML)"""

FAINT = """() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  };
  const ratio = (e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  return [...document.querySelectorAll('main *, header *')].filter((e) => e.checkVisibility() && !e.disabled
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && ratio(e) < 4.5
  ).map((e) => `${ratio(e).toFixed(2)} ${e.outerHTML.slice(0, 120)}`);
}"""


def test_each_word_of_the_trade_explains_itself_one_key_away(browser: Browser, studio: Page) -> None:
    visit = Visit(browser, studio.base)
    stored = {
        "models": [],
        "recipes": [{"name": "tiny", "title": "", "model": "", "quant": "", "profiles": []}],
        "error": "",
    }
    visit.tab.route("**/api/stored", lambda r: r.fulfill(json=stored))
    visit.tab.route("**/api/builds", lambda r: r.fulfill(json=[]))
    visit.log_in()
    visit.tab.goto(f"{studio.base}/run")
    visit.tab.get_by_role("button", name="Start a model").click()
    for word, words in (("Quant", "fewer bits"), ("Context", "at once"), ("Slots", "same time"), ("Profile", "recipe")):
        button = visit.tab.get_by_role("dialog").get_by_role("button", name=word, exact=True)
        button.focus()
        visit.tab.keyboard.press("Enter")
        expect(visit.tab.get_by_text(re.compile(words))).to_be_visible()
        visit.tab.keyboard.press("Enter")
    visit.end()


def test_hostile_titles_names_logs_and_events_run_nothing(browser: Browser, studio: Page, script: Script) -> None:
    visit = Visit(browser, studio.base)
    some = HOSTILE[::7]
    for text in some[:40]:
        studio.post("/api/chats", title=text, settings={})
    status = {
        "supervisor": {
            "version": some[0], "endpoint": {"url": some[1]}, "wish": [{"target": t, "name": t} for t in some],
            "models": [{"name": t, "names": [t]} for t in some],
            "instances": [
                {"name": t, "model": t, "state": t, "reason": t, "hint": t, "slots": 1, "restarts": 0, "build": t}
                for t in some
            ],
        },
        "models": [{"id": t} for t in some],
    }  # fmt: skip
    job = {"id": "a", "state": "failed", "step": {}}
    jobs = [{**job, "title": t, "lines": [t], "cause": t, "command": t} for t in some]
    repo = {"downloads": 1, "gated": True}
    found = [{**repo, "repo": t, "why": t, "quants": [{"quant": t, "size_bytes": 1}]} for t in some]
    builds = [{"id": t, "version": t, "backend": t, "size_bytes": 1} for t in some]
    stored = {"models": [{"id": t, "size_bytes": 1} for t in some], "recipes": [], "error": ""}
    events = [{"time_s": 1, "instance": t, "kind": t, "message": t} for t in some]
    visit.tab.route("**/api/status", lambda r: r.fulfill(json=status))
    visit.tab.route("**/api/jobs", lambda r: r.fulfill(json=jobs))
    visit.tab.route("**/api/search*", lambda r: r.fulfill(json=found))
    visit.tab.route("**/api/logs*", lambda r: r.fulfill(json={"events": events, "logs": [{"lines": some}]}))
    visit.tab.route("**/api/builds", lambda r: r.fulfill(json=builds))
    visit.tab.route("**/api/stored", lambda r: r.fulfill(json=stored))
    visit.log_in()
    for where in ("chat", "compare", "run", "models", "welcome"):
        visit.tab.goto(f"{studio.base}/{where}")
        visit.tab.wait_for_timeout(400)
        if where == "models":
            visit.tab.fill("#words", "x")
            visit.tab.keyboard.press("Enter")
            visit.tab.locator("#found table").wait_for()
        if where == "run":
            visit.tab.get_by_role("button", name="Log", exact=True).first.click()
            visit.tab.locator("dialog .log").wait_for()
        made = "script:not([src]), iframe, object, embed, main img, main svg, main style, [onerror], [onload]"
        assert visit.tab.locator(made).count() == 0
    visit.end()


def test_exports_of_hostile_chats_are_files_and_no_pages(studio: Page, script: Script) -> None:
    chat = chat_of(studio, script, [f"{t}\n\n" for t in HOSTILE[:60]])
    for kind in ("md", "json", "jsonl"):
        answer = studio.http.get(f"/api/chats/{chat}/export.{kind}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "html" not in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_full_disk_refuses_the_new_file_and_harms_nothing_old(tmp_path: Path, script: Script) -> None:
    with endpoint(script) as base, page(tmp_path / "studio", base) as studio:
        studio.set_up()
        chat = chat_of(studio, script, ["kept"])
        token = studio.http.get("/chat").text.partition('form-token" content="')[2].partition('"')[0]
        sent = {"Content-Type": "application/x-www-form-urlencoded", "X-Form-Token": token}
        (tmp_path / "studio/files").rename(tmp_path / "away") if (tmp_path / "studio/files").exists() else None
        (tmp_path / "studio/files").write_text("no folder")  # nothing can be written there
        refused = studio.http.post("/api/files?name=a.txt", content=b"x", headers=sent)
        assert refused.status_code >= 500
        assert "cannot" in refused.json()["error"]
        assert studio.last(chat)["content"] == "kept"
