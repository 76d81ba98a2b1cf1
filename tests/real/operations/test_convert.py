"""A tiny checkpoint of transformers becomes GGUF by the build's own converter, and answers. Costs 60 s."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from nemotron_ops.builds.converter import environment
from nemotron_ops.models.local import read_header
from nemotron_ops.models.synthetic.shape import TRAINABLE_MOE
from nemotron_ops.paths import user_layout
from nemotron_ops.progress import silent
from tests.fakes.hub import Hub
from tests.stages.checkpoint import make_checkpoint
from tests.stages.installation import Installation, installation_in

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(300)]
REPO = "owner/Tiny"
LEARNT = "2 + 2 = 4."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(folder, llama_bin)
    return folder


def linked(installation: Installation) -> Installation:
    """The installation with this user's sources and converter environment."""
    user = user_layout({k: v for k, v in os.environ.items() if k != "NEMOTRON_OPS_HOME"}, uid=os.getuid())
    environment.ensure(user.data / "environments", silent)
    (installation.home / "cache").mkdir(exist_ok=True)
    (installation.home / "cache" / "sources").symlink_to(user.sources)
    (installation.home / "data" / "environments").symlink_to(user.data / "environments")
    return installation


@pytest.fixture
def there(tmp_path: Path, llama_bin: Path) -> Installation:
    return linked(installation_in(tmp_path / "home", llama_bin))


def work_of(there: Installation) -> Path:
    return next(p for p in (there.home / "data" / "conversions").iterdir() if p.is_dir())


def test_a_repository_is_fetched_converted_quantised_asked_and_served(
    there: Installation, checkpoint: Path, free_port: Callable[[], int]
) -> None:
    with Hub() as hub:
        for path in checkpoint.iterdir():
            hub.add(REPO, path.name, path.read_bytes(), lfs=path.suffix == ".safetensors")
        hub.add(REPO, "modeling_nemotron_h.py", b"raise SystemExit('code of the model ran')", lfs=False)
        mine = there.with_env(hub.env)
        made = mine.json("convert", REPO, "--quant", "Q8_0,Q4_0", "--pre", "pixtral")
    assert [(one["id"], one["new"]) for one in made] == [(f"{REPO}:Q8_0", True), (f"{REPO}:Q4_0", True)]
    assert LEARNT in made[0]["answer"]
    assert {t.type for t in read_header(Path(made[0]["path"])).tensors} == {"Q8_0", "F32"}
    assert not [p for p in (there.home / "data" / "conversions").iterdir() if p.is_dir()]
    port = str(free_port())
    there.run("serve", f"{REPO}:Q8_0", "--detach", "--port", port)
    try:
        body = {"model": "x", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "temperature": 0}
        body["model"] = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()["data"][0]["id"]
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60, trust_env=False)
        assert answer.json()["choices"][0]["message"]["content"] == LEARNT
    finally:
        there.run("stop")


def test_a_folder_is_converted_once_and_a_further_quant_uses_what_was_kept(
    there: Installation, checkpoint: Path
) -> None:
    words = ("convert", str(checkpoint), "--pre", "pixtral", "--keep", "--name", "mine")
    assert there.json(*words)[0]["id"] == "local/mine:Q8_0"
    whole = work_of(there) / "whole.gguf"
    first = whole.stat().st_mtime_ns
    again = there.json(*words, "--quant", "Q8_0,F16")
    assert [one["new"] for one in again] == [False, True]
    assert LEARNT in again[1]["answer"]
    assert whole.stat().st_mtime_ns == first


def test_a_killed_conversion_leaves_no_process_and_no_model_and_goes_on(there: Installation, checkpoint: Path) -> None:
    words = ("convert", str(checkpoint), "--pre", "pixtral")
    with there.started(*words) as running:
        deadline = time.monotonic() + 60
        while not (converters := converters_of(running.pid)):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        psutil.wait_procs(converters, timeout=10)
        assert not [p for p in converters if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert there.json("models", "list") == []
    assert LEARNT in there.json(*words)[0]["answer"]


def converters_of(pid: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [p for p in children if any("pre_tokenizer.py" in word for word in p.cmdline())]
    except psutil.Error:
        return []


def test_a_tokenizer_that_the_converter_does_not_know_is_one_line_with_the_way_on(
    there: Installation, checkpoint: Path
) -> None:
    said = there.run("convert", str(checkpoint), code=4).stderr
    assert "error: cannot convert: llama.cpp does not know this tokenizer" in said
    assert "--pre" in said
    assert "Traceback" not in said.replace("  | ", "")


def test_a_mixture_of_experts_of_transformers_is_converted(
    there: Installation, tmp_path: Path, llama_bin: Path
) -> None:
    make_checkpoint(tmp_path / "moe", llama_bin, TRAINABLE_MOE)
    made = there.json("convert", str(tmp_path / "moe"), "--pre", "pixtral")
    assert read_header(Path(made[0]["path"])).arch == "nemotron_h_moe"
    assert LEARNT in made[0]["answer"]
