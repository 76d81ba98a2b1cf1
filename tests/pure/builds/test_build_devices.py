"""The devices that can test a build, and the recorded build options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds.plan import plan, plan_json
from nemotron_ops.builds.proof.selftest_device import device_here, hidden
from nemotron_ops.builds.spec import Backend, BuildOptions, Fix, Origin, Source, SourceKind
from nemotron_ops.builds.store.options_json import options_from, options_json
from nemotron_ops.host import Facts, Gpu, Tool
from tests.fakes.machines import H100, LAPTOP, MAC, RADEON, nvcc

SOURCE = Source(origin=Origin(kind=SourceKind.DIRECTORY, place="/x"), label="x", commit="c" * 40)
L4 = Gpu(index=0, kind="cuda", name="NVIDIA L4", compute_capability=(8, 9))
A6000 = Gpu(index=0, kind="cuda", name="NVIDIA RTX A6000", compute_capability=(8, 6))
RTX50 = Gpu(index=0, kind="cuda", name="NVIDIA RTX 5090", compute_capability=(12, 0))
SPARK_GPU = Gpu(index=0, kind="cuda", name="NVIDIA GB10", compute_capability=(12, 1))
UNKNOWN = Gpu(index=0, kind="cuda", name="NVIDIA ?")
HOPPER = H100.gpus[0]


def here(backend: Backend, facts: Facts, *, names: tuple[str, ...] = (), env: dict[str, str] | None = None,
         **cmake: str) -> bool:  # fmt: skip
    return device_here(backend, cmake, facts, names, env or {})


@pytest.mark.parametrize(
    ("gpus", "archs", "runs"),
    [
        ([HOPPER], "90-real", True),
        ([L4], "90-real", False),  # `--cuda-arch 90` on an L4
        ([HOPPER], "89-real", False),
        ([], "90-real", False),
        ([L4], "86-real", True),  # machine code runs on later GPUs of its generation
        ([A6000], "89-real", False),
        ([L4, HOPPER], "89-real;90-real", True),
        ([L4, HOPPER], "90-real", False),  # llama-server would use both
        ([RTX50], "120a-real", True),
        ([SPARK_GPU], "120a-real", False),
        ([SPARK_GPU], "120f-real", True),
        ([HOPPER], "80-virtual", True),
        ([HOPPER], "80", True),
        ([L4], "90-virtual", False),
        ([L4], "native", True),
        ([L4], "", False),
        ([UNKNOWN], "90-real", True),  # the driver does not report it; the self-test decides
    ],
)
def test_a_cuda_build_is_tested_where_every_gpu_can_run_its_code(gpus: list[Gpu], archs: str, runs: bool) -> None:
    assert here(Backend.CUDA, replace(H100, gpus=tuple(gpus)), CMAKE_CUDA_ARCHITECTURES=archs) is runs


def test_a_hip_build_is_tested_where_every_gpu_is_one_of_its_targets() -> None:
    assert here(Backend.HIP, RADEON, GPU_TARGETS="gfx1100")
    assert here(Backend.HIP, RADEON, GPU_TARGETS="gfx90a:sramecc+;gfx1100")
    assert not here(Backend.HIP, RADEON, GPU_TARGETS="gfx942")
    assert not here(Backend.HIP, LAPTOP, GPU_TARGETS="gfx1100")
    assert here(Backend.HIP, RADEON, GPU_TARGETS="gfx1030", env={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"})


def test_a_vulkan_build_is_tested_where_it_sees_a_device() -> None:
    assert not here(Backend.VULKAN, LAPTOP)
    assert here(Backend.VULKAN, LAPTOP, names=("Vulkan0",))
    assert here(Backend.VULKAN, replace(LAPTOP, gpus=(Gpu(index=0, kind="vulkan", name="Intel"),)))
    assert not here(Backend.VULKAN, H100, names=("CUDA0",))


def test_a_metal_build_is_tested_on_a_mac_and_a_cpu_build_anywhere() -> None:
    assert here(Backend.METAL, MAC)
    assert not here(Backend.METAL, replace(MAC, gpus=()))
    assert here(Backend.CPU, LAPTOP)


def test_gpus_that_a_build_has_no_code_for_are_hidden_from_it() -> None:
    assert hidden(Backend.CUDA) == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert hidden(Backend.HIP)["HIP_VISIBLE_DEVICES"] == "-1"
    assert hidden(Backend.CPU) == {}


def made(facts: Facts, options: BuildOptions) -> dict[str, Any]:
    """A manifest of an older nemotron-ops, which recorded the plan only."""
    return {"plan": plan_json(plan(options, facts=facts, source=SOURCE, toolchains=Path("/t"), env={}))}


EVERYTHING = BuildOptions(
    backend=Backend.CUDA, portable=True, cuda_archs=("89", "90"), cmake_args=("GGML_LTO=ON",), jobs=3,
    fixes=frozenset({Fix.NO_AMX}),
)  # fmt: skip


def test_what_was_asked_for_is_asked_for_again_but_for_jobs_and_fixes() -> None:
    again = options_from({**made(H100, EVERYTHING), "asked": options_json(EVERYTHING, Backend.CUDA)})
    assert again == replace(EVERYTHING, jobs=None, fixes=frozenset())


def test_a_default_backend_is_asked_for_by_name_the_next_time() -> None:
    assert options_from({"asked": options_json(BuildOptions(), Backend.CUDA)}).backend is Backend.CUDA


GLSLC = {**LAPTOP.tools, "glslc": Tool(path="/usr/bin/glslc")}


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        (LAPTOP, BuildOptions(backend=Backend.CPU)),
        (LAPTOP, BuildOptions(backend=Backend.CPU, portable=True)),
        (LAPTOP, BuildOptions(backend=Backend.CPU, zig=True)),
        (replace(LAPTOP, tools=GLSLC), BuildOptions(backend=Backend.VULKAN)),
        (replace(H100, tools={**H100.tools, **nvcc(13, 0)}), BuildOptions(backend=Backend.CUDA)),
        (RADEON, BuildOptions(backend=Backend.HIP, hip_archs=("gfx942",))),
    ],
)
def test_a_manifest_without_what_was_asked_tells_it_by_its_plan(facts: Facts, options: BuildOptions) -> None:
    assert options_from(made(facts, options)) == options


def test_architectures_named_by_hand_are_kept_and_those_found_are_found_again() -> None:
    by_hand = options_from(made(H100, BuildOptions(backend=Backend.CUDA, cuda_archs=("89",))))
    assert by_hand.cuda_archs == ("89-real",)
    assert made(H100, by_hand)["plan"]["archs"] == ["89-real"]
    assert options_from(made(H100, BuildOptions(backend=Backend.CUDA))).cuda_archs == ()
