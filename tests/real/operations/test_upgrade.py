"""`upgrade` and `rollback`: something new is tried beside what runs, and is taken back if it is worse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stages.installation import Installation

pytestmark = pytest.mark.real


@pytest.fixture
def port(installation: Installation, free_port: Callable[[], int]) -> Iterator[int]:
    """A detached `serve tiny`, stopped at the end."""
    port = free_port()
    installation.run("serve", "tiny", "--detach", "--port", str(port))
    yield port
    installation.run("stop")


def instance(installation: Installation) -> dict[str, Any]:
    (found,) = installation.json("status")["instances"]
    return dict(found)


def answers(port: int) -> str:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


def test_another_quant_takes_over_and_is_noted_in_a_recipe_of_ones_own(installation: Installation, port: int) -> None:
    before = instance(installation)
    installation.run("upgrade", "tiny", "--quant", "F16")
    after = instance(installation)
    assert after["state"] == "ready"
    assert after["pid"] != before["pid"]
    assert answers(port) == "2 + 2 = 4."
    own = installation.home / "config" / "recipes" / "tiny.toml"
    assert 'quant = "F16"' in own.read_text()
    assert "# A generated model of 1 MB" in own.read_text()


def test_a_quant_that_cannot_be_had_changes_nothing(installation: Installation, port: int) -> None:
    before = instance(installation)
    refused = installation.run("upgrade", "tiny", "--quant", "Q9_9", code=10)
    assert "Q9_9" in refused.stderr
    assert instance(installation)["pid"] == before["pid"]
    assert not (installation.home / "config" / "recipes" / "tiny.toml").exists()
    assert answers(port) == "2 + 2 = 4."


def copy_build(installation: Installation, *, works: bool) -> str:
    """A second build: a copy of the current one under another id, or one whose llama-server only fails."""
    builds = installation.home / "data" / "builds"
    (old,) = (p for p in builds.iterdir() if p.is_symlink())
    new = builds / ("cpu-copy" if works else "cpu-broken")
    shutil.copytree(old.resolve(), new, copy_function=shutil.copy2)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps({**manifest, "id": new.name}))
    if not works:
        server = new / "bin" / "llama-server"
        server.unlink()
        good = old.resolve() / "bin" / "llama-server"
        server.write_text(f"#!/bin/sh\n[ $1 = --help ] && exec {good} --help\necho 'error: broken' >&2\nexit 1\n")
        server.chmod(0o755)
    return new.name


def test_rollback_serves_with_the_build_from_before(installation: Installation, port: int) -> None:
    first = instance(installation)["build"]
    second = copy_build(installation, works=True)
    installation.run("builds", "use", second)
    installation.run("reload")
    assert instance(installation)["build"] == second
    installation.run("rollback")
    assert instance(installation)["build"] == first
    assert answers(port) == "2 + 2 = 4."


def test_a_build_that_does_not_come_up_leaves_the_old_one_serving(installation: Installation, port: int) -> None:
    before = instance(installation)
    broken = copy_build(installation, works=False)
    installation.run("builds", "use", broken)
    failed = installation.run("reload", code=9)
    assert "cannot replace" in failed.stderr
    now = installation.json("status")["instances"]
    assert before["pid"] in [i["pid"] for i in now if i["state"] == "ready"]
    assert answers(port) == "2 + 2 = 4."
    installation.run("builds", "rollback")


def test_without_a_supervisor_the_change_waits_for_the_next_serve(installation: Installation) -> None:
    done = installation.run("upgrade", "tiny", "--quant", "Q4_0")
    assert "no supervisor is running" in done.stderr
    dry = installation.json("serve", "tiny", "--dry-run")
    argv = dry["instances"][0]["argv"]
    assert "Q4_0" in Path(argv[argv.index("--model") + 1]).name
