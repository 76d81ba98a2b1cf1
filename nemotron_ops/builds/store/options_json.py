"""What a build was asked to be, kept in its manifest, so that the next one can be of the same kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_ops.builds.spec import Backend, BuildOptions


def options_json(options: BuildOptions, backend: Backend) -> dict[str, Any]:
    """`options` as plain values for a manifest, with the `backend` that they came to.

    Jobs are left out: they are how fast, not what. So are fixes: each llama.cpp shows anew what it needs.
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
    """The options that the build of `manifest` was asked for; as far as its plan tells, where it does not say."""
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
    """For a build from before options were kept: all but further cmake options, which its plan does not tell apart."""
    by_hand = plan["archs"] if plan["archs_why"] == "asked for by --cuda-arch" else []
    return {
        "backend": plan["backend"],
        "portable": plan["portable"],
        "cuda_archs": by_hand,
        "hip_archs": plan["archs"] if plan["backend"] == Backend.HIP else [],
        "cmake_args": [],
        "zig": plan["compiler"].startswith("zig"),
    }
