"""The probe, on this machine and on fake folders and programs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops import host
from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.builds.toolchain.compilers import choose_compilers
from nemotron_ops.errors import HostError
from nemotron_ops.host import gpus, look, nvidia

pytestmark = pytest.mark.process


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_this_machine_is_what_python_says_it_is() -> None:
    facts = host.probe(os.environ)
    assert facts.system == os.uname().sysname
    assert facts.machine == os.uname().machine
    assert 1 <= facts.cores <= (os.cpu_count() or 1)
    assert 0 < facts.ram_available_bytes <= facts.ram_bytes


def test_cmake_and_ninja_are_the_wheels_whatever_the_path() -> None:
    tools = look.find_tools({"PATH": "/nonexistent"})
    assert {"cmake", "ninja"} <= set(tools)
    assert "cxx" not in tools
    assert tools["cmake"].kind == tools["ninja"].kind == "wheel"
    assert tools["cmake"].version >= (3, 28)


def test_a_compiler_that_does_not_start_is_none(tmp_path: Path) -> None:
    program(tmp_path, "cc", "exit 1")
    program(tmp_path, "c++", "echo 'g++ (Distro 14.2.0-1) 14.2.0'")
    tools = look.find_tools({"PATH": str(tmp_path)})
    assert "cc" not in tools
    assert (tools["cxx"].kind, tools["cxx"].version) == ("gcc", (14, 2, 0))


@pytest.mark.parametrize("variable", ["g++-13", "ccache g++-13", "{here}/g++-13 -pipe"])
def test_the_compiler_that_the_environment_names_is_taken(tmp_path: Path, variable: str) -> None:
    program(tmp_path, "c++", "echo 'c++ (X) 12.2.0'")
    program(tmp_path, "g++-13", "echo 'g++-13 (X) 13.1.0'")
    tools = look.find_tools({"PATH": str(tmp_path), "CXX": variable.format(here=tmp_path)})
    assert tools["cxx"].path == str(tmp_path / "g++-13")


def test_nvcc_is_found_by_cuda_home_and_what_its_toolkit_lacks_is_told(tmp_path: Path) -> None:
    nvcc = program(tmp_path / "cuda/bin", "nvcc", "echo 'Cuda compilation tools, release 12.9, V12.9.41'")
    tools = look.find_tools({"PATH": "/nonexistent", "CUDA_HOME": str(tmp_path / "cuda")})
    assert (tools["nvcc"].path, tools["nvcc"].version) == (str(nvcc), (12, 9, 41))
    assert look._cuda_lacks(nvcc) == ("cudart", "cublas")
    (tmp_path / "cuda/include").mkdir()
    for header in ("cuda_runtime.h", "cublas_v2.h"):
        (tmp_path / "cuda/include" / header).touch()
    assert look._cuda_lacks(nvcc) == ()


@pytest.mark.parametrize(("name", "variable"), [("hipcc", "ROCM_PATH"), ("hipcc", "HIP_PATH"), ("glslc", "VULKAN_SDK")])
def test_an_sdk_that_the_environment_names_comes_before_the_path(tmp_path: Path, name: str, variable: str) -> None:
    program(tmp_path / "bin", name, "echo 'version 1.1'")
    program(tmp_path / "sdk/bin", name, "echo 'HIP version: 7.0.51831-x'")
    tools = look.find_tools({"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", variable: str(tmp_path / "sdk")})
    assert (tools[name].path, tools[name].version) == (str(tmp_path / "sdk/bin" / name), (7, 0, 51831))


SMI = """case "$1" in
  --query-gpu=*) echo "0, GPU-a, NVIDIA H200, 9.0, 143771, 143000, 580.65.06" ;;
  "") echo "| NVIDIA-SMI 580.65.06  Driver Version: 580.65.06  CUDA Version: 13.0 |" ;;
esac"""


def test_nvidia_smi_is_asked_where_the_library_is_not_there(tmp_path: Path) -> None:
    found = nvidia._smi(str(program(tmp_path, "nvidia-smi", SMI)), {"PATH": "/usr/bin:/bin"})
    assert found is not None
    assert [(g.name, g.compute_capability) for g in found.gpus] == [("NVIDIA H200", (9, 0))]
    assert (found.driver_version, found.driver_cuda) == ("580.65.06", (13, 0))


def test_an_nvidia_smi_that_fails_finds_nothing(tmp_path: Path) -> None:
    assert nvidia._smi(str(program(tmp_path, "nvidia-smi", "exit 9")), {"PATH": "/usr/bin:/bin"}) is None


def kernel_nodes(folder: Path) -> Path:
    """The kernel's files of a CPU and an AMD GPU."""
    cpu, card = folder / "0", folder / "1"
    (card / "mem_banks/0").mkdir(parents=True)
    cpu.mkdir()
    (cpu / "properties").write_text("simd_count 0\ngfx_target_version 0\n")
    (card / "properties").write_text("simd_count 192\ngfx_target_version 110000\n")
    (card / "mem_banks/0/properties").write_text("heap_type 1\nsize_in_bytes 25753026560\n")
    return folder


def test_amd_gpus_are_read_from_the_kernel(tmp_path: Path) -> None:
    (found,) = gpus.amd(kernel_nodes(tmp_path))
    assert (found.arch, found.kind, found.memory_bytes) == ("gfx1100", "hip", 25753026560)


NVML = Path(__file__).parents[2] / "fakes/nvml.c"


@pytest.fixture
def nvml(tmp_path: Path) -> Callable[..., str]:
    """A fake NVML library, compiled by the machine's C compiler."""

    def made(*flags: str, init: int = 0) -> str:
        library = tmp_path / "libnvidia-ml.so.1"
        words: list[str | Path] = ["cc", "-shared", "-fPIC", f"-DINIT={init}", *flags, "-o", library, NVML]
        subprocess.run(words, check=True)
        return str(library)

    return made


def test_nvml_tells_every_kind_of_gpu_and_the_slices_in_place_of_the_card_that_is_cut(nvml: Callable[..., str]) -> None:
    library = nvml()
    found = nvidia.find({}, smi=None, library=library)
    assert (found.driver_version, found.driver_cuda) == ("580.65.06", (12, 8))
    assert [(g.index, g.name, g.uuid, g.compute_capability, g.mig, g.unified) for g in found.gpus] == [
        (0, "NVIDIA H100 MIG 1g.10gb", "MIG-1", (9, 0), True, False),
        (0, "NVIDIA H100 MIG 3g.40gb", "MIG-2", (9, 0), True, False),
        (1, "NVIDIA L4", "GPU-l", (8, 9), False, False),
        (2, "NVIDIA GB10", "GPU-g", (12, 1), False, True),
    ]
    assert [(g.memory_bytes >> 30, g.free_bytes >> 30) for g in found.gpus] == [(10, 5), (40, 20), (24, 12), (0, 0)]
    assert ctypes.c_int.in_dll(ctypes.CDLL(library), "alive").value == 0  # it was shut down again


@pytest.mark.parametrize(("flags", "init"), [(("-DOLD",), 0), ((), 9)])
def test_where_nvml_is_too_old_or_does_not_start_nvidia_smi_is_asked(
    nvml: Callable[..., str], tmp_path: Path, flags: tuple[str, ...], init: int
) -> None:
    smi = program(tmp_path, "nvidia-smi", SMI)
    found = nvidia.find({"PATH": "/usr/bin:/bin"}, smi=str(smi), library=nvml(*flags, init=init))
    assert [g.name for g in found.gpus] == ["NVIDIA H200"]


def test_a_machine_may_have_gpus_of_nvidia_and_of_amd(nvml: Callable[..., str], tmp_path: Path) -> None:
    nodes = kernel_nodes(tmp_path / "nodes")
    facts = host.probe({"PATH": "/usr/bin:/bin"}, tools=False, nvml=nvml(), kfd=nodes)
    assert [g.kind for g in facts.gpus] == ["cuda", "cuda", "cuda", "cuda", "hip"]
    assert facts.driver_cuda == (12, 8)
    assert [g.kind for g in host.probe({"PATH": ""}, tools=False, nvml="/none", kfd=nodes).gpus] == ["hip"]


def test_a_compiler_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'libmpfr.so.6: cannot open shared object file' >&2\nexit 127\n")
    broken.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "CC": str(broken), "CXX": "x86_64-conda-linux-gnu-c++"}
    facts = host.probe(env)
    assert "cc" not in facts.tools
    assert facts.bad_compilers == (
        f"CC names {broken}, which does not start: libmpfr.so.6: cannot open shared object file",
        "CXX names 'x86_64-conda-linux-gnu-c++', and there is no such program",
    )
    with pytest.raises(HostError, match="CXX names 'x86_64-conda") as caught:
        choose_compilers(BuildOptions(backend=Backend.CPU), facts, tmp_path)
    assert "unset CC" in str(caught.value.hint)


def test_a_compiler_whose_path_has_a_space_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "my tools"
    folder.mkdir()
    for name in ("gcc", "g++"):
        (folder / name).symlink_to(str(shutil.which(name)))
    env = {"PATH": os.environ["PATH"], "CC": f"{folder}/gcc", "CXX": f"{folder}/g++"}
    facts = host.probe(env)
    assert facts.tools["cxx"].path == f"{folder}/g++"
    assert facts.bad_compilers == ()
