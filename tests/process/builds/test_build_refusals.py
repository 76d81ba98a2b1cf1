"""Plans and refusals before a build starts, and builds without an available toolkit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops import host
from nemotron_ops.builds import run
from nemotron_ops.builds.disk_errors import disk_error
from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import TARGETS, Backend, BuildOptions, BuildRequest
from nemotron_ops.builds.store import store
from nemotron_ops.errors import BuildError, HostError, SourceError
from nemotron_ops.host import Facts
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Step
from tests.fakes.llama_cpp_tree import write_tree
from tests.fakes.machines import H100

pytestmark = pytest.mark.process


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with the system's programs and an empty package registry."""
    (tmp_path / "index").mkdir()
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": (tmp_path / "index").as_uri(), "NEMOTRON_OPS_DEBIAN_MIRROR": (tmp_path / "index").as_uri(),
    }  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "src", real=tmp_path, ledger=tmp_path / "ledger")


@pytest.fixture
def with_gpu(bare: dict[str, str]) -> Facts:
    """This machine's facts, changed to an H100, a driver of CUDA 13, and no nvcc."""
    here = host.probe(bare)
    tools = {name: tool for name, tool in here.tools.items() if name != "nvcc"}
    tools["cxx"] = replace(tools["cxx"], version=(12, 2))
    return replace(
        here, system="Linux", machine="x86_64", gpus=H100.gpus, driver_cuda=(13, 0), driver_version="580", tools=tools
    )


@pytest.mark.parametrize("driver", [(13, 0), (12, 2)])
def test_without_nvcc_and_without_wheels_a_cuda_build_is_an_error_and_never_one_for_the_cpu(
    layout: Layout, tree: Path, bare: dict[str, str], with_gpu: Facts, driver: tuple[int, int]
) -> None:
    request = BuildRequest(options=BuildOptions(backend=Backend.CUDA), source=str(tree))
    with pytest.raises(SourceError, match="not in the package registry") as caught:
        ensure_build(request, Installation(layout=layout, env=bare, known=replace(with_gpu, driver_cuda=driver)))
    assert caught.value.hint is not None
    assert "nvcc on the PATH" in caught.value.hint
    assert store.listed(layout) == ()
    assert store.current(layout) is None
    assert not (tree.parent / "ledger").exists()  # nothing was compiled


def test_the_licence_is_named_before_anything_of_it_is_fetched(
    layout: Layout, tree: Path, bare: dict[str, str], with_gpu: Facts
) -> None:
    said: list[str] = []

    def report(step: Step) -> None:
        said.append(step.note)

    request = BuildRequest(options=BuildOptions(backend=Backend.CUDA), source=str(tree))
    with pytest.raises(SourceError):
        ensure_build(request, Installation(layout=layout, env=bare, report=report, known=with_gpu))
    assert [note for note in said if "NVIDIA's licence: https://" in note]


def dry_run(bare: dict[str, str], home: Path, *words: str) -> Any:
    argv = [sys.executable, "-m", "nemotron_ops", "build", *words, "--dry-run", "--json"]
    env = {**bare, "NEMOTRON_OPS_HOME": str(home), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bare_machine_gets_a_full_plan_for_a_gpu_that_is_elsewhere(
    bare: dict[str, str], home: Path, tree: Path
) -> None:
    plan = dry_run(bare, home, "--cuda", "--cuda-arch", "90", "--source", str(tree))
    configure, compile_ = plan["commands"]
    assert plan["archs"] == ["90-real"]
    assert plan["archs_why"] == "asked for by --cuda-arch"
    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in configure
    assert any(word.startswith("-DCMAKE_CUDA_COMPILER=/") and word.endswith("/nvcc") for word in configure)
    assert tuple(compile_[-len(TARGETS) :]) == TARGETS
    assert plan["jobs"] >= 1
    assert plan["jobs_why"]
    assert plan["expected_s"] > 0
    assert plan["disk_bytes"] > 0


def git(folder: Path, *words: str) -> None:
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", **who}
    subprocess.run(["git", "-C", folder, *words], env=env, capture_output=True, check=True)


@pytest.fixture
def repository(tree: Path) -> Path:
    """The tree as a git repository, with the tag of a llama.cpp that fails with Nemotron everywhere."""
    git(tree, "init", "-q", "-b", "master")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    git(tree, "tag", "b8351")
    return tree


def nemotron_ops(bare: dict[str, str], home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**bare, "NEMOTRON_OPS_HOME": str(home), "PYTHONPATH": os.getcwd()}
    argv = [sys.executable, "-m", "nemotron_ops", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("act", [run.ensure_build, run.configure, run.prepare])
def test_a_llama_cpp_that_is_known_to_fail_everywhere_is_refused_before_anything_is_done(
    act: Callable[..., object], layout: Layout, repository: Path, bare: dict[str, str]
) -> None:
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), source=repository.as_uri(), ref="b8351")
    with pytest.raises(BuildError, match=r"llama\.cpp#20570") as caught:
        act(request, Installation(layout=layout, env=bare))
    assert "take b8352" in (caught.value.hint or "")
    assert "--force" in (caught.value.hint or "")
    assert not (repository.parent / "ledger").exists()
    assert not layout.builds.exists() or store.listed(layout) == ()


@pytest.mark.parametrize("command", [["build", "--cpu"], ["upgrade"]])
def test_a_dry_run_says_what_the_real_one_would_be_refused_for(
    command: list[str], bare: dict[str, str], home: Path, repository: Path
) -> None:
    words = [*command, "--source", repository.as_uri(), "--ref", "b8351", "--dry-run"]
    done = nemotron_ops(bare, home, *words)
    assert done.returncode == BuildError.exit_code, done.stderr
    assert "llama.cpp#20570" in done.stderr


def test_a_dry_run_with_force_lists_what_is_known(bare: dict[str, str], home: Path, repository: Path) -> None:
    plan = dry_run(bare, home, "--cpu", "--force", "--source", repository.as_uri(), "--ref", "b8351")
    assert any("llama.cpp#20570" in line for line in plan["known_bugs"])
    words = ["build", "--cpu", "--force", "--source", repository.as_uri(), "--ref", "b8351", "--dry-run"]
    assert "\nknown bug" in nemotron_ops(bare, home, *words).stdout


def test_without_a_network_a_source_on_this_machine_will_do(
    bare: dict[str, str], home: Path, repository: Path, tmp_path: Path
) -> None:
    git(repository, "tag", "b8400")
    bundle, packed = tmp_path / "llama.bundle", tmp_path / "llama.tar.gz"
    git(repository, "bundle", "create", str(bundle), "HEAD", "b8400")
    git(repository, "archive", "--prefix=llama/", "-o", str(packed), "HEAD")
    for source in (repository, packed, bundle):
        ref = ["--ref", "b8400"] if source == bundle else []
        plan = dry_run(bare, home, "--cpu", "--offline", "--source", str(source), *ref)
        assert plan["source"]["place"] == str(source)
    refused = nemotron_ops(bare, home, "build", "--cpu", "--offline", "--dry-run")
    assert refused.returncode == SourceError.exit_code
    assert "offline, and not here yet" in refused.stderr


def test_what_the_disk_refuses_while_building_is_told_in_a_line(bare: dict[str, str], home: Path, tree: Path) -> None:
    (tree / "large.bin").write_bytes(b"x" * 1_000_000)
    command = f"ulimit -f 100; exec {sys.executable} -m nemotron_ops build --cpu --source {tree}"
    env = {**bare, "NEMOTRON_OPS_HOME": str(home), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == BuildError.exit_code, done.stderr
    assert "error: cannot build llama.cpp: file too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_while_building_is_an_error_with_a_remedy_and_any_other_refusal_one_too() -> None:
    full = disk_error(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert isinstance(full, HostError)
    assert full.message == "cannot build llama.cpp: no space left on device (/data/x)"
    assert "builds prune" in (full.hint or "")
    refused = disk_error(PermissionError(errno.EACCES, "Permission denied", "/data"))
    assert isinstance(refused, BuildError)
    assert refused.message == "cannot build llama.cpp: permission denied (/data)"


def at_a_terminal(env: dict[str, str], answer: str, *words: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose user types `answer`."""
    ours, its = os.openpty()
    try:
        os.write(ours, answer.encode())
        argv = [sys.executable, "-m", "nemotron_ops", *words]
        done = subprocess.run(argv, env=env, stdin=its, capture_output=True, text=True, check=False, timeout=60)
    finally:
        os.close(ours)
        os.close(its)
    return done.returncode, done.stderr


@pytest.fixture
def without_compiler(bare: dict[str, str], home: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has git and no compiler."""
    (tmp_path / "bin").mkdir()
    return {**bare, "PATH": str(tmp_path / "bin"), "NEMOTRON_OPS_HOME": str(home), "PYTHONPATH": os.getcwd()}


@pytest.mark.parametrize("command", ["build", "upgrade", "serve tiny", "demo"])
def test_whoever_types_a_command_that_builds_is_asked_whether_zig_will_do(
    without_compiler: dict[str, str], command: str, tree: Path
) -> None:
    source = ["--source", str(tree)] if command in ("build", "upgrade") else []
    code, said = at_a_terminal(without_compiler, "n\n", *command.split(), *source)
    assert said.count("Use zig from a Python wheel") == 1, said
    assert code == HostError.exit_code, said
    assert "no C and C++ compiler" in said


@pytest.mark.parametrize("flag", ["--json", "--dry-run"])
@pytest.mark.parametrize("command", ["build", "upgrade", "serve tiny"])
def test_nobody_is_asked_where_a_program_reads_the_answer_or_nothing_is_done(
    without_compiler: dict[str, str], command: str, flag: str, tree: Path
) -> None:
    source = ["--source", str(tree)] if command in ("build", "upgrade") else []
    _, said = at_a_terminal(without_compiler, "n\n", *command.split(), *source, flag)
    assert "Use zig" not in said, said


def test_configuring_alone_compiles_nothing_and_can_be_done_twice(layout: Layout, tree: Path) -> None:
    env = {key: os.environ[key] for key in ("PATH", "HOME")}
    installation = Installation(layout=layout, env=env, known=replace(host.probe(env), gpus=()))
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), source=str(tree))
    ready = run.configure(request, installation)
    assert ready.steps == len(TARGETS)
    assert ready.folder == store.work_dir(layout, ready.plan.id)
    assert (ready.folder / "build.ninja").exists()
    assert not (tree.parent / "ledger").exists()
    assert store.listed(layout) == ()
    assert run.configure(request, installation).folder == ready.folder
