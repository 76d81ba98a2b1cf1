"""Chooses CUDA toolkit and architectures, or refuses with a remedy. Pure.

Three things must fit: the driver (its CUDA version is a ceiling for the toolkit), the GPUs (each
toolkit knows a set of compute capabilities) and the host compiler (each nvcc refuses newer ones). Architectures
are always named, and as `-real`: a default list makes large binaries, and its PTX needs a driver as new as the toolkit
(NVIDIA/nvbandwidth#61: `cudaErrorUnsupportedPtxVersion` on a 580 driver).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TypeVar

from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.host.facts import Facts, Tool

T = TypeVar("T")

# First toolkit version -> compute capabilities that it compiles for (CUDA release notes; nvcc --list-gpu-arch).
TO_HOPPER = frozenset({50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90})
FROM_TURING = frozenset({75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121})  # 13.0 calls 110 what was 101 before
ARCHITECTURES: tuple[tuple[tuple[int, int], frozenset[int]], ...] = (
    ((11, 8), TO_HOPPER | {35, 37}),
    ((12, 0), TO_HOPPER),
    ((12, 8), TO_HOPPER | {100, 101, 120}),
    ((12, 9), TO_HOPPER | {100, 101, 103, 120, 121}),
    ((13, 0), FROM_TURING),
    ((13, 5), FROM_TURING | {107}),
)
# First toolkit version -> newest gcc and clang that nvcc accepts (crt/host_config.h of each).
HOST_COMPILERS: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    ((11, 8), (11, 14)),
    ((12, 0), (12, 14)),
    ((12, 4), (13, 17)),
    ((12, 8), (14, 19)),
    ((13, 0), (15, 20)),
    ((13, 5), (16, 22)),
)
OLDEST_TOOLKIT = (11, 8)
WHEELS_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A toolkit that can be assembled without root. `driver` is the oldest driver branch that runs its binaries."""

    version: tuple[int, int, int]
    driver: str  # NVIDIA's page on minor-version compatibility

    @property
    def release(self) -> tuple[int, int]:
        return self.version[:2]


# Newest first: the lowest 13, because it runs on every driver of CUDA 13; then the only 12 whose compiler is published
# outside NVIDIA's own site. 12.4 supports older GPUs, and its real code runs on drivers of CUDA 12.0.
PUBLISHED = (
    Published(version=(13, 0, 2), driver="580"),
    Published(version=(12, 4, 1), driver="525"),
)


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """A CUDA toolkit to build with. `nvcc` is empty for one that has to be assembled from wheels first."""

    version: tuple[int, ...]
    nvcc: str = ""
    why: str = ""

    @property
    def from_wheels(self) -> bool:
        return not self.nvcc


@dataclass(frozen=True, kw_only=True)
class CudaChoice:
    """A toolkit, the architectures as CMake wants them, and why these."""

    toolkit: Toolkit
    archs: tuple[str, ...]  # "90-real", "120a-real"
    why: str


def choose(facts: Facts, asked: tuple[str, ...], cxx: Tool | None) -> CudaChoice:
    """Toolkit and architectures for `facts`; `asked` replaces the GPUs found here. Raises HostError, UsageError."""
    numbers, why = wanted_archs(facts, asked)
    here = for_this_machine(facts, numbers)
    toolkit = choose_toolkit(facts, numbers, cxx, for_this_machine=here)
    if not here:
        toolkit = replace(toolkit, why=f"{toolkit.why}; the GPU's machine needs {driver_for(toolkit.version)}")
    return CudaChoice(toolkit=toolkit, archs=tuple(cmake_arch(n) for n in numbers), why=why)


def for_this_machine(facts: Facts, numbers: tuple[int, ...]) -> bool:
    """Whether `numbers` may mean GPUs of this machine (of unknown capability too), so that its driver counts."""
    found = [g.compute_capability for g in facts.gpus if g.kind == "cuda"]
    return None in found or set(numbers) <= {c[0] * 10 + c[1] for c in found if c}


def driver_for(toolkit: tuple[int, ...]) -> str:
    """The oldest driver that runs binaries of `toolkit`, in words."""
    branch = next((p.driver for p in PUBLISHED if p.version[0] == toolkit[0]), "")
    return f"driver {branch} or newer" if branch else f"a driver that runs CUDA {toolkit[0]}"


def wanted_archs(facts: Facts, asked: tuple[str, ...]) -> tuple[tuple[int, ...], str]:
    """Architectures as numbers (90 for 9.0) and where they come from."""
    if asked:
        numbers = sorted({parse_arch(word) for word in asked})
        return tuple(numbers), "asked for by --cuda-arch"
    gpus = [g for g in facts.gpus if g.kind == "cuda"]
    if not gpus:
        raise HostError(
            "cannot plan a CUDA build: no NVIDIA GPU was found on this machine",
            hint=f"install NVIDIA's driver ({PUBLISHED[0].driver} or newer), or name the GPUs of another machine with "
            "--cuda-arch (90 for H100/H200, 100 for B200, 89 for L4/RTX 40, 121 for DGX Spark), or build with --cpu",
        )
    unknown = [g.name for g in gpus if g.compute_capability is None]
    if unknown:
        raise HostError(
            f"cannot plan a CUDA build: the driver does not report the compute capability of {unknown[0]}",
            hint="name it with --cuda-arch; NVIDIA lists them at https://developer.nvidia.com/cuda-gpus",
        )
    found = {g.compute_capability[0] * 10 + g.compute_capability[1]: g.name for g in gpus if g.compute_capability}
    return tuple(sorted(found)), "; ".join(f"{number}: {found[number]}" for number in sorted(found))


def parse_arch(word: str) -> int:
    """90 from "90", "9.0", "sm_90", "90a" or "90-real". Raises UsageError."""
    found = re.fullmatch(r"(?:sm_|compute_)?(\d{1,2})\.?(\d)[af]?(?:-real|-virtual)?", word.strip())
    if not found:
        raise UsageError(
            f"cannot use --cuda-arch {word}: expected a compute capability such as 90",
            hint="`native` and `all` are not accepted: architectures are always named",
        )
    return int(found.group(1)) * 10 + int(found.group(2))


def cmake_arch(number: int) -> str:
    """90 -> 90-real; 12x needs its `a` features for llama.cpp's FP4 kernels (ggml-cuda/CMakeLists.txt:56-107)."""
    return f"{number}a-real" if number // 10 == 12 else f"{number}-real"


def choose_toolkit(facts: Facts, archs: tuple[int, ...], cxx: Tool | None, *, for_this_machine: bool) -> Toolkit:
    """The system's toolkit if it fits, else the newest from wheels that fits. Raises HostError with all reasons."""
    ceiling = facts.driver_cuda if for_this_machine else None
    reasons = []
    nvcc = facts.tools.get("nvcc")
    if nvcc is None:
        reasons.append("no nvcc on this machine")
    elif refusal := refuse(nvcc.version, archs, cxx, ceiling, lacks=facts.cuda_lacks):
        reasons.append(f"{nvcc.path}: {refusal}")
    else:
        return Toolkit(version=nvcc.version, nvcc=nvcc.path, why="the system's, it fits driver, GPU and compiler")
    for published in PUBLISHED:
        if facts.system != "Linux" or facts.machine not in WHEELS_MACHINES:
            reasons.append(f"no wheels are published for {facts.system} on {facts.machine}")
            break
        if refusal := refuse(published.release, archs, cxx, ceiling):
            reasons.append(f"CUDA {dotted(published.version)} from wheels: {refusal}")
            continue
        return Toolkit(version=published.version, why=f"from wheels, because {'; '.join(reasons)}")
    raise HostError("cannot find a CUDA toolkit that fits: " + "; ".join(reasons), hint=remedy(archs, cxx, ceiling))


def refuse(
    toolkit: tuple[int, ...],
    archs: tuple[int, ...],
    cxx: Tool | None,
    ceiling: tuple[int, int] | None,
    *,
    lacks: tuple[str, ...] = (),
) -> str:
    """Why `toolkit` cannot be used; empty if it can."""
    release = (toolkit[0], toolkit[1] if len(toolkit) > 1 else 0)
    if release < OLDEST_TOOLKIT:
        return f"version {dotted(release)} is older than {dotted(OLDEST_TOOLKIT)}"
    if lacks:
        return f"it lacks {', '.join(lacks)}"
    if ceiling and release[0] > ceiling[0]:  # within a major version, cubins run on older drivers too
        return f"CUDA {dotted(release)} needs a newer driver than this one, which runs {dotted(ceiling)} at most"
    if unknown := [a for a in archs if not knows(release, a)]:
        return refuse_arch(release, unknown[0])
    return refuse_compiler(release, cxx)


def knows(release: tuple[int, int], arch: int) -> bool:
    """Whether toolkit `release` compiles for `arch`; a release newer than the table may know newer GPUs."""
    newest, archs = ARCHITECTURES[-1]
    return arch in latest(ARCHITECTURES, release) or (release > newest and arch > max(archs))


def refuse_arch(release: tuple[int, int], arch: int) -> str:
    """Why `release` does not compile for `arch`."""
    after = any(arch in archs for first, archs in ARCHITECTURES if first > release)
    before = any(arch in archs for first, archs in ARCHITECTURES if first < release)
    if before and not after:
        return f"CUDA {dotted(release)} no longer supports compute capability {capability(arch)}"
    return f"CUDA {dotted(release)} does not know compute capability {capability(arch)}{' yet' if after else ''}"


def refuse_compiler(release: tuple[int, int], cxx: Tool | None) -> str:
    """Why nvcc of `release` does not accept `cxx` as host compiler; empty if it does."""
    if cxx is None or not cxx.version or cxx.kind not in ("gcc", "clang"):
        return ""
    gcc, clang = latest(HOST_COMPILERS, release)
    most = gcc if cxx.kind == "gcc" else clang
    if cxx.version[0] <= most:
        return ""
    return f"its nvcc accepts {cxx.kind} up to {most}, and {cxx.path} is {cxx.kind} {cxx.version[0]}"


def remedy(archs: tuple[int, ...], cxx: Tool | None, ceiling: tuple[int, int] | None) -> str:
    """The remedy where neither the system's toolkit nor one from wheels fits."""
    newest, oldest = PUBLISHED[0], PUBLISHED[-1]
    if unknown := [a for a in archs if not any(a in known for _, known in ARCHITECTURES)]:
        return (
            f"no toolkit is known for compute capability {capability(unknown[0])}; NVIDIA lists all of them at "
            "https://developer.nvidia.com/cuda-gpus; for a newer GPU, put a newer toolkit's nvcc on the PATH"
        )
    if fitting := next((p for p in PUBLISHED if not refuse(p.release, archs, None, ceiling)), None):
        limit = latest(HOST_COMPILERS, fitting.release)[0]
        if refusal := refuse_compiler(fitting.release, cxx):
            return f"install an older compiler and name it, as in CXX=g++-{limit} CC=gcc-{limit} ({refusal})"
        return "install a CUDA toolkit (https://developer.nvidia.com/cuda-downloads) and put its nvcc on the PATH"
    if ceiling and ceiling < (12, 0):
        return f"update NVIDIA's driver to {oldest.driver} or newer, preferably {newest.driver}"
    if not refuse(newest.release, archs, None, None):
        return (
            f"update NVIDIA's driver to {newest.driver} or newer, or install a CUDA 12 toolkit that knows these GPUs "
            "(https://developer.nvidia.com/cuda-toolkit-archive) and put its nvcc on the PATH"
        )
    return (
        "build for fewer kinds of GPUs with --cuda-arch, or put the nvcc of a CUDA toolkit that knows all of these on "
        "the PATH (https://developer.nvidia.com/cuda-toolkit-archive)"
    )


def latest(table: tuple[tuple[tuple[int, int], T], ...], release: tuple[int, int]) -> T:
    """The entry of `table` for the newest version that is not newer than `release`."""
    return [value for first, value in table if first <= release][-1]


def capability(arch: int) -> str:
    return f"{arch // 10}.{arch % 10}"


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(n) for n in version)
