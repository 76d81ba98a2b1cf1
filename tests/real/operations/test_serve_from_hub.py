"""`serve 30b` as a user has it: the shipped recipe, a hub, the fetch, the plan, llama-server, the guide's client.

The hub is on loopback and its files have the true names; the bytes in them are those of the tiny model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.models import synthetic
from tests.fakes.hub import Hub
from tests.fakes.shapes import sparse
from tests.stages.installation import Installation, interrupt, wait_for_line

pytestmark = pytest.mark.real

REPO = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF"
FILE = "Nemotron-3-Nano-30B-A3B-{}.gguf"
SNIPPET = """
from openai import OpenAI
import json
openai_client = OpenAI(
    base_url = "http://127.0.0.1:{port}/v1",
    api_key = "sk-no-key-required",
)
completion = openai_client.chat.completions.create(
    model = "unsloth/Nemotron-3-Nano-30B-A3B",
    messages = [{{"role": "user", "content": "What is 2+2?"}},],
)
print(completion.choices[0].message.content)
"""


def guide_client(port: int) -> str:
    argv = [sys.executable, "-c", SNIPPET.format(port=port)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


def test_serve_30b_fetches_plans_serves_and_answers(
    installation: Installation, free_port: Callable[[], int], tmp_path: Path
) -> None:
    with Hub() as hub:
        hub.add(REPO, FILE.format("UD-Q4_K_XL"), synthetic.ensure("moe", tmp_path))
        hub.add(REPO, FILE.format("Q8_0"), b"not asked for")
        online = installation.with_env(hub.env)
        port = free_port()
        started = online.run("serve", "30b", "--detach", "--port", str(port))
        assert "unsloth/Nemotron-3-Nano-30B-A3B" in started.stdout
        assert guide_client(port) == "2 + 2 = 4.\n"
        online.run("stop")
        whole = [s for s in hub.file_requests() if "Q8_0" in s.path]
    assert whole == []
    offline = installation.with_env({"HF_ENDPOINT": "http://127.0.0.1:1"})
    port = free_port()
    offline.run("serve", "30b", "--offline", "--detach", "--port", str(port))
    assert guide_client(port) == "2 + 2 = 4.\n"
    offline.run("stop")


def test_a_quant_that_does_not_fit_gives_way_unless_it_was_asked_for(
    installation: Installation, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The recipe's quant is of true size here (125 GB and more as BF16); the smaller one is the tiny model."""
    with Hub() as hub:
        big = sparse("30b", tmp_path, "BF16").rename(tmp_path / "big.gguf")
        hub.add(REPO, FILE.format("UD-Q4_K_XL"), big, sha256="0" * 64)
        hub.add(REPO, FILE.format("Q8_0"), synthetic.ensure("moe", tmp_path))
        online = installation.with_env(hub.env)
        asked = online.run("serve", "30b:UD-Q4_K_XL", "--port", str(free_port()), code=8)
        assert "cannot fit" in asked.stderr
        started = online.run("serve", "30b", "--detach", "--port", str(free_port()))
        assert "serving Q8_0 instead of UD-Q4_K_XL" in started.stderr
        online.run("stop")


def test_after_a_power_cut_bytes_that_were_lost_are_found_before_they_are_served(
    installation: Installation, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with Hub() as hub:
        hub.add(REPO, FILE.format("UD-Q4_K_XL"), synthetic.ensure("moe", tmp_path))
        online = installation.with_env(hub.env)
        file = Path(online.json("fetch", "30b")["path"])
    words = ("serve", "30b", "--offline", "--port", str(free_port()))
    note = installation.home / "state" / "serving.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text('{"boot": "another boot"}')
    with installation.started(*words) as served:
        wait_for_line(served, "the machine went down while it served")
        wait_for_line(served, "ready  http")
        assert interrupt(served) == 0
    assert not note.exists()
    stat = file.stat()
    with file.open("r+b") as f:
        f.seek(stat.st_size // 2)
        f.write(bytes(4096))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    note.write_text('{"boot": "another boot"}')
    refused = installation.run(*words, code=7)
    assert file.name in refused.stderr
    assert "hint: `nemotron-ops models rm" in refused.stderr


def test_a_projector_is_fetched_and_passed_on_only_where_the_recipe_asks_for_it(
    installation: Installation, tmp_path: Path
) -> None:
    own = installation.home / "config" / "recipes"
    own.mkdir(parents=True)
    (own / "omni.toml").write_text(f'[model]\nrepo = "{REPO}"\nquant = "Q8_0"\nmmproj = true\n')
    (own / "plain.toml").write_text(f'[model]\nrepo = "{REPO}"\nquant = "Q8_0"\n')
    with Hub() as hub:
        hub.add(REPO, FILE.format("Q8_0"), synthetic.ensure("moe", tmp_path))
        hub.add(REPO, "mmproj-F16.gguf", synthetic.ensure("dense", tmp_path))
        online = installation.with_env(hub.env)
        online.run("fetch", "plain")
        assert not [s for s in hub.file_requests() if "mmproj" in s.path]
        online.run("fetch", "omni")
    plain = installation.json("serve", "plain", "--dry-run")["instances"][0]["argv"]
    omni = installation.json("serve", "omni", "--dry-run")["instances"][0]["argv"]
    assert "--mmproj" not in plain
    assert Path(omni[omni.index("--mmproj") + 1]).name == "mmproj-F16.gguf"
