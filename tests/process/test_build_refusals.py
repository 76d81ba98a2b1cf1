"""What a build says before it does anything, and how it ends where a toolkit cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops import host
from nemotron_ops.build import run, store
from nemotron_ops.build.run import ensure_build
from nemotron_ops.build.spec import TARGETS, Backend, BuildOptions, BuildRequest
from nemotron_ops.errors import SourceError
from nemotron_ops.host import Facts
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Step, silent
from tests.fakes.llama_cpp_tree import write_tree
from tests.machines import H100

pytestmark = pytest.mark.process


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with the system's programs, and a package registry that has nothing."""
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
    """This machine, said to have an H100 and a driver of CUDA 13, and no nvcc."""
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
        ensure_build(request, layout=layout, facts=replace(with_gpu, driver_cuda=driver), env=bare, report=silent)
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
        ensure_build(request, layout=layout, facts=with_gpu, env=bare, report=report)
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


def test_configuring_alone_compiles_nothing_and_can_be_done_twice(layout: Layout, tree: Path) -> None:
    env = {key: os.environ[key] for key in ("PATH", "HOME")}
    facts = replace(host.probe(env), gpus=())
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), source=str(tree))
    ready = run.configure(request, layout=layout, facts=facts, env=env, report=silent)
    assert ready.steps == len(TARGETS)
    assert ready.folder == store.work_dir(layout, ready.plan.id)
    assert (ready.folder / "build.ninja").exists()
    assert not (tree.parent / "ledger").exists()
    assert store.listed(layout) == ()
    assert run.configure(request, layout=layout, facts=facts, env=env, report=silent).folder == ready.folder
