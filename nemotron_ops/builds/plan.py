"""Makes the complete plan of a build, from request, machine and source. Pure.

A plan leaves nothing to default: every CMake option, target, job count and architecture is named, with its reason. Its
id is a hash of all that determines the binary (source, backend, options, compiler, CPU and GPU architectures), so equal
requests lead to the same build.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.builds import backends
from nemotron_ops.builds.packages.wheel_pins import cuda_folder
from nemotron_ops.builds.spec import TARGETS, Backend, BuildOptions, Fix, Source, source_json
from nemotron_ops.builds.toolchain import cuda
from nemotron_ops.builds.toolchain.compilers import (
    Compilers,
    build_env,
    choose_compilers,
    compiler_options,
    isa,
    launcher_options,
)
from nemotron_ops.builds.toolchain.cuda import CudaChoice
from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.host.facts import Facts, Tool
from nemotron_ops.policy import GIB

# Paths on this machine do not change the binary; the versions of these programs are part of the id.
PLACES = frozenset({
    "CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER", "CMAKE_AR", "CMAKE_RANLIB",
    "CMAKE_CUDA_COMPILER", "CMAKE_CUDA_HOST_COMPILER", "CUDAToolkit_ROOT",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """A build, resolved. `cmake` holds every -D option; `archs` is empty for backends without any."""

    id: str
    source: Source
    backend: Backend
    portable: bool
    cmake: Mapping[str, str]
    targets: tuple[str, ...]
    env: Mapping[str, str]
    compilers: Compilers
    jobs: int
    jobs_why: str
    jobs_asked: bool = False  # by --jobs: then jobs are not shared with other builds
    archs: tuple[str, ...] = ()
    archs_why: str = ""
    cuda: CudaChoice | None = None
    fixes: frozenset[Fix] = frozenset()
    expected_s: float = 0.0
    disk_bytes: int = 0
    notes: tuple[str, ...] = ()


def plan(
    options: BuildOptions, *, facts: Facts, source: Source, toolchains: Path, env: Mapping[str, str], busy: int = 0
) -> BuildPlan:
    """The plan for `options` on `facts` with `source`. Raises HostError or UsageError if it cannot be.

    `toolchains` is the folder of compilers from wheels, now or later; `busy` counts the running builds that share the
    jobs.
    """
    backend = options.backend or backends.default_backend(facts)
    backends.refuse_backend(backend, facts, hip_archs=options.hip_archs)
    compilers = choose_compilers(options, facts, toolchains)
    choice = cuda.choose(facts, options.cuda_archs, facts.tools.get("cxx")) if backend is Backend.CUDA else None
    hip_archs = options.hip_archs or tuple(sorted({g.arch for g in facts.gpus if g.kind == "hip"}))
    fixes = options.fixes | backends.needed_fixes(facts, portable=options.portable, zig=options.zig)
    archs, why = (
        (choice.archs, choice.why) if choice else (hip_archs, "AMD GPUs") if backend is Backend.HIP else ((), "")
    )
    cmake = {
        **backends.COMMON,
        **backends.native_options(portable=options.portable),
        "LLAMA_BUILD_NUMBER": str(source.number),
        "LLAMA_BUILD_COMMIT": source.short,
        **backends.backend_options(backend, hip_archs=hip_archs),
        **compiler_options(compilers),
        **run_path_options(options, choice, facts),
        **(cuda_options(choice, compilers, toolchains, facts) if choice else {}),
        **backends.fix_options(fixes),
        **parse_cmake_args(options.cmake_args),
    }
    cost = backends.COSTS[backend]
    jobs, jobs_why = choose_jobs(facts, cost.job_bytes, asked=options.jobs, busy=busy)
    cpu_s = cost.cpu_s + (backends.PORTABLE_CPU_S if options.portable else 0)
    cpu_s += cost.cpu_s * backends.FURTHER_ARCH * max(0, len(archs) - 1)
    return BuildPlan(
        id=build_id(source, backend, cmake, toolset(compilers, choice), facts, portable=options.portable),
        source=source,
        backend=backend,
        portable=options.portable,
        cmake={**cmake, **launcher_options(facts, backend)},
        targets=TARGETS,
        env=build_env(env, facts),
        compilers=compilers,
        jobs=jobs,
        jobs_why=jobs_why,
        jobs_asked=options.jobs is not None,
        archs=archs,
        archs_why=why,
        cuda=choice,
        fixes=fixes,
        expected_s=round(cpu_s / jobs),
        disk_bytes=cost.disk_bytes,
        notes=tuple(notes(options, fixes, choice, facts)),
    )


def run_path_options(options: BuildOptions, choice: CudaChoice | None, facts: Facts) -> dict[str, str]:
    """Options for the run path: libraries are found beside the binary, so that the folder can be moved.

    CMake counts a private toolkit's lib folder as implicit and leaves it out of the run path, so it is named.
    """
    if not options.portable and choice is None:
        return {}
    origin = "@loader_path" if facts.system == "Darwin" else "$ORIGIN"
    paths = [origin]
    if choice and (choice.toolkit.from_wheels or options.portable):
        paths.append(f"{origin}/../cuda/lib")
    elif choice:
        paths.append(str(Path(choice.toolkit.nvcc).parent.parent / "lib64"))
    return {"CMAKE_BUILD_WITH_INSTALL_RPATH": "ON", "CMAKE_INSTALL_RPATH": ";".join(paths)}


def cuda_options(choice: CudaChoice, compilers: Compilers, toolchains: Path, facts: Facts) -> dict[str, str]:
    root = cuda_root(choice, toolchains, facts)
    before_13 = choice.toolkit.version[0] < 13
    no_static = choice.toolkit.from_wheels and before_13  # CUDA 12's wheels have no static libcudart
    return {
        **({"CMAKE_CUDA_FLAGS": "-cudart=shared", "CMAKE_CUDA_RUNTIME_LIBRARY": "Shared"} if no_static else {}),
        "CMAKE_CUDA_ARCHITECTURES": ";".join(choice.archs),
        "CMAKE_CUDA_COMPILER": choice.toolkit.nvcc or str(root / "bin/nvcc"),
        "CUDAToolkit_ROOT": str(root),
        "CMAKE_CUDA_HOST_COMPILER": compilers.cxx,
    }


def cuda_root(choice: CudaChoice, toolchains: Path, facts: Facts) -> Path:
    """The toolkit's folder: around the system's nvcc, or where the wheels are assembled."""
    if choice.toolkit.from_wheels:
        return toolchains / cuda_folder(cuda.dotted(choice.toolkit.version), facts.machine)
    return Path(choice.toolkit.nvcc).parent.parent


def choose_jobs(facts: Facts, job_bytes: int, *, asked: int | None, busy: int) -> tuple[int, str]:
    """The number of concurrent compilers, and why: bounded by cores and memory, shared with running builds."""
    if asked is not None:
        return max(1, asked), "asked for by --jobs"
    by_cores = max(1, facts.cores // (busy + 1))
    by_memory = max(1, facts.ram_available_bytes // (busy + 1) // job_bytes)
    shared = f", shared with {busy} other build{'s' if busy > 1 else ''}" if busy else ""
    if by_memory < by_cores:
        return by_memory, f"free memory for {by_memory} at {job_bytes / GIB:.3g} GiB each{shared}"
    return by_cores, f"{facts.cores} cores{shared}"


def build_id(
    source: Source,
    backend: Backend,
    cmake: Mapping[str, str],
    toolset: str,
    facts: Facts,
    *,
    portable: bool,
) -> str:
    """`cpu-0c1e5709-3fa2b1c4`: backend and source for people, then a hash of all that determines the binary."""
    matters = {
        "source": source.identity,
        "backend": str(backend),
        "cmake": {name: value for name, value in sorted(cmake.items()) if name not in PLACES},
        "toolset": toolset,
        "system": [facts.system, facts.machine, list(facts.glibc or ())],
        "cpu": [] if portable else isa(facts) or [facts.cpu],
    }
    digest = hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()
    return f"{backend}{'-portable' if portable else ''}-{source.short}-{digest[:8]}"


def toolset(compilers: Compilers, choice: CudaChoice | None) -> str:
    """All compilers by kind and version: `gcc 12.2.0, CUDA 13.0.2`."""
    return compilers.identity + (f", CUDA {cuda.dotted(choice.toolkit.version)}" if choice else "")


def parse_cmake_args(words: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE`, `-DNAME=VALUE` or `-DNAME:TYPE=VALUE` as options. Raises UsageError."""
    options = {}
    for word in words:
        name, sep, value = word.removeprefix("-D").partition("=")
        name = name.partition(":")[0]
        if not sep or word.startswith("--") or not name.replace("_", "").isalnum():
            raise UsageError(f"cannot use --cmake-arg {word}: expected NAME=VALUE", hint="as in GGML_CUDA_FA=OFF")
        options[name] = value
    return options


def configure_argv(cmake: str, ninja: str, source: Path, work: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The complete cmake command."""
    head = (cmake, f"-S{source}", f"-B{work}", "-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
    return (*head, *(f"-D{name}={value}" for name, value in options.items()))


def compile_argv(ninja: str, work: Path, jobs: int | None, targets: tuple[str, ...]) -> tuple[str, ...]:
    """The complete ninja command; without `jobs` ninja uses the budget that all builds share."""
    return (ninja, "-C", str(work), *(() if jobs is None else (f"-j{jobs}",)), *targets)


def notes(options: BuildOptions, fixes: frozenset[Fix], choice: CudaChoice | None, facts: Facts) -> list[str]:
    """Remarks on this plan for people."""
    found = []
    if Fix.NO_AMX in fixes and Fix.NO_AMX not in options.fixes:
        found.append("AMX is left out: gcc before 13 miscompiles it (ggml-org/llama.cpp#26954)")
    if options.backend is None and (unused := backends.unused_gpu(facts)):
        found.append(unused)
    if choice:
        found.append(f"CUDA {cuda.dotted(choice.toolkit.version)}: {choice.toolkit.why}")
    return found


def plan_json(plan: BuildPlan) -> dict[str, Any]:
    """`plan` as plain values, for --json and the manifest."""
    return {
        "id": plan.id,
        "source": source_json(plan.source),
        "backend": str(plan.backend),
        "portable": plan.portable,
        "cmake": dict(plan.cmake),
        "targets": list(plan.targets),
        "compiler": plan.compilers.identity,
        "archs": list(plan.archs),
        "archs_why": plan.archs_why,
        "cuda": cuda.dotted(plan.cuda.toolkit.version) if plan.cuda else None,
        "cuda_from_wheels": bool(plan.cuda and plan.cuda.toolkit.from_wheels),
        "fixes": sorted(plan.fixes),
        "jobs": plan.jobs,
        "jobs_why": plan.jobs_why,
        "expected_s": plan.expected_s,
        "disk_bytes": plan.disk_bytes,
        "notes": list(plan.notes),
    }


def found_tool(facts: Facts, name: str, hint: str) -> Tool:
    """The tool `name`. Raises HostError if this machine has none."""
    tool = facts.tools.get(name)
    if tool is None:
        raise HostError(f"cannot build llama.cpp: no {name} was found", hint=hint)
    return tool
