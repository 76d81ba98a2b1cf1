"""Build options in a manifest, from which an upgrade takes its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_ops.builds.spec import Backend, BuildOptions


def options_json(options: BuildOptions, backend: Backend) -> dict[str, Any]:
    """`options` as plain values for a manifest, with the chosen `backend`.

    Jobs are left out, because they change the speed only; so are fixes, because each llama.cpp may need others.
    """
    return {
        "backend": str(backend),
        "portable": options.portable,
        "cuda_archs": list(options.cuda_archs),
        "hip_archs": list(options.hip_archs),
        "cmake_args": list(options.cmake_args),
        "zig": options.zig,
    }


def options_from(manifest: Mapping[str, Any]) -> BuildOptions:
    """The options of the build of `manifest`; derived from its plan where the manifest has none."""
    asked = manifest.get("asked") or _by_plan(manifest["plan"])
    return BuildOptions(
        backend=Backend(asked["backend"]),
        portable=asked["portable"],
        cuda_archs=tuple(asked["cuda_archs"]),
        hip_archs=tuple(asked["hip_archs"]),
        cmake_args=tuple(asked["cmake_args"]),
        zig=asked["zig"],
    )


def _by_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a build from before they were recorded; its plan does not show further cmake options."""
    by_hand = plan["archs"] if plan["archs_why"] == "asked for by --cuda-arch" else []
    return {
        "backend": plan["backend"],
        "portable": plan["portable"],
        "cuda_archs": by_hand,
        "hip_archs": plan["archs"] if plan["backend"] == Backend.HIP else [],
        "cmake_args": [],
        "zig": plan["compiler"].startswith("zig"),
    }
