"""What compiles: cmake and ninja from wheels, a system compiler, or a private one. Disk, subprocess."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.build import cuda, cuda_wheels, zig
from nemotron_ops.build.plan import BuildPlan, cuda_root, found_tool
from nemotron_ops.build.wheel_pins import Deb, Wheel, cuda_folder, cuda_part, debs_for, wheels_for, zig_folder
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts, Tool
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report

WHEEL_HINT = "it comes with nemotron-ops as a Python wheel: install nemotron-ops again"


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs that drive a build."""

    cmake: Tool
    ninja: Tool


def programs(facts: Facts) -> Programs:
    """cmake and ninja. Raises HostError if one is missing."""
    return Programs(cmake=found_tool(facts, "cmake", WHEEL_HINT), ninja=found_tool(facts, "ninja", WHEEL_HINT))


def check_disk(plan: BuildPlan, folder: Path) -> None:
    """Raises HostError if the disk of `folder` has too little room for this build."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < plan.disk_bytes:
        raise HostError(
            f"cannot build llama.cpp: {folder} has {free / 1e9:.1f} GB free, {plan.disk_bytes / 1e9:.1f} GB are needed",
            hint="`nemotron-ops builds prune` and `nemotron-ops models rm` make room",
        )


def assemble(plan: BuildPlan, *, layout: Layout, facts: Facts, env: Mapping[str, str], report: Report) -> None:
    """Everything that `plan` compiles with and that comes as wheels. Raises SourceError, HostError."""
    cache = layout.cache / "wheels"
    if plan.compilers.from_wheel:
        (wheel,) = wheels_for("zig", facts.system, facts.machine)
        zig.assemble(layout.toolchains, wheel, cache=cache, env=env, report=report)
    if plan.cuda and plan.cuda.toolkit.from_wheels:
        cuda_wheels.assemble(
            layout.toolchains, version=cuda.dotted(plan.cuda.toolkit.version), machine=facts.machine, cache=cache,
            cc=plan.compilers.cc, env=env, report=report,
        )  # fmt: skip


def to_download(plan: BuildPlan, *, layout: Layout, facts: Facts) -> tuple[Wheel | Deb, ...]:
    """The files of private compilers that `assemble` would fetch for `plan`; none where they are assembled already."""
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
    """Private toolchains that this nemotron-ops would not use any more; builds have their own copies of libraries."""
    cudas = {cuda_folder(cuda.dotted(p.version), facts.machine) for p in cuda.PUBLISHED}
    used = cudas | {zig_folder(wheel) for wheel in wheels_for("zig", facts.system, facts.machine)}
    found = (*toolchains.glob("cuda-*"), *toolchains.glob("zig-*"))
    return tuple(sorted(p for p in found if p.is_dir() and p.name not in used))


def shared_libraries(plan: BuildPlan, *, layout: Layout, facts: Facts) -> tuple[Path, ...]:
    """Libraries out of a private toolkit that the built programs need beside them."""
    if not plan.cuda or not plan.cuda.toolkit.from_wheels:
        return ()
    return cuda_wheels.runtime_libraries(cuda_root(plan.cuda, layout.toolchains, facts))


def driver_stub(plan: BuildPlan, *, layout: Layout, facts: Facts) -> Path | None:
    """A folder with a stand-in for NVIDIA's driver library, for self-tests where there is no driver."""
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
