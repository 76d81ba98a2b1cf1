"""The page from a machine without a model to a compared answer, by clicks alone: supervisor, engine, Chromium. 40 s."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from nemotron_ops.models.synthetic.shape import DENSE, MOE
from nemotron_ops.models.synthetic.write import write_sparse, write_tiny
from tests.fakes.hub import Hub
from tests.fakes.shapes import NANO_30B
from tests.stages.browser import Visit, chromium
from tests.stages.installation import Installation, installation_in, wait_for_line
from tests.stages.studio import wait_for

pytestmark = pytest.mark.real

NANO, MINI = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF", "owner/Nemotron-Mini-GGUF"
ANSWER = "2 + 2 = 4."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with Hub() as hub:
        name = "Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf"
        hub.add(NANO, name, write_sparse(NANO_30B, folder / name, quant="Q4_K")[0], sha256="ab" * 32)
        hub.add(MINI, "Mini-Q8_0.gguf", write_tiny(DENSE, folder / "Mini-Q8_0.gguf")[0])
        hub.add(MINI, "Mini-F16.gguf", write_tiny(MOE, folder / "Mini-F16.gguf", quant="F16")[0])
        hub.downloads = {NANO: 4321, MINI: 12}
        yield hub


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, free_port: Callable[[], int], hub: Hub
) -> Iterator[tuple[Installation, int, str]]:
    """`nemotron-ops studio` without a model; the endpoint's port, and the page's address with its code."""
    installation = installation_in(tmp_path_factory.mktemp("studio") / "home", llama_bin).with_env(hub.env)
    port, page_port = free_port(), free_port()
    with installation.started("studio", "--port", str(port), "--studio-port", str(page_port)) as child:
        address = wait_for_line(child, "studio ").split()[1]
        wait_for_line(child, "ready ")
        yield installation, port, address


@pytest.fixture
def visit(browser: Browser, place: tuple[Installation, int, str]) -> Iterator[Visit]:
    made = Visit(browser, place[2].partition("/setup")[0], may_be_refused=True, viewport={"width": 1280, "height": 900})
    yield made
    made.end()


def test_from_nothing_to_an_answer_by_clicks(visit: Visit, place: tuple[Installation, int, str]) -> None:
    tab = visit.tab
    visit.set_up(place[2])
    expect(tab.locator("#machine")).to_contain_text("memory")
    fitting = tab.locator('.choice[data-name="30b"]')
    expect(fitting).to_contain_text(re.compile("fits: .*UD-Q4_K_XL|does not fit"))  # from the header, before a download
    tab.locator('.choice[data-name="tiny"]').get_by_role("button").click()
    tab.get_by_role("link", name="Ask it something").click()
    tab.wait_for_url("**/chat")
    visit.ask("What is 2 + 2?", until=ANSWER)


def test_a_model_is_found_fetched_started_with_a_chosen_context_and_asked(
    visit: Visit, place: tuple[Installation, int, str]
) -> None:
    installation, port, _ = place
    visit.log_in()
    tab = visit.tab
    tab.goto(f"{visit.base}/models")
    tab.fill("#words", "nemotron mini")
    tab.get_by_role("button", name="Search").click()
    tab.locator("#found").get_by_role("button", name="Choose a quant").click()
    row = tab.get_by_role("dialog").get_by_role("row").filter(has_text="Q8_0")
    expect(row).to_contain_text("fits")
    row.get_by_role("button", name="Download").click()
    expect(tab.locator("#jobs").get_by_text("done", exact=True)).to_be_visible()
    expect(tab.locator("#disk")).to_contain_text(f"{MINI}:Q8_0")

    tab.locator("#disk").get_by_role("link", name="Start").click()
    sheet = tab.get_by_role("dialog")
    expect(sheet.locator(".plan meter")).to_be_visible()
    assert len(installation.json("status")["instances"]) == 1  # nothing loads before the button
    sheet.get_by_label("Context").fill("8192")
    expect(sheet.locator(".plan")).to_contain_text("8,192 tokens")
    sheet.get_by_role("button", name="Start", exact=True).click()
    card = tab.get_by_role("region", name="nemotron-mini", exact=True)
    expect(card.get_by_text("ready", exact=True)).to_be_visible()
    expect(card).to_contain_text("Context 8,192")
    own = next(i for i in installation.json("status")["instances"] if i["model"] == "nemotron-mini")
    argv = Path(f"/proc/{own['pid']}/cmdline").read_bytes().split(b"\0")
    assert argv[argv.index(b"--ctx-size") + 1] == b"8192"
    props = httpx.get(f"http://127.0.0.1:{port}/props?model=nemotron-mini", timeout=20, trust_env=False).json()
    assert props["default_generation_settings"]["n_ctx"] == 8192

    card.get_by_role("button", name="Chat template").click()
    expect(sheet.get_by_label("Chat template")).to_have_value(re.compile(r"<\|im_start\|>"))
    sheet.get_by_role("button", name="Close").click()
    card.get_by_role("button", name="Change").click()
    expect(sheet.get_by_label("Context")).to_have_value("8192")
    sheet.get_by_label("Context").fill("4096")
    expect(sheet.locator(".plan")).to_contain_text("4,096 tokens")
    sheet.get_by_role("button", name="Change", exact=True).click()
    expect(card).to_contain_text("Context 4,096")
    expect(card.get_by_text("ready", exact=True)).to_be_visible()


def test_two_models_answer_side_by_side(visit: Visit) -> None:
    visit.log_in()
    tab = visit.tab
    tab.goto(f"{visit.base}/compare")
    panes = tab.locator(".pane")
    expect(panes).to_have_count(2)
    for i, model in enumerate(("nemotron-ops/tiny", "owner/Nemotron-Mini")):
        panes.nth(i).get_by_role("combobox").first.select_option(model)
    tab.fill("#question", "What is 2 + 2?")
    tab.click("#send")
    for i in range(2):
        expect(panes.nth(i)).to_contain_text(ANSWER)
        expect(panes.nth(i)).to_contain_text("tokens/s")


def test_a_template_is_edited_and_the_models_own_comes_back(visit: Visit, place: tuple[Installation, int, str]) -> None:
    visit.log_in()
    tab = visit.tab
    tab.goto(f"{visit.base}/run")
    sheet, card = tab.get_by_role("dialog"), tab.get_by_role("region", name="tiny", exact=True)

    def prompt() -> str:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
        url = f"http://127.0.0.1:{place[1]}/apply-template"
        return str(httpx.post(url, json=body, timeout=20, trust_env=False).json()["prompt"])

    def use(button: str, text: str = "") -> None:
        card.get_by_role("button", name="Chat template").click()
        field = sheet.get_by_label("Chat template")
        expect(field).to_have_value(re.compile("im_start"))
        if text:
            field.fill(text + field.input_value())
        sheet.get_by_role("button", name=button).click()

    job = tab.get_by_role("region", name="template tiny")
    use("Save", "{% if %}")
    expect(job.locator(".error")).to_contain_text("line 1")
    use("Save", "{{- '<edited>' -}}")
    wait_for(lambda: prompt().startswith("<edited>"))
    use("The model's own template")
    wait_for(lambda: not prompt().startswith("<edited>"))


def test_a_key_is_made_shown_once_and_the_page_itself_goes_on(
    visit: Visit, place: tuple[Installation, int, str]
) -> None:
    visit.log_in()
    tab, url = visit.tab, f"http://127.0.0.1:{place[1]}/v1/models"
    assert httpx.get(url, timeout=20, trust_env=False).status_code == 200
    tab.goto(f"{visit.base}/settings")
    tab.get_by_label("Name of the key").fill("laptop")
    tab.get_by_role("button", name="Make a key").click()
    key = tab.locator("#key-text code").inner_text()
    wait_for(lambda: httpx.get(url, timeout=20, trust_env=False).status_code == 401)
    tab.goto(f"{visit.base}/chat")
    visit.ask("What is 2 + 2?", until=ANSWER)  # the page has made a key for itself
    mine = {"Authorization": f"Bearer {key}"}
    assert httpx.get(url, headers=mine, timeout=20, trust_env=False).status_code == 200
    tab.goto(f"{visit.base}/settings")
    assert key not in tab.content()
    visit.agrees = True
    tab.get_by_role("row").filter(has_text="laptop").get_by_role("button", name="Revoke").click()
    expect(tab.locator("#keys")).not_to_contain_text("laptop")


def test_a_model_is_removed_and_what_cannot_start_says_why(visit: Visit, place: tuple[Installation, int, str]) -> None:
    visit.log_in()
    visit.agrees = True
    tab = visit.tab
    tab.goto(f"{visit.base}/run")
    tab.get_by_role("region", name="nemotron-mini", exact=True).get_by_role("button", name="Remove").click()
    expect(tab.get_by_role("region", name="nemotron-mini", exact=True)).to_have_count(0)
    tab.get_by_role("button", name="Start a model").click()
    sheet = tab.get_by_role("dialog")
    sheet.get_by_label("Model", exact=True).fill("owner/missing")
    sheet.get_by_label("Model", exact=True).blur()
    expect(sheet.locator(".plan .error")).to_contain_text("owner/missing")
    sheet.get_by_role("button", name="Start", exact=True).click()
    job = tab.get_by_role("region", name="add owner/missing")
    expect(job.get_by_text("failed", exact=True)).to_be_visible()
    expect(job.locator(".error")).to_contain_text("owner/missing")
    tab.reload()  # what another model's failed start leaves alone
    tiny = tab.get_by_role("region", name="tiny", exact=True)
    expect(tiny).to_contain_text("Context 4,096")
    own = next(i for i in place[0].json("status")["instances"] if i["model"] == "tiny")
    argv = Path(f"/proc/{own['pid']}/cmdline").read_bytes().split(b"\0")
    assert argv[argv.index(b"--ctx-size") + 1] == b"4096"
    tab.goto(f"{visit.base}/models")
    row = tab.locator("#disk").get_by_role("row").filter(has_text=MINI)
    row.get_by_role("button", name="Verify").click()
    expect(tab.locator("#jobs").get_by_role("region", name=f"verify {MINI}")).to_contain_text("done")
    row.get_by_role("button", name="Delete").click()
    expect(tab.locator("#disk")).not_to_contain_text(MINI)
