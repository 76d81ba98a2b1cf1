"""Training by clicks: check, train, pause, resume; the page shows the job's own record. 60 s, Chromium and torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.stages.browser import Visit, chromium
from tests.stages.installation import Installation, installation_in, wait_for_line
from tests.stages.training import environments

pytestmark = [pytest.mark.real, pytest.mark.long]
DATA = Path(__file__).parents[3] / "docs" / "examples" / "greeting.jsonl"
TRAINS_MS = 180_000


@pytest.fixture
def place(tmp_path: Path, llama_bin: Path, free_port: Callable[[], int]) -> Iterator[tuple[Installation, str]]:
    """`nemotron-ops studio` without a model, and the page's address with its code."""
    installation = installation_in(tmp_path / "home", llama_bin)
    (installation.home / "data").mkdir(exist_ok=True)
    (installation.home / "data" / "environments").symlink_to(environments())
    ports = ("--port", str(free_port()), "--studio-port", str(free_port()))
    with installation.started("studio", *ports) as child:
        yield installation, wait_for_line(child, "studio ").split()[1]


def test_a_training_is_paused_goes_on_at_the_same_step_and_shows_its_own_record(
    place: tuple[Installation, str],
) -> None:
    installation, address = place
    with chromium() as browser:
        visit = Visit(browser, address.partition("/setup")[0], viewport={"width": 1280, "height": 900})
        visit.agrees = True
        visit.set_up(address)
        tab = visit.tab
        tab.get_by_role("link", name="Tune").click()
        tab.get_by_label("Model", exact=True).fill("tiny-train")
        tab.get_by_label("File of rows").fill(str(DATA))
        tab.get_by_role("button", name="Check the data").click()
        expect(tab.locator("#findings")).to_contain_text("4 rows, 4 samples")
        tab.get_by_label("Name", exact=True).fill("greet")
        tab.get_by_label("Steps", exact=True).fill("150")
        tab.get_by_role("button", name="Train", exact=True).click()
        card = tab.get_by_role("region", name="greet", exact=True)
        expect(card).to_contain_text(re.compile(r"step [1-9]\d* of 150"), timeout=TRAINS_MS)
        card.get_by_role("button", name="Pause").click()
        expect(card.get_by_text("paused", exact=True)).to_be_visible(timeout=TRAINS_MS)
        kept = installation.json("tune", "show", "greet")["step"]
        assert 0 < kept < 150
        expect(card).to_contain_text(f"step {kept} of 150")
        tab.reload()
        expect(card).to_contain_text(f"step {kept} of 150")
        card.get_by_role("button", name="Resume").click()
        expect(card.get_by_text("done", exact=True)).to_be_visible(timeout=TRAINS_MS)
        expect(card).to_contain_text("step 150 of 150")
        expect(card.get_by_role("img", name=re.compile("Loss from"))).to_be_visible()
        record = installation.home / "state" / "tune" / "greet" / "progress.jsonl"
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        steps = [line["step"] for line in lines if "step" in line]
        assert sorted(set(steps)) == list(range(1, 151))
        assert steps[steps.index(kept) + 1] == kept + 1  # no step was made twice behind the pause
        card.get_by_role("button", name="Delete").click()
        expect(card).to_have_count(0)
        visit.end()
