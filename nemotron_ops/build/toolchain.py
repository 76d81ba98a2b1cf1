"""What compiles: cmake and ninja from wheels, a system compiler, or a private one. Disk, subprocess."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.build.plan import BuildPlan, found_tool
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts, Tool

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
    import shutil

    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < plan.disk_bytes:
        raise HostError(
            f"cannot build llama.cpp: {folder} has {free / 1e9:.1f} GB free, {plan.disk_bytes / 1e9:.1f} GB are needed",
            hint="`nemotron-ops builds prune` and `nemotron-ops models rm` make room",
        )
