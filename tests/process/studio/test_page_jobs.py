"""Jobs of the page: what they say, what a kill leaves, which words may reach a command line. Costs about 8 s."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from tests.fakes.endpoint import Script, endpoint
from tests.fakes.hub import Fault, Hub
from tests.stages.studio import Page, page, wait_for

REPO = "owner/Tiny-GGUF"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(send_buffer=4096) as hub:
        hub.add(REPO, "Tiny-Q8_0.gguf", write_tiny(MOE, tmp_path / "Tiny-Q8_0.gguf")[0])
        yield hub


@pytest.fixture
def studio(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("NEMOTRON_OPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with endpoint(Script()) as base, page(tmp_path / "studio", base) as made:
        made.set_up()
        yield made


def jobs(studio: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = studio.http.get("/api/jobs").json()
    return found


def job(studio: Page) -> dict[str, Any]:
    return jobs(studio)[0]


def fetchers(home: Path) -> list[int]:
    """The processes that fetch into `home`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words, env = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"\0fetch\0" in words and f"NEMOTRON_OPS_HOME={home}".encode() in env.split(b"\0"):
                found.append(int(entry.name))
    return found


def begin_slow_fetch(studio: Page, hub: Hub, tmp_path: Path) -> int:
    hub.faults = [Fault(stall_after=200_000)]
    assert studio.post("/api/fetch", model=f"{REPO}:Q8_0").status_code == 201
    wait_for(lambda: job(studio)["step"].get("done", 0) > 0)
    (pid,) = fetchers(tmp_path / "home")
    return pid


def test_a_download_tells_its_rate_and_ends_only_after_its_proof(studio: Page, hub: Hub) -> None:
    studio.post("/api/fetch", model=f"{REPO}:Q8_0")
    wait_for(lambda: job(studio)["state"] == "done")
    step = job(studio)["step"]
    assert step["unit"] == "B"
    assert step["done"] == step["total"] == hub.files[REPO]["Tiny-Q8_0.gguf"].size
    stored = studio.http.get("/api/stored").json()["models"]
    assert [m["id"] for m in stored] == [f"{REPO}:Q8_0"]
    assert studio.post(f"/api/jobs/{job(studio)['id']}/forget").json() == {"forgotten": True}
    assert jobs(studio) == []


def test_a_fetch_that_was_killed_says_so_and_goes_on_from_where_it_was(studio: Page, hub: Hub, tmp_path: Path) -> None:
    pid = begin_slow_fetch(studio, hub, tmp_path)
    os.killpg(pid, signal.SIGKILL)
    wait_for(lambda: job(studio)["state"] == "failed")
    assert "-9" in job(studio)["cause"]
    hub.faults, before = [], hub.sent_bytes
    assert studio.post(f"/api/jobs/{job(studio)['id']}/again").status_code == 201
    wait_for(lambda: job(studio)["state"] == "done")
    assert len(jobs(studio)) == 1
    assert hub.sent_bytes - before < hub.files[REPO]["Tiny-Q8_0.gguf"].size


def test_a_job_of_a_page_that_was_killed_stays_listed_and_its_child_ends(
    studio: Page, hub: Hub, tmp_path: Path
) -> None:
    begin_slow_fetch(studio, hub, tmp_path)
    studio.kill()
    studio.start()
    assert (job(studio)["state"], "ended in the middle" in job(studio)["cause"]) == ("stopped", True)
    hub.faults = []
    assert studio.post(f"/api/jobs/{job(studio)['id']}/again").status_code == 201
    wait_for(lambda: job(studio)["state"] == "done", timeout_s=60)
    wait_for(lambda: fetchers(tmp_path / "home") == [])


def test_a_stop_keeps_what_came(studio: Page, hub: Hub, tmp_path: Path) -> None:
    begin_slow_fetch(studio, hub, tmp_path)
    assert studio.post(f"/api/jobs/{job(studio)['id']}/stop").json() == {"stopped": True}
    wait_for(lambda: fetchers(tmp_path / "home") == [])
    assert job(studio)["state"] == "stopped"
    kept = json.loads((tmp_path / "studio/jobs.json").read_text())
    assert [j["state"] for j in kept] == ["stopped"]


def test_a_refusal_of_the_hub_is_the_jobs_cause(studio: Page) -> None:
    studio.post("/api/fetch", model="owner/missing")
    wait_for(lambda: job(studio)["state"] == "failed")
    assert "owner/missing" in job(studio)["cause"]
    assert not job(studio)["cause"].startswith("error:")


def test_a_list_of_jobs_that_is_damaged_is_an_empty_one(studio: Page, tmp_path: Path) -> None:
    studio.kill()
    (tmp_path / "studio/jobs.json").write_text('[{"id": 3}, 7')
    studio.start()
    assert jobs(studio) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/api/fetch", {"model": "--help"}),
        ("/api/fetch", {"model": ""}),
        ("/api/fetch", {"model": "a/b\n--x"}),
        ("/api/fetch", {"model": "a/b", "quant": "--local-dir=/etc"}),
        ("/api/serve", {"op": "add", "model": "-h"}),
        ("/api/serve", {"op": "eval", "model": "tiny"}),
        ("/api/serve", {"op": "add", "model": "tiny", "ctx_size": "1; reboot"}),
        ("/api/serve", {"op": "add", "model": "tiny", "ctx_size": -1}),
        ("/api/serve", {"op": "add", "model": "tiny", "parallel": True}),
        ("/api/serve", {"op": "add", "model": "tiny", "profile": "--alias"}),
        ("/api/serve", {"op": "change", "model": "tiny"}),
        ("/api/models/remove", {"model": "--force"}),
        ("/api/models/verify", {"model": "-"}),
        ("/api/models/import", {"path": "relative.gguf"}),
        ("/api/keys", {"name": "--scope"}),
        ("/api/keys", {"name": "x", "expires": "--scope=admin"}),
    ],
)
def test_no_word_of_a_page_becomes_an_option(studio: Page, path: str, value: dict[str, Any]) -> None:
    answer = studio.http.post(path, json=value)
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]
    assert jobs(studio) == []


@pytest.mark.parametrize("query", ["model=--help", "model=", "model=tiny&ctx_size=4k", "model=tiny&quant=-x"])
def test_no_word_of_a_question_becomes_an_option(studio: Page, query: str) -> None:
    assert studio.http.get(f"/api/plan?{query}").status_code == 400


def test_what_fits_is_answered_for_the_options_that_are_given(studio: Page) -> None:
    found = studio.http.get("/api/plan?model=tiny&ctx_size=8192&parallel=2&profile=chat").json()
    assert [c["ctx_size"] for c in found["quants"][0]["contexts"]] == [8192]
    refused = studio.http.get("/api/plan?model=tiny&profile=nonsense")
    assert (refused.status_code, "nonsense" in refused.json()["error"]) == (502, True)
    assert sys.executable not in refused.text
