"""CMake options of each backend, and why a backend is refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nemotron_ops.builds.spec import Backend, Fix
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts
from nemotron_ops.policy import GIB

# gcc 12 drops the stores of the AMX tile configuration, so every quantised model dies with SIGILL
# (ggml-cpu/amx/mmq.cpp:204, ggml-org/llama.cpp#26954; same family: #20824, #18099).
FIX_FLAGS: Mapping[Fix, tuple[str, ...]] = {
    Fix.NO_AMX: ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"),
}
AMX_GCC = 13  # first gcc that keeps them
AMX_CPU_FLAGS = frozenset({"amx_tile", "amx_int8", "amx_bf16"})

COMMON: Mapping[str, str] = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # else the build step downloads one from Hugging Face (tools/ui)
    "LLAMA_OPENSSL": "OFF",  # nemotron-ops does the downloads; no libssl needed to build or run
    "GGML_CCACHE": "OFF",  # a compiler cache is passed explicitly, see plan.py
}

PACKAGES: Mapping[str, Mapping[str, str]] = {
    # the command that installs a missing part, by package tool
    "compiler": {
        "apt": "sudo apt-get install -y g++",
        "dnf": "sudo dnf install -y gcc-c++",
        "pacman": "sudo pacman -S --needed gcc",
        "zypper": "sudo zypper install -y gcc-c++",
        "apk": "sudo apk add g++ linux-headers",
        "brew": "xcode-select --install",
    },
    "git": {
        "apt": "sudo apt-get install -y git",
        "dnf": "sudo dnf install -y git",
        "pacman": "sudo pacman -S --needed git",
        "zypper": "sudo zypper install -y git",
        "apk": "sudo apk add git",
        "brew": "xcode-select --install",
    },
    "ccache": {
        "apt": "sudo apt-get install -y ccache",
        "dnf": "sudo dnf install -y ccache",
        "pacman": "sudo pacman -S --needed ccache",
        "zypper": "sudo zypper install -y ccache",
        "apk": "sudo apk add ccache",
        "brew": "brew install ccache",
    },
    "vulkan": {
        "apt": "sudo apt-get install -y libvulkan-dev glslc spirv-headers",
        "dnf": "sudo dnf install -y vulkan-loader-devel glslc spirv-headers-devel",
        "pacman": "sudo pacman -S --needed vulkan-headers vulkan-icd-loader shaderc spirv-headers",
        "zypper": "sudo zypper install -y vulkan-devel shaderc spirv-headers",
        "apk": "sudo apk add vulkan-loader-dev shaderc spirv-headers",
        "brew": "brew install vulkan-headers vulkan-loader shaderc",
    },
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a build: CPU seconds of compiling, disk while building, memory of one job."""

    cpu_s: float
    disk_bytes: int
    job_bytes: int


# One job's peak: C++ 662 MB (httplib.cpp), CUDA 732 MB (argsort.cu, one architecture); measured on v0.5.0.
# Seconds: eight targets of v0.5.0 with gcc 12; CUDA: 143 .cu files for one architecture.
COSTS: Mapping[Backend, Cost] = {
    Backend.CPU: Cost(cpu_s=700, disk_bytes=GIB // 2, job_bytes=GIB),
    Backend.METAL: Cost(cpu_s=700, disk_bytes=GIB // 2, job_bytes=GIB),
    Backend.VULKAN: Cost(cpu_s=1200, disk_bytes=GIB, job_bytes=GIB),
    Backend.HIP: Cost(cpu_s=4000, disk_bytes=2 * GIB, job_bytes=3 * GIB // 2),
    Backend.CUDA: Cost(cpu_s=3500, disk_bytes=2 * GIB, job_bytes=5 * GIB // 4),
}
# Time for each further architecture, as a part of the first one's (seven took 4.5 times as long; norm, mmq, fattn).
FURTHER_ARCH = 0.6
PORTABLE_CPU_S = 840.0  # 14 CPU variants of 16 files


def default_backend(facts: Facts) -> Backend:
    """The machine's best backend: Metal on a Mac, CUDA or HIP with such a GPU, else CPU.

    Vulkan is never the default: an integrated GPU is often slower than its CPU.
    """
    if facts.system == "Darwin" and facts.machine == "arm64":
        return Backend.METAL
    kinds = {gpu.kind for gpu in facts.gpus}
    if "cuda" in kinds:
        return Backend.CUDA
    if "hip" in kinds and "hipcc" in facts.tools:
        return Backend.HIP
    return Backend.CPU


ROCM = (
    "install ROCm's HIP SDK (https://rocm.docs.amd.com/projects/install-on-linux), packages hip-dev, hipblas-dev and "
    "rocblas-dev"
)


def unused_gpu(facts: Facts) -> str:
    """The GPU that the default backend cannot use without a compiler, and the remedy; empty if none."""
    amd = next((gpu.name for gpu in facts.gpus if gpu.kind == "hip"), "")
    if not amd or default_backend(facts) is not Backend.CPU:
        return ""
    return f"the AMD GPU {amd} is not used, because there is no hipcc: {ROCM}; or build with --vulkan"


def refuse_backend(backend: Backend, facts: Facts, *, hip_archs: tuple[str, ...] = ()) -> None:
    """Raises HostError where this machine cannot build `backend` (CUDA has its own rules, in cuda.py)."""
    match backend:
        case Backend.METAL if facts.system != "Darwin":
            raise HostError("cannot build for Metal: this is not a Mac", hint="leave the flag out, or use --cpu")
        case Backend.CUDA if facts.system == "Darwin":
            raise HostError("cannot build for CUDA: NVIDIA has no driver for macOS", hint="use --metal or --cpu")
        case Backend.HIP if "hipcc" not in facts.tools:
            raise HostError(
                "cannot build for HIP: no hipcc on the PATH or in /opt/rocm",
                hint=ROCM,
            )
        case Backend.HIP if not hip_archs and not any(g.arch for g in facts.gpus if g.kind == "hip"):
            raise HostError(
                "cannot plan a HIP build: no AMD GPU was found on this machine",
                hint="name the GPU of another machine with --hip-arch, such as gfx1100 or gfx942",
            )
        case Backend.VULKAN if "glslc" not in facts.tools:
            raise HostError("cannot build for Vulkan: no glslc on the PATH", hint=install_line("vulkan", facts))
        case _:
            return


def backend_options(backend: Backend, *, hip_archs: tuple[str, ...]) -> dict[str, str]:
    """CMake options that switch `backend` on and the others off (CUDA's toolkit options are in plan.py)."""
    chosen = {f"GGML_{b.upper()}": "ON" if b is backend else "OFF" for b in Backend if b is not Backend.CPU}
    match backend:
        case Backend.CUDA:
            return {**chosen, "GGML_CUDA_NCCL": "OFF"}
        case Backend.METAL:
            return {**chosen, "GGML_METAL_EMBED_LIBRARY": "ON"}  # one file that can be moved
        case Backend.HIP:
            return {**chosen, "GPU_TARGETS": ";".join(hip_archs), "GGML_HIP_RCCL": "OFF"}
        case Backend.VULKAN | Backend.CPU:
            return chosen


def native_options(*, portable: bool) -> dict[str, str]:
    """Options for this CPU alone, or for all CPUs of its kind, with the variant chosen at start."""
    if not portable:
        # Explicit: with SOURCE_DATE_EPOCH set, native tuning would silently be off (ggml/CMakeLists.txt:105).
        return {"GGML_NATIVE": "ON", "BUILD_SHARED_LIBS": "OFF"}
    return {
        "GGML_NATIVE": "OFF",
        "BUILD_SHARED_LIBS": "ON",  # dynamic backends need it
        "GGML_BACKEND_DL": "ON",
        "GGML_CPU_ALL_VARIANTS": "ON",
    }


def needed_fixes(facts: Facts, *, portable: bool, zig: bool) -> frozenset[Fix]:
    """Fixes known to be needed before anything is compiled."""
    cxx = facts.tools.get("cxx")
    if zig or cxx is None or cxx.kind != "gcc" or not cxx.version or cxx.version[0] >= AMX_GCC:
        return frozenset()
    if facts.machine != "x86_64" or not (portable or facts.cpu_flags & AMX_CPU_FLAGS):
        return frozenset()
    return frozenset({Fix.NO_AMX})


def fix_options(fixes: frozenset[Fix]) -> dict[str, str]:
    """Compiler flags of `fixes` as CMake options."""
    flags = " ".join(flag for fix in sorted(fixes) for flag in FIX_FLAGS[fix])
    return {"CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags} if flags else {}


def amx_variants(cmake: str) -> tuple[str, ...]:
    """Names of the CPU variants with AMX, from the text of ggml/src/CMakeLists.txt."""
    variants = re.findall(r"ggml_add_cpu_backend_variant\((\w+)([^)]*)\)", cmake)
    return tuple(name for name, features in variants if "AMX_" in features)


def install_line(what: str, facts: Facts) -> str:
    """The command that installs `what` ("compiler", "git", "vulkan", "ccache") on this system."""
    return PACKAGES[what].get(package_tool(facts), f"install {what} with this system's package tool")


def package_tool(facts: Facts) -> str:
    """apt, dnf, pacman, zypper, apk or brew; empty if unknown."""
    if facts.system == "Darwin":
        return "brew"
    tools = {
        "apt": {"debian", "ubuntu"},
        "dnf": {"fedora", "rhel", "centos", "rocky", "almalinux", "amzn"},
        "pacman": {"arch"},
        "zypper": {"suse", "opensuse", "sles"},
        "apk": {"alpine"},
    }
    names = {facts.distro, *facts.distro_like}
    return next((tool for tool, distros in tools.items() if names & distros), "")
