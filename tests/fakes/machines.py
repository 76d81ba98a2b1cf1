"""Facts of other machines, for tests of decisions."""

from __future__ import annotations

from dataclasses import replace

from nemotron_ops.host import Facts, Gpu, Tool
from nemotron_ops.policy import GIB

GCC12 = {"cc": Tool(path="/usr/bin/cc", version=(12, 2, 0), kind="gcc"),
         "cxx": Tool(path="/usr/bin/c++", version=(12, 2, 0), kind="gcc")}  # fmt: skip
GCC16 = {"cc": Tool(path="/usr/bin/cc", version=(16, 1), kind="gcc"),
         "cxx": Tool(path="/usr/bin/c++", version=(16, 1), kind="gcc")}  # fmt: skip
WHEELS = {"cmake": Tool(path="/venv/cmake/bin/cmake", version=(4, 4, 4), kind="wheel"),
          "ninja": Tool(path="/venv/bin/ninja", version=(1, 13, 2), kind="wheel"),
          "git": Tool(path="/usr/bin/git", version=(2, 39, 5))}  # fmt: skip

LAPTOP = Facts(
    system="Linux", machine="x86_64", distro="debian", distro_version="12", glibc=(2, 36), cpu="Some CPU",
    cpu_flags=frozenset({"avx2", "fma", "tsc"}), cores=8, ram_bytes=16 * GIB, ram_available_bytes=12 * GIB,
    tools={**GCC12, **WHEELS},
)  # fmt: skip
XEON_AMX = replace(LAPTOP, cpu="Xeon", cpu_flags=frozenset({"avx512f", "amx_tile", "amx_int8", "amx_bf16"}), cores=32)
H100 = replace(
    LAPTOP, cores=16, ram_bytes=128 * GIB, ram_available_bytes=120 * GIB,
    driver_version="580.65.06", driver_cuda=(13, 0),
    gpus=(Gpu(index=0, kind="cuda", name="NVIDIA H100", compute_capability=(9, 0), memory_bytes=80 * GIB),),
)  # fmt: skip
SPARK = replace(
    H100, machine="aarch64", cpu_flags=frozenset({"asimd", "sve"}),
    gpus=(Gpu(index=0, kind="cuda", name="NVIDIA GB10", compute_capability=(12, 1), unified=True),),
)  # fmt: skip
MAC = Facts(
    system="Darwin", machine="arm64", cpu="Apple M4", cores=10, ram_bytes=32 * GIB, ram_available_bytes=24 * GIB,
    gpus=(Gpu(index=0, kind="metal", name="Apple M4", memory_bytes=32 * GIB, unified=True),),
    tools={**WHEELS, "cc": Tool(path="/usr/bin/cc", version=(16, 0, 0), kind="apple-clang"),
           "cxx": Tool(path="/usr/bin/c++", version=(16, 0, 0), kind="apple-clang")},
)  # fmt: skip
RADEON = replace(
    LAPTOP, gpus=(Gpu(index=0, kind="hip", name="gfx1100", arch="gfx1100", memory_bytes=24 * GIB),),
    tools={**GCC12, **WHEELS, "hipcc": Tool(path="/opt/rocm/bin/hipcc", version=(7, 0))},
)  # fmt: skip


def nvcc(*version: int, path: str = "/usr/local/cuda/bin/nvcc") -> dict[str, Tool]:
    return {"nvcc": Tool(path=path, version=version, kind="nvcc")}
