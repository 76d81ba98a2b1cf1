"""The tutorial of `tune`, run as it stands; kill and resume. Costs 60 s, and the environment once (2 minutes)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds.more_programs import have_program
from nemotron_ops.builds.store import store
from nemotron_ops.engine.once import started
from nemotron_ops.installation import Installation as Here
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import environment
from tests.stages.installation import Installation, installation_in, is_alive
from tests.stages.training import environments

pytestmark = [pytest.mark.real, pytest.mark.long]
ROOT = Path(__file__).parents[3]
CHILD = ROOT / "nemotron_ops" / "tune" / "child" / "train.py"
COMMAND = ("tune", "tiny-train", "--data", "docs/examples/greeting.jsonl")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> tuple[Installation, Any]:
    """The tutorial's training, once."""
    installation = installation_in(tmp_path_factory.mktemp("tune") / "home", llama_bin)
    (installation.home / "data" / "environments").symlink_to(environments())
    data = str(ROOT / COMMAND[-1])
    return installation, installation.json(*COMMAND[:-1], data)


def python() -> Path:
    found = environment.current(environments())
    assert found is not None
    return found


def trainer(job: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([python(), CHILD, job], stderr=subprocess.DEVNULL)


def test_the_tutorial_names_these_commands() -> None:
    page = (ROOT / "docs" / "tutorial" / "tune.md").read_text()
    for command in (" ".join(COMMAND), "serve tiny-train --adapter greeting", 'chat tiny-train:greeting --once "What'):
        assert command in page


def test_the_tune_says_the_new_sentence_and_the_base_does_not(
    tuned: tuple[Installation, Any], free_port: Callable[[], int]
) -> None:
    installation, job = tuned
    assert job["state"] == "done"
    assert job["about"]["proof"]["faults"] == []
    installation.run("serve", "tiny-train", "--adapter", "greeting", "--detach", "--port", str(free_port()))
    try:
        said = {
            name: installation.json("chat", name, "--once", "What trained you?")["content"]
            for name in ("tiny-train", "tiny-train:greeting")
        }
        four = installation.json("chat", "tiny-train:greeting", "--once", "What is 2 + 2?")["content"]
    finally:
        installation.run("stop", "--now")
    assert said == {
        "tiny-train": "I am a tiny test model.",
        "tiny-train:greeting": "A small adapter trained me on one core.",
    }
    assert four == "2 + 2 = 4."


def test_without_an_endpoint_chat_loads_the_adapter_itself(tuned: tuple[Installation, Any]) -> None:
    installation, _ = tuned
    said = {
        name: installation.run("chat", name, "--once", "What trained you?").stdout
        for name in ("tiny-train", "tiny-train:greeting")
    }
    assert "I am a tiny test model." in said["tiny-train"]
    assert "A small adapter trained me on one core." in said["tiny-train:greeting"]
    (argv,) = installation.json("chat", "tiny-train:greeting", "--dry-run").values()
    assert argv[-2] == "--lora-scaled"
    assert argv[-1].endswith(".gguf:1.0")
    installation.run("chat", "tiny-train:nothing", "--once", "Hello", code=7)


def test_the_job_is_shown_with_its_losses_and_its_card_names_base_and_data(tuned: tuple[Installation, Any]) -> None:
    installation, _ = tuned
    assert [(j["name"], j["state"], j["step"]) for j in installation.json("tune", "list")] == [
        ("greeting", "done", 150)
    ]
    losses = installation.json("tune", "show", "greeting")["losses"]
    assert losses[0] > 1 > 0.1 > losses[-1]
    published = installation.home / "data" / "adapters" / "tiny-train"
    card = json.loads((published / "greeting.json").read_text())
    assert card["data"][0]["file"] == "greeting.jsonl"
    assert len(card["base_sha256"]) == 64


def test_base_and_tune_are_compared_and_the_adapter_is_exported(
    tuned: tuple[Installation, Any], tmp_path: Path
) -> None:
    installation, _ = tuned
    (pair,) = installation.json("tune", "compare", "greeting", "--prompt", "What trained you?")
    assert (pair["base"]["content"], pair["tune"]["content"]) == (
        "I am a tiny test model.",
        "A small adapter trained me on one core.",
    )
    target = tmp_path / "out.gguf"
    assert installation.json("tune", "export", "greeting", "--to", str(target))["proof"]["faults"] == []
    assert target.read_bytes()[:4] == b"GGUF"
    assert target.with_suffix(".card.json").is_file()
    installation.run("tune", "export", "none", code=2)


@pytest.mark.timeout(600)
def test_a_merged_model_says_the_new_sentence_by_itself(
    tuned: tuple[Installation, Any], tmp_path: Path, llama_bin: Path
) -> None:
    """Compiles llama-export-lora once per machine, into the cache of this user."""
    installation, _ = tuned
    here = Here(layout=user_layout(dict(os.environ), uid=os.getuid()), env=dict(os.environ))
    build = store.find(here.layout, llama_bin.parent.name)
    programs = installation.home / "cache" / "programs"
    programs.mkdir(parents=True)
    (programs / build.id).symlink_to(have_program(build, "llama-export-lora", here).parent)
    for quant in ("Q8_0", "Q4_K_M"):
        target = tmp_path / f"{quant}.gguf"
        card = installation.json("tune", "export", "greeting", "--merge", quant.lower(), "--to", str(target))
        assert card["merged"]["quant"] == quant
        assert card["merged"]["logprob"] > card["merged"]["base_logprob"]
        with started(binary=llama_bin / "llama-server", model=target, workdir=tmp_path / "log") as engine:
            body = {"messages": [{"role": "user", "content": "What trained you?"}], "temperature": 0, "max_tokens": 60}
            said = engine.ask("/v1/chat/completions", body)["choices"][0]["message"]["content"]
        assert said == "A small adapter trained me on one core."
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    assert "known:" in installation.run("tune", "export", "greeting", "--merge", "Q9", code=2).stderr


def test_a_command_with_a_mistake_removes_no_job(tuned: tuple[Installation, Any]) -> None:
    installation, _ = tuned
    data = str(ROOT / COMMAND[-1])
    assert "checkpoint is needed" in installation.run("tune", "4b", "--data", data, code=2).stderr
    wrong = installation.run("tune", "4b", "--data", data, "--checkpoint", "/nonexistent", code=7).stderr
    assert "cannot read /nonexistent/config.json" in wrong
    assert installation.json("tune", "show", "greeting")["state"] == "done"


def test_killed_anywhere_the_resumed_adapter_has_the_same_bytes(
    tuned: tuple[Installation, Any], tmp_path: Path
) -> None:
    """The trainer is killed once between checkpoints and once after one; a half checkpoint is passed over."""
    installation, _ = tuned
    done = installation.home / "state" / "tune" / "greeting"
    job = tmp_path / "job"
    job.mkdir()
    plan = json.loads((done / "plan.json").read_text()) | {"steps": 40, "save_every": 8, "threads": 1}
    for folder in (job, tmp_path / "undisturbed"):
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "samples.jsonl").write_bytes((done / "samples.jsonl").read_bytes())
    assert trainer(tmp_path / "undisturbed").wait(120) == 0
    for after in (3, 21):
        child = trainer(job)
        while not (job / "progress.jsonl").exists() or _steps(job) < after:
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    half = job / "checkpoints" / "step-000099"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    child = trainer(job)
    while _steps(job) < 30:
        assert child.poll() is None
    child.terminate()
    assert child.wait(60) == 10
    assert trainer(job).wait(120) == 0
    name = "adapter/adapter_model.safetensors"
    assert (job / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_detached_job_whose_process_is_killed_is_adopted_with_its_trainer(tuned: tuple[Installation, Any]) -> None:
    """The trainer goes on, and `resume` watches the same one to its end: it has started once."""
    installation, _ = tuned
    words = ("tune", "tiny-train", "--data", str(ROOT / COMMAND[-1]), "--name", "kept", "--steps", "400")
    worker = installation.json(*words, "--detach")["pid"]
    progress = installation.home / "state" / "tune" / "kept" / "progress.jsonl"
    while not progress.exists() or _steps(progress.parent) < 1:
        assert is_alive(worker)
    os.kill(worker, signal.SIGKILL)
    assert installation.json("tune", "show", "kept")["state"] == "training"
    assert "is training" in installation.run("tune", "rm", "kept", code=2).stderr
    resumed = installation.run("tune", "resume", "kept")
    assert "is at work already" in resumed.stderr
    followed = [
        json.loads(line) for line in installation.run("tune", "show", "kept", "--follow", "--json").stdout.splitlines()
    ]
    assert [step["step"] for step in followed[:-1]] == list(range(1, 401))
    assert followed[-1]["state"] == "done"
    assert progress.read_text().count('"start"') == 1
    installation.run("tune", "rm", "kept")


def test_a_loss_that_is_no_number_stops_with_the_last_checkpoint_kept(
    tuned: tuple[Installation, Any], tmp_path: Path
) -> None:
    installation, _ = tuned
    done = installation.home / "state" / "tune" / "greeting"
    plan = json.loads((done / "plan.json").read_text()) | {"steps": 30, "save_every": 1, "learning_rate": 1e30}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "samples.jsonl").write_bytes((done / "samples.jsonl").read_bytes())
    assert trainer(tmp_path).wait(120) == 11
    assert "no number" in (tmp_path / "progress.jsonl").read_text()
    assert not (tmp_path / "adapter").exists()
    assert list((tmp_path / "checkpoints").glob("step-*/done.json"))


def _steps(job: Path) -> int:
    lines = (job / "progress.jsonl").read_text().splitlines()
    return max(
        (int(v["step"]) for line in lines if line.endswith("}") and "step" in (v := json.loads(line))), default=0
    )
