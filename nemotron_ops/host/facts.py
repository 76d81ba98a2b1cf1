"""Facts about a machine, as plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device. `kind` is "cuda", "hip", "metal" or "vulkan"; `compute_capability` is (9, 0) for an H100."""

    index: int
    kind: str
    name: str
    memory_bytes: int = 0
    free_bytes: int = 0
    compute_capability: tuple[int, int] | None = None
    arch: str = ""  # "gfx1100" for AMD
    uuid: str = ""
    unified: bool = False  # shares memory with the CPU (Apple, DGX Spark)
    mig: bool = False


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that was found, with its reported version."""

    path: str
    version: tuple[int, ...] = ()
    kind: str = ""  # "gcc", "clang", "apple-clang" for compilers; "wheel" for programs from a wheel


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about a machine that nemotron-ops uses.

    `tools` holds the programs that were found, under cc, cxx, cmake, ninja, git, nvcc, hipcc, glslc, ccache, sccache.
    """

    system: str  # "Linux", "Darwin"
    machine: str  # "x86_64", "aarch64", "arm64"
    distro: str = ""  # ID of os-release: "debian"
    distro_like: tuple[str, ...] = ()
    distro_version: str = ""
    glibc: tuple[int, int] | None = None
    cpu: str = ""
    cpu_flags: frozenset[str] = frozenset()
    cores: int = 1  # usable by this process (affinity and cgroup quota)
    ram_bytes: int = 0
    ram_available_bytes: int = 0  # still usable; cgroup limits are counted
    gpus: tuple[Gpu, ...] = ()
    driver_version: str = ""  # NVIDIA's: "580.65.06"
    driver_cuda: tuple[int, int] | None = None  # newest CUDA that the driver runs: (13, 0)
    cuda_lacks: tuple[str, ...] = ()  # libraries missing from the CUDA toolkit of `nvcc`: "cublas"
    tools: Mapping[str, Tool] = field(default_factory=dict)
    bad_compilers: tuple[str, ...] = ()  # why the compilers that CC and CXX name cannot be used
    systemd: bool = False
