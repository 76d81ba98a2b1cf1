"""`service check-gpu` keeps a service for a GPU from starting on the CPU; with a llama-server in sh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemotron_ops.cli.app import App
from nemotron_ops.operations.gpu_sight import look_for_gpu
from nemotron_ops.paths import Layout
from nemotron_ops.service.gpu import refusal

pytestmark = pytest.mark.process
LISTS = "Available devices:\n  CUDA0: NVIDIA H100 (80000 MiB, 79000 MiB free)\n"


def machine(folder: Path, *, script: str, backend: str = "cuda") -> tuple[Layout, Path]:
    """A home whose current build is `script`, and a root with the nodes of an NVIDIA GPU."""
    build = folder / "home/data/builds/some-build"
    (build / "bin").mkdir(parents=True)
    server = build / "bin/llama-server"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)
    (build / "manifest.json").write_text(json.dumps({"plan": {"backend": backend, "source": {}}}))
    (build.parent / "current.json").write_text(json.dumps({"current": build.name, "previous": []}))
    root = folder / "root"
    (root / "dev").mkdir(parents=True)
    for node in ("nvidia0", "nvidia-uvm"):
        (root / "dev" / node).touch()
    return App(env={"NEMOTRON_OPS_HOME": str(folder / "home")}).layout, root


def why(layout: Layout, root: Path, kind: str = "cuda") -> str:
    return refusal(kind, look_for_gpu(layout, kind, root=root))[0]


def test_a_build_that_lists_its_device_may_start(tmp_path: Path) -> None:
    layout, root = machine(tmp_path, script=f"[ $1 = --list-devices ] && printf '{LISTS}'")
    assert look_for_gpu(layout, "cuda", root=root).devices == ("CUDA0",)
    assert why(layout, root) == ""


def test_nodes_alone_are_not_enough_and_what_the_driver_said_is_kept(tmp_path: Path) -> None:
    script = "echo 'ggml_cuda_init: failed to initialize CUDA: driver/library mismatch' >&2; echo 'Available devices:'"
    layout, root = machine(tmp_path, script=script)
    assert "sees no such device" in why(layout, root)
    assert look_for_gpu(layout, "cuda", root=root).output == (
        "ggml_cuda_init: failed to initialize CUDA: driver/library mismatch",
    )


def test_a_device_of_another_kind_does_not_count(tmp_path: Path) -> None:
    layout, root = machine(tmp_path, script="printf 'Available devices:\\n  Vulkan0: llvmpipe (1 MiB, 1 MiB free)\\n'")
    assert "sees no such device" in why(layout, root)


def test_a_llama_server_that_dies_of_its_driver_has_listed_nothing(tmp_path: Path) -> None:
    layout, root = machine(tmp_path, script=f"printf '{LISTS}'; exit 1")
    assert "sees no such device" in why(layout, root)


def test_a_build_for_the_cpu_is_no_build_for_a_gpu(tmp_path: Path) -> None:
    layout, root = machine(tmp_path, script=f"printf '{LISTS}'", backend="cpu")
    assert why(layout, root) == "the current build is for cpu"


def test_without_its_nodes_llama_server_is_not_even_asked(tmp_path: Path) -> None:
    layout, root = machine(tmp_path, script="touch " + str(tmp_path / "asked"))
    (root / "dev/nvidia-uvm").unlink()
    assert why(layout, root) == "no /dev/nvidia-uvm"
    assert not (tmp_path / "asked").exists()
