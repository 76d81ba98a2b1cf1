"""What the page does by what this machine says: order of a comparison, parameters, tools. Chromium, 20 s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes.endpoint import Script, endpoint
from tests.stages.browser import Visit, chromium
from tests.stages.gateway import Control
from tests.stages.studio import Page, page

GIB = 1 << 30


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Script, Control]]:
    script, folder = Script(), tmp_path_factory.mktemp("memory") / "studio"
    folder.mkdir(mode=0o700)
    own = pytest.MonkeyPatch()
    own.setenv("NEMOTRON_OPS_HOME", str(folder.parent / "home"))
    control = Control(folder / "control.sock")
    control.status = status(16, one="ready", two="ready")
    with endpoint(script) as base, page(folder, base) as made:
        made.set_up()
        yield made, script, control
    control.stop()
    own.undo()


@pytest.fixture
def visit(browser: Browser, shared: tuple[Page, Script, Control]) -> Iterator[Visit]:
    made = Visit(browser, shared[0].base, viewport={"width": 1280, "height": 800})
    made.log_in()
    yield made
    made.end()


def status(capacity_gib: int, **states: str) -> dict[str, Any]:
    """Two models of 6 GiB on one device."""
    planned = {"CUDA0": 6 * GIB}
    return {
        "endpoint": {"url": "", "host": "", "port": 0}, "version": "1", "capacity_bytes": {"CUDA0": capacity_gib * GIB},
        "models": [
            {"name": m, "names": [m], "adapters": [], "on_demand": True, "defaults": {"max_tokens": 99}} for m in states
        ],
        "wish": [{"name": "one", "target": "tiny", "profile": None, "flags": {"top_p": 0.25}}],
        "instances": [
            {"name": f"{m}-0", "model": m, "state": state, "slots": 1, "restarts": 0, "planned_bytes": planned}
            for m, state in states.items()
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("capacity_gib", "together"), [(16, True), (8, False)])
def test_panes_are_asked_at_once_or_in_turn_as_memory_allows_the_loaded_model_first(
    visit: Visit, shared: tuple[Page, Script, Control], capacity_gib: int, together: bool
) -> None:
    _, script, control = shared
    control.status = status(capacity_gib, one="stopped", two="ready")
    script.__init__(hold_at=1)  # type: ignore[misc]
    tab = visit.tab
    tab.goto(f"{visit.base}/compare")
    panes = tab.locator(".pane")
    expect(panes).to_have_count(2)
    for i, model in enumerate(("one", "two")):  # the order that was chosen stays
        panes.nth(i).get_by_role("combobox").first.select_option(model)
    tab.fill("#question", "Count.")
    tab.click("#send")
    said = tab.locator(".assistant .said")
    expect(panes.nth(1).locator(said)).to_contain_text("one")  # the loaded one answers, and waits for the gate
    if together:
        expect(panes.nth(0).locator(said)).to_contain_text("one")
    else:
        expect(tab.locator("#why")).to_contain_text("CUDA0")
        assert [body["model"] for body in script.asked] == ["two"]
    script.gate.set()
    for i in range(2):
        expect(panes.nth(i)).to_contain_text("one two three")
    assert sorted(body["model"] for body in script.asked) == ["one", "two"]


def test_each_parameter_tells_what_holds_and_where_it_comes_from(
    visit: Visit, shared: tuple[Page, Script, Control]
) -> None:
    _, script, control = shared
    control.status = status(16, one="ready", two="ready")
    script.__init__()  # type: ignore[misc]
    tab = visit.tab
    tab.goto(f"{visit.base}/chat?model=one")
    tab.get_by_role("button", name="Parameters").click()
    expected = (
        ("temperature", "1", "profile chat"),
        ("top_p", "0.25", "--top-p"),
        ("max_tokens", "99", "[requests]"),
        ("min_p", "automatic", ""),
    )
    for name, value, source in expected:
        field = tab.locator(f'#sheet [name="{name}"]')
        expect(field).to_have_attribute("placeholder", value)
        label = tab.locator("#sheet label").filter(has=tab.locator(f'[name="{name}"]'))
        expect(label.locator("small")).to_have_text(source)
    visit.ask("Count.", until="one two three")
    assert "temperature" not in script.asked[-1]  # what is shown is not sent


def test_without_thinking_the_profile_for_that_is_asked_for(visit: Visit, shared: tuple[Page, Script, Control]) -> None:
    _, script, control = shared
    control.status = status(16, one="ready", two="ready")
    script.__init__(profiles=("chat", "tools"))  # type: ignore[misc]
    tab = visit.tab
    tab.goto(f"{visit.base}/chat?model=one")
    tab.get_by_label("Thinking").first.select_option("off")
    tab.get_by_role("button", name="Parameters").click()
    expect(tab.locator('#sheet [name="temperature"]')).to_have_attribute("placeholder", "0.6")
    visit.ask("Count.", until="one two three")
    assert (script.asked[-1]["model"], "temperature" in script.asked[-1]) == ("one:tools", False)
    tab.fill('#sheet [name="temperature"]', "0.9")
    visit.ask("Again.", until="one two three")
    expect(tab.locator("article.assistant").nth(1)).to_contain_text("one two three")
    assert (script.asked[-1]["model"], script.asked[-1]["temperature"]) == ("one:tools", 0.9)


def test_an_archived_chat_is_found_and_comes_back(visit: Visit, shared: tuple[Page, Script, Control]) -> None:
    shared[1].__init__()  # type: ignore[misc]
    tab = visit.tab
    visit.ask("Keep this one.", until="one two three")
    row = tab.locator("#chats li").filter(has_text="Keep this one.")
    row.get_by_role("button").click()
    tab.get_by_role("dialog").get_by_role("button", name="Archive").click()
    expect(row).to_have_count(0)
    tab.get_by_label("Archived chats").check()
    row.get_by_role("button").click()
    tab.get_by_role("dialog").get_by_role("button", name="Take out").click()
    expect(row).to_have_count(0)
    tab.get_by_label("Archived chats").uncheck()
    expect(row).to_have_count(1)


def test_a_picture_is_refused_up_front_where_the_model_sees_none(
    visit: Visit, shared: tuple[Page, Script, Control]
) -> None:
    control, tab = shared[2], visit.tab
    picture: Any = {"name": "dot.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n"}
    for sees in (False, True):
        control.status = status(16, one="ready", two="ready")
        control.status["instances"][0]["sees"] = sees
        tab.goto(f"{visit.base}/chat?model=one")
        expect(tab.locator("#model")).to_have_value("one")
        tab.set_input_files("#attach", picture)
        if sees:
            expect(tab.locator("#files")).to_contain_text("dot.png")
        else:
            expect(tab.locator("#notice")).to_contain_text("sees no pictures")
            expect(tab.locator("#files li")).to_have_count(0)


NONE = {"works": False, "attacks_held": 0, "attacks": 0}
NO_WALL = {
    "backend": "", "toolbox": "", "enabled": ["python"],
    "backends": [
        {"backend": "bubblewrap", **NONE, "reason": "not installed", "fix": "apt-get install bubblewrap"},
        {"backend": "landlock", **NONE, "reason": "this kernel has none", "fix": ""},
    ],
}  # fmt: skip


def test_without_a_sandbox_code_is_off_and_the_page_says_what_is_missing(visit: Visit) -> None:
    tab = visit.tab
    tab.route("**/api/tools", lambda route: route.fulfill(json=NO_WALL))
    tab.goto(f"{visit.base}/settings")
    tab.get_by_role("button", name="Look what this machine has").click()
    tools = tab.locator("#tools")
    expect(tools).to_contain_text("Code is off: no sandbox works here.")
    for words in ("not installed", "apt-get install bubblewrap", "this kernel has none"):
        expect(tools).to_contain_text(words)
    row = tools.get_by_role("row").filter(has_text="Python and bash")
    expect(row).to_contain_text("off")


def test_a_tool_is_allowed_and_forbidden_behind_the_sandbox_that_holds_here(
    visit: Visit, shared: tuple[Page, Script, Control]
) -> None:
    tab = visit.tab
    tab.goto(f"{visit.base}/settings")
    tab.get_by_role("button", name="Look what this machine has").click()
    row = tab.locator("#tools").get_by_role("row").filter(has_text="Python and bash")
    expect(tab.locator("#tools")).to_contain_text("held 8 of 8 attacks")
    row.get_by_role("button", name="Allow").click()
    expect(row.get_by_role("button", name="Forbid")).to_be_visible()
    assert "python" in shared[0].http.get("/api/tools").json()["enabled"]
    row.get_by_role("button", name="Forbid").click()
    expect(row.get_by_role("button", name="Allow")).to_be_visible()
    assert shared[0].post("/api/tools", tool="--help", on=True).status_code == 400
    assert shared[0].post("/api/tools", tool="root", on=True).status_code == 400
