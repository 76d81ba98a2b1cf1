"""Commands that remove old builds: what they keep, what they print, and kills during a removal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotron_ops.builds.store import pruning, store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.store.unfinished import leftovers
from nemotron_ops.cli import cli
from nemotron_ops.cli.app import App
from nemotron_ops.cli.removed import prune_old
from nemotron_ops.paths import Layout
from tests.fakes.build_store import put

pytestmark = pytest.mark.process


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("NEMOTRON_OPS_HOME", str(home))
    return lambda *words: CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.fixture
def six(layout: Layout) -> list[Build]:
    """Six builds, oldest first; the first was current before the second."""
    builds = [put(layout, f"cpu-{i}{i}{i}{i}-1", made_at=i) for i in range(6)]
    store.use(layout, builds[0])
    store.use(layout, builds[1])
    return builds


@pytest.fixture
def running(six: list[Build]) -> Iterator[Build]:
    """The third build, with one of its programs running."""
    program = six[2].path / "bin/llama-server"
    shutil.copy2(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([program, "60"])
    yield six[2]
    process.kill()
    process.wait()


def ids(layout: Layout) -> list[str]:
    return [b.id for b in store.listed(layout)]


def test_prune_keeps_the_newest_the_current_and_the_one_before(
    run: Callable[..., Result], layout: Layout, six: list[Build]
) -> None:
    value = json.loads(run("builds", "prune", "--keep", "2", "--json").stdout)
    assert sorted(value["removed"]) == [six[2].id, six[3].id]
    assert value["freed_bytes"] > 0
    assert ids(layout) == [b.id for b in (six[5], six[4], six[1], six[0])]


def test_a_dry_run_names_what_would_go_and_removes_nothing(
    run: Callable[..., Result], layout: Layout, six: list[Build]
) -> None:
    store.work_dir(layout, "cpu-interrupted-1").mkdir(parents=True)
    result = run("builds", "prune", "--keep", "0", "--dry-run")
    assert "would be removed: 4 builds and 1 leftovers" in result.stdout
    assert f"would remove {six[5].id}" in result.stderr
    assert len(ids(layout)) == 6
    assert store.work_dir(layout, "cpu-interrupted-1").exists()


def test_a_build_that_runs_a_pinned_and_an_imported_one_are_spared(
    run: Callable[..., Result], layout: Layout, six: list[Build], running: Build
) -> None:
    assert "pinned" in run("builds", "pin", "3333").stdout
    manifest = six[4].path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "imported_at": 1.0}))
    run("builds", "prune", "--keep", "0")
    assert ids(layout) == [b.id for b in (six[4], six[3], running, six[1], six[0])]
    kept = {b["id"]: b["kept"] for b in json.loads(run("builds", "list", "--json").stdout)}
    assert list(kept.values()) == ["imported", "pinned", "in use", "current", "rollback goes back to it"]
    run("builds", "pin", "3333", "--off")
    assert six[3].id in run("builds", "prune", "--keep", "0", "--json").stdout


def test_a_build_that_runs_is_spared_where_links_lead_to_it(
    tmp_path: Path, layout: Layout, six: list[Build], running: Build
) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(layout.data.parent)
    with App(env={**os.environ, "NEMOTRON_OPS_HOME": str(linked)}) as app:
        assert running.id not in prune_old(app, keep=0).builds
    assert store.get(layout, running.id)


def test_a_build_that_a_supervisor_may_start_again_is_spared(
    run: Callable[..., Result], layout: Layout, six: list[Build]
) -> None:
    record = layout.state / "instances/tiny-0.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"id": "tiny-0", "spec": {"build": six[3].id}}))
    run("builds", "prune", "--keep", "0")
    assert ids(layout) == [b.id for b in (six[3], six[1], six[0])]


def test_settings_say_how_many_stay(run: Callable[..., Result], layout: Layout, six: list[Build]) -> None:
    layout.config.mkdir(parents=True, exist_ok=True)
    (layout.config / "settings.toml").write_text("keep_builds = -1\n")
    assert json.loads(run("builds", "prune", "--json").stdout)["removed"] == []
    (layout.config / "settings.toml").write_text("keep_builds = 1\n")
    run("builds", "prune")
    assert ids(layout) == [b.id for b in (six[5], six[1], six[0])]


def test_the_rule_works_by_itself_and_says_in_one_line_what_it_did(
    home: Path, layout: Layout, six: list[Build], capfd: pytest.CaptureFixture[str]
) -> None:
    with App(env={**os.environ, "NEMOTRON_OPS_HOME": str(home)}) as app:
        removed = prune_old(app)
    assert removed.builds == (six[2].id,)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert six[2].id in said[0]
    assert "freed" in said[0]
    with App(env={**os.environ, "NEMOTRON_OPS_HOME": str(home)}) as app:
        assert prune_old(app) == pruning.Removed()
    assert capfd.readouterr().err == ""


PRUNE_ALL = """
import os, sys
from nemotron_ops.builds.store import pruning, store
from nemotron_ops.paths import user_layout
layout = user_layout({"NEMOTRON_OPS_HOME": sys.argv[1]}, uid=os.getuid())
print("begun", flush=True)
pruning.prune(layout, [b for b in store.listed(layout) if b.id != store.current(layout).id])
"""


@pytest.mark.parametrize("gone", [1, 10, 30])
def test_a_kill_while_pruning_leaves_builds_whole_or_gone(
    home: Path, layout: Layout, eventually: Callable[..., None], gone: int
) -> None:
    for i in range(40):
        build = put(layout, f"cpu-{i:04}-1", made_at=i)
        for n in range(20):
            (build.path / f"bin/lib{n}.so").write_bytes(b"x" * 4096)
    store.use(layout, store.find(layout, "0007"))
    process = subprocess.Popen([sys.executable, "-c", PRUNE_ALL, str(home)], stdout=subprocess.DEVNULL)
    eventually(lambda: len(ids(layout)) <= 40 - gone)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = store.listed(layout)
    now = store.current(layout)
    assert now is not None
    assert now in left
    assert all(len(list(b.path.glob("bin/lib*.so"))) == 20 for b in left)
    pruning.prune(layout, [b for b in left if b != now], leftovers(layout))
    assert store.listed(layout) == (now,)
    assert leftovers(layout) == ()
