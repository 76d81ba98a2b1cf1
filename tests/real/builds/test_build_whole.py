"""Whole builds: from a source tree to a self-tested build in the store, with every kind of failure between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nemotron_ops import host
from nemotron_ops.builds.carry import export_build, import_build
from nemotron_ops.builds.proof.proofs import SelfTestFailed
from nemotron_ops.builds.run import ensure_build, existing
from nemotron_ops.builds.spec import TARGETS, Backend, BuildOptions, BuildRequest
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.options_json import options_from
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.store.unfinished import leftovers
from nemotron_ops.errors import BuildError, SourceError
from nemotron_ops.host import Facts, Gpu, Tool
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.progress import Step, silent
from tests.fakes.build_store import put
from tests.fakes.llama_cpp_tree import write_tree

pytestmark = [pytest.mark.real, pytest.mark.long]

ENV = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}


@pytest.fixture(scope="module")
def facts() -> Facts:
    """This machine's facts, changed to an old gcc without AMX, so that no fix is applied in advance."""
    found = host.probe(ENV)
    cxx = found.tools["cxx"]
    tools = {**found.tools, "cxx": Tool(path=cxx.path, version=(12, 2, 0), kind="gcc")}
    return replace(found, tools=tools, cpu_flags=frozenset({"avx2"}), gpus=())


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def said() -> list[str]:
    """The notes that a build has reported."""
    return []


@pytest.fixture
def build(layout: Layout, facts: Facts, said: list[str]) -> Callable[..., Build]:
    def make(tree: Path, *, facts: Facts = facts, force: bool = False, jobs: int | None = None) -> Build:
        request = BuildRequest(options=BuildOptions(backend=Backend.CPU, jobs=jobs), source=str(tree), force=force)

        def report(step: Step) -> None:
            if step.note:
                said.append(step.note)

        return ensure_build(request, Installation(layout=layout, env=ENV, report=report, known=facts))

    return make


def steps(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def test_a_build_is_made_proven_stored_and_current(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    before = sorted(str(p) for p in tree.rglob("*"))
    made = build(tree)
    assert sorted(str(p) for p in tree.rglob("*")) == before  # a source tree is never built in
    assert store.current(layout) == made
    assert all(made.binary(name).exists() for name in TARGETS)
    proof = made.manifest["selftest"]
    assert proof["whole"] is True
    assert len(proof["passed"]) == 9
    assert proof["tokens_per_s"]["generation"] > 0
    assert {"--ctx-size", "-ngl"} <= set(proof["flags"])
    assert options_from(made.manifest) == BuildOptions(backend=Backend.CPU)
    assert made.manifest["version"] == "0.5.0"
    assert not store.work_dir(layout, made.id).exists()
    assert leftovers(layout) == ()


def test_the_same_build_is_not_made_twice(
    build: Callable[..., Build], tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    first = build(tree)
    assert build(tree) == first
    assert sorted(steps(ledger)) == sorted(TARGETS)
    build(tree, force=True)
    assert len(steps(ledger)) == 2 * len(TARGETS)


def test_an_illegal_instruction_is_repaired_by_flags_and_said_aloud(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path, said: list[str]
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, mode="sigill")
    made = build(tree)
    assert made.manifest["plan"]["fixes"] == ["no-amx"]
    assert "-mno-amx-tile" in made.manifest["plan"]["cmake"]["CMAKE_CXX_FLAGS"]
    assert any("SIGILL" in note and "no-amx" in note for note in said)
    assert any("SIGILL" in note for note in made.manifest["source_notes"])
    assert store.current(layout) == made
    assert store.listed(layout) == (made,)
    assert leftovers(layout) == ()
    compiled = steps(ledger)
    assert build(tree) == made  # the fix is remembered
    assert steps(ledger) == compiled


def test_what_an_earlier_run_left_broken_is_configured_anew(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    made = build(tree)
    store.remove(layout, made, force=True)
    work = store.work_dir(layout, made.id)
    work.mkdir(parents=True)
    (work / "CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/somewhere/else\n")
    assert build(tree).id == made.id


def test_a_death_without_a_known_fix_keeps_the_build_before_it(
    build: Callable[..., Build], layout: Layout, facts: Facts, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    good = build(write_tree(tmp_path / "good", real=llama_bin, ledger=ledger))
    newer = {**facts.tools, "cxx": replace(facts.tools["cxx"], version=(14, 2))}
    bad = write_tree(tmp_path / "bad", real=llama_bin, ledger=ledger, mode="sigill", minor=6)
    with pytest.raises(SelfTestFailed, match="SIGILL"):
        build(bad, facts=replace(facts, tools=newer))
    assert store.current(layout) == good
    assert store.listed(layout) == (good,)


def test_a_binary_of_another_commit_is_not_trusted(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    with pytest.raises(SelfTestFailed, match="instead of commit"):
        build(write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, mode="stranger"))
    assert store.current(layout) is None


def test_a_failed_compile_shows_the_compilers_words_and_the_log(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    with pytest.raises(BuildError, match="cannot compile") as caught:
        build(write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, mode="broken"))
    assert any("was not declared" in line for line in caught.value.log_tail)
    hint = caught.value.hint or ""
    assert Path(hint.rpartition(" ")[2]).read_text().count("was not declared") == 1
    assert store.listed(layout) == ()


def test_without_nvcc_and_without_wheels_there_is_an_error_and_never_a_cpu_build(
    layout: Layout, facts: Facts, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    bare = replace(facts, tools={name: tool for name, tool in facts.tools.items() if name != "nvcc"})
    env = {**ENV, "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    request = BuildRequest(options=BuildOptions(backend=Backend.CUDA, cuda_archs=("90",)), source=str(tree))
    with pytest.raises(SourceError, match="not in the package registry") as caught:
        ensure_build(request, Installation(layout=layout, env=env, known=bare))
    assert "nvcc on the PATH" in (caught.value.hint or "")
    assert steps(ledger) == []
    assert store.listed(layout) == ()


H100 = (Gpu(index=0, kind="cuda", name="NVIDIA H100", compute_capability=(9, 0)),)
L4 = (Gpu(index=0, kind="cuda", name="NVIDIA L4", compute_capability=(8, 9)),)


@pytest.fixture
def for_an_h100(layout: Layout, facts: Facts) -> Callable[..., Build]:
    """`build --cuda --cuda-arch 90` on this machine, said to have a toolkit, a driver and the given GPUs."""
    nvcc = Tool(path="/usr/local/cuda/bin/nvcc", version=(13, 0), kind="nvcc")

    def make(tree: Path, gpus: tuple[Gpu, ...], *, force: bool = False) -> Build:
        options = BuildOptions(backend=Backend.CUDA, cuda_archs=("90",))
        here = replace(facts, gpus=gpus, driver_cuda=(13, 0), tools={**facts.tools, "nvcc": nvcc})
        request = BuildRequest(options=options, source=str(tree), force=force)
        return ensure_build(request, Installation(layout=layout, env=ENV, known=here))

    return make


def test_a_build_for_another_gpu_is_kept_and_proven_and_current_once_that_gpu_is_here(
    for_an_h100: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, mode="gpu")
    kept = for_an_h100(tree, L4)
    assert (kept.manifest["selftest"]["on"], kept.proven) == ("cpu", False)
    assert store.current(layout) is None
    assert for_an_h100(tree, L4) == kept
    proven = for_an_h100(tree, H100)
    assert (proven.manifest["selftest"]["on"], proven.proven) == ("cuda", True)
    assert store.current(layout) == proven == store.get(layout, kept.id)
    assert sorted(steps(ledger)) == sorted(TARGETS)  # compiled once
    assert leftovers(layout) == ()
    with pytest.raises(BuildError, match="cannot replace build"):
        for_an_h100(tree, L4, force=True)
    assert store.current(layout) == proven


def test_a_gpu_build_that_leaves_layers_behind_is_not_trusted(
    for_an_h100: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, mode="lazy gpu")
    with pytest.raises(SelfTestFailed, match=r"self-test \(moe, flash attention on\): 3 of 7 layers went to the GPU"):
        for_an_h100(tree, H100)
    assert store.listed(layout) == ()


def test_a_vulkan_build_on_a_machine_without_a_gpu_is_kept(
    layout: Layout, facts: Facts, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    here = replace(facts, tools={**facts.tools, "glslc": Tool(path="/usr/bin/glslc")})
    request = BuildRequest(options=BuildOptions(backend=Backend.VULKAN), source=str(tree))
    kept = ensure_build(request, Installation(layout=layout, env=ENV, known=here))
    assert not kept.proven
    assert store.current(layout) is None


def test_an_upgrade_can_be_rolled_back(
    build: Callable[..., Build], layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    old = build(write_tree(tmp_path / "old", real=llama_bin, ledger=ledger, minor=5))
    new = build(write_tree(tmp_path / "new", real=llama_bin, ledger=ledger, minor=6))
    assert store.current(layout) == new
    assert store.previous(layout) == old
    assert store.rollback(layout) == old
    assert store.current(layout) == old


def test_a_build_moves_to_another_machine_and_is_proven_there(
    build: Callable[..., Build], facts: Facts, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    made = build(write_tree(tmp_path / "src", real=llama_bin, ledger=ledger))
    packed = export_build(made, tmp_path, silent)
    there = user_layout({"NEMOTRON_OPS_HOME": str(tmp_path / "there")}, uid=os.getuid())
    taken = import_build(packed, Installation(layout=there, env=ENV, known=facts), activate=True)
    assert taken.manifest["files"] == made.manifest["files"]
    assert store.current(there) == taken
    assert leftovers(there) == ()
    again = import_build(packed, Installation(layout=there, env=ENV, known=facts), activate=True)
    assert again.id == taken.id


def test_a_build_that_was_changed_on_its_way_is_refused(
    build: Callable[..., Build], facts: Facts, layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    made = build(write_tree(tmp_path / "src", real=llama_bin, ledger=ledger))
    (made.path / "bin/llama-cli").write_text("#!/bin/sh\necho evil\n")
    packed = export_build(made, tmp_path, silent)
    there = user_layout({"NEMOTRON_OPS_HOME": str(tmp_path / "there")}, uid=os.getuid())
    with pytest.raises(SourceError, match="bin/llama-cli differs from its manifest"):
        import_build(packed, Installation(layout=there, env=ENV, known=facts), activate=True)
    assert store.listed(there) == ()
    assert leftovers(there) == ()


def command(tree: Path, layout: Layout) -> list[str]:
    return [sys.executable, "-m", "nemotron_ops", "build", "--cpu", "--source", str(tree), "--jobs", "1"]


def environment(layout: Layout) -> dict[str, str]:
    return {**ENV, "NEMOTRON_OPS_HOME": str(layout.data.parent), "PYTHONPATH": os.getcwd()}


def test_a_killed_build_goes_on_where_it_stopped(
    layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path, eventually: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, gate=gate)
    first = subprocess.Popen(command(tree, layout), env=environment(layout), start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    eventually(lambda: "llama-fit-params" in steps(ledger), within_s=120)
    first.kill()
    first.wait()
    assert store.listed(layout) == ()
    log = tmp_path / "again.log"
    with log.open("wb") as out:
        again = subprocess.Popen(command(tree, layout), env=environment(layout), stdout=out, stderr=subprocess.STDOUT)
    eventually(
        lambda: "waiting for it" in log.read_text(), within_s=120
    )  # a compiler of the killed run is still at work
    gate.unlink()
    assert again.wait(timeout=120) == 0, log.read_text()
    assert store.current(layout) is not None
    done_twice = {name for name in TARGETS if steps(ledger).count(name) > 1}
    assert done_twice <= {"llama-fit-params"}  # the step that ran at the kill


def test_a_build_that_is_asked_to_end_takes_its_compilers_along(
    layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path, eventually: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, gate=gate)
    child = subprocess.Popen(command(tree, layout), env=environment(layout), stderr=subprocess.DEVNULL)
    eventually(lambda: "llama-fit-params" in steps(ledger), within_s=120)
    assert build_lock.count_building(layout) == 1
    child.terminate()
    assert child.wait(timeout=60) == 130
    eventually(lambda: build_lock.count_building(layout) == 0)
    words = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert [w for w in words if str(layout.builds) in " ".join(w)] == []


def test_two_at_once_build_once_and_the_second_says_that_it_waits(
    layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path, eventually: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger, gate=gate)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    running = []
    for log in logs:
        with log.open("wb") as out:
            running.append(
                subprocess.Popen(command(tree, layout), env=environment(layout), stdout=out, stderr=subprocess.STDOUT)
            )
        eventually(lambda: "llama-fit-params" in steps(ledger), within_s=120)
    eventually(lambda: "waiting for it" in logs[1].read_text(), within_s=120)
    eventually(lambda: "compile (another process)" in logs[1].read_text(), within_s=120)
    gate.unlink()
    assert [child.wait(timeout=120) for child in running] == [0, 0], logs[1].read_text()
    assert sorted(steps(ledger)) == sorted(TARGETS)
    assert len(store.listed(layout)) == 1


def test_old_builds_go_when_a_new_one_has_become_current(
    layout: Layout, tmp_path: Path, ledger: Path, llama_bin: Path
) -> None:
    old = [put(layout, f"cpu-{i}{i}{i}{i}-1", made_at=i) for i in range(5)]
    store.use(layout, old[0])
    tree = write_tree(tmp_path / "src", real=llama_bin, ledger=ledger)
    words = [*command(tree, layout), "--keep", "2", "--json"]
    done = subprocess.run(words, env=environment(layout), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert [b.id for b in store.listed(layout)] == [made["id"], old[4].id, old[0].id]  # the last for `rollback`
    assert sorted(made["pruned"]["removed"]) == [b.id for b in old[1:4]]
    assert len([line for line in done.stderr.splitlines() if "removed old builds" in line]) == 1


def test_the_projects_own_build_is_found_without_asking_the_network(llama_bin: Path) -> None:
    layout = user_layout(os.environ, uid=os.getuid())
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU))
    found = existing(request, Installation(layout=layout, env={"PATH": "/nonexistent"}, known=host.probe(os.environ)))
    assert found is not None
    assert found.path == llama_bin.parent
