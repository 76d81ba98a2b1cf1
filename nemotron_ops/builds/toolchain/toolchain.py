"""Provides the programs of a build: cmake and ninja from wheels, a system compiler or a private one. Disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.builds.disk import check_room
from nemotron_ops.builds.packages.wheel_pins import Deb, Wheel, cuda_folder, cuda_part, debs_for, wheels_for, zig_folder
from nemotron_ops.builds.plan import BuildPlan, cuda_root, found_tool
from nemotron_ops.builds.toolchain import cuda, cuda_wheels, zig
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts, Tool
from nemotron_ops.installation import Installation

WHEEL_HINT = "it comes with nemotron-ops as a Python wheel: install nemotron-ops again"


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs that drive a build."""

    cmake: Tool
    ninja: Tool


def programs(facts: Facts) -> Programs:
    """cmake and ninja. Raises HostError if one is missing."""
    return Programs(cmake=found_tool(facts, "cmake", WHEEL_HINT), ninja=found_tool(facts, "ninja", WHEEL_HINT))


def check_disk(plan: BuildPlan, installation: Installation) -> None:
    """Raises HostError if the disk lacks room for this build or for the compilers that it needs first."""
    for needs in disk_needs(plan, installation):
        check_room("build llama.cpp", needs)


def disk_bytes(plan: BuildPlan, installation: Installation) -> int:
    """The most bytes that the build takes at one time, if all folders are on one disk."""
    return max(sum(needs.values()) for needs in disk_needs(plan, installation))


def disk_needs(plan: BuildPlan, installation: Installation) -> tuple[Mapping[Path, int], Mapping[Path, int]]:
    """Bytes by folder: while private compilers are assembled; then, without their downloads, while they compile."""
    layout = installation.layout
    files = to_download(plan, installation)
    unpacked = sum(int(f.size * (zig if f.package == "ziglang" else cuda_wheels).UNPACKED_FACTOR) for f in files)
    return (
        {layout.cache / "wheels": sum(f.size for f in files), layout.toolchains: unpacked},
        {layout.toolchains: unpacked, layout.builds: plan.disk_bytes},
    )


def assemble(plan: BuildPlan, installation: Installation) -> None:
    """Assembles the compilers of `plan` that come as wheels. Raises SourceError, HostError."""
    if plan.compilers.from_wheel:
        (wheel,) = wheels_for("zig", installation.facts.system, installation.facts.machine)
        zig.assemble(wheel, installation)
    if plan.cuda and plan.cuda.toolkit.from_wheels:
        cuda_wheels.assemble(cuda.dotted(plan.cuda.toolkit.version), plan.compilers.cc, installation)
    shared_libraries(plan, installation)  # a library that is missing should show before compiling


def to_download(plan: BuildPlan, installation: Installation) -> tuple[Wheel | Deb, ...]:
    """The files of private compilers that `assemble` would fetch for `plan`; none where they are assembled already."""
    layout, facts = installation.layout, installation.facts
    missing: list[Wheel | Deb] = []
    zigs = wheels_for("zig", facts.system, facts.machine) if plan.compilers.from_wheel else ()
    missing += [wheel for wheel in zigs if not (layout.toolchains / zig_folder(wheel)).is_dir()]
    if plan.cuda and plan.cuda.toolkit.from_wheels:
        version = cuda.dotted(plan.cuda.toolkit.version)
        if not cuda_wheels.assembled(layout.toolchains, version, facts.machine):
            what = cuda_part(version)
            missing += [*wheels_for(what, "Linux", facts.machine), *debs_for(what, facts.machine)]
    return tuple(missing)


def outdated(toolchains: Path, facts: Facts) -> tuple[Path, ...]:
    """Private toolchains that this nemotron-ops no longer uses; builds have their own copies of libraries."""
    cudas = {cuda_folder(cuda.dotted(p.version), facts.machine) for p in cuda.PUBLISHED}
    used = cudas | {zig_folder(wheel) for wheel in wheels_for("zig", facts.system, facts.machine)}
    found = (*toolchains.glob("cuda-*"), *toolchains.glob("zig-*"))
    return tuple(sorted(p for p in found if p.is_dir() and p.name not in used))


def shared_libraries(plan: BuildPlan, installation: Installation) -> tuple[Path, ...]:
    """CUDA's libraries that the built programs need beside them, by the names that they load. Raises HostError.

    Libraries of a private toolkit always; those of the system's toolkit only for a portable build.
    """
    layout, facts = installation.layout, installation.facts
    if not plan.cuda:
        return ()
    root = cuda_root(plan.cuda, layout.toolchains, facts)
    if plan.cuda.toolkit.from_wheels:
        return cuda_wheels.runtime_libraries(root)
    return tuple(system_library(root, name) for name in cuda_wheels.RUNTIME_LIBRARIES) if plan.portable else ()


def system_library(root: Path, name: str) -> Path:
    """The library `name` ("libcudart.so") of the system's toolkit at `root`, under the name that programs load.

    Of libcudart.so.12 and libcudart.so.12.9.79 that is the shorter one. Raises HostError.
    """
    folders = (root / "lib64", root / "lib", *root.glob("targets/*/lib"), *root.glob("lib/*-linux-gnu"))
    found = sorted((path for folder in folders for path in folder.glob(f"{name}.*")), key=lambda p: len(p.name))
    if not found:
        raise HostError(
            f"cannot make a portable build: the CUDA toolkit in {root} has no {name}",
            hint="install its libraries, or remove its nvcc from the PATH: then a toolkit from wheels is used",
        )
    return found[0]


def driver_stub(plan: BuildPlan, installation: Installation) -> Path | None:
    """A folder with a stub of NVIDIA's driver library, for self-tests without a driver."""
    layout, facts = installation.layout, installation.facts
    if not plan.cuda or facts.driver_cuda is not None:
        return None
    root = cuda_root(plan.cuda, layout.toolchains, facts)
    if (root / "driver-stub").is_dir():
        return root / "driver-stub"
    stub = next((p for p in (root / "lib64/stubs/libcuda.so", root / "lib/stubs/libcuda.so") if p.exists()), None)
    if stub is None:
        return None
    folder = layout.toolchains / "driver-stub"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "libcuda.so.1").unlink(missing_ok=True)
    (folder / "libcuda.so.1").symlink_to(stub)
    return folder
