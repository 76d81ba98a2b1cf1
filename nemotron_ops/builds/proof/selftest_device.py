"""Decides whether this machine has the device that a build was made for. Pure.

A build holds code for the requested architectures, whatever machine compiled it. It is tested on GPUs only if all GPUs
of that kind can run its code, because llama-server uses all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.spec import Backend
from nemotron_ops.host.facts import Facts

CUDA_ARCH = re.compile(r"(\d+)(\d)([af]?)(-real|-virtual)?")


def device_here(
    backend: Backend, cmake: Mapping[str, str], facts: Facts, names: tuple[str, ...], env: Mapping[str, str]
) -> bool:
    """Whether a build for `backend` with the options `cmake` can be tested on this machine's devices.

    `names` are the devices that the new binary lists: the only evidence of Vulkan that this machine's facts may lack.
    """
    gpus = [gpu for gpu in facts.gpus if gpu.kind == str(backend)]
    match backend:
        case Backend.CPU:
            return True
        case Backend.CUDA:
            archs = cmake.get("CMAKE_CUDA_ARCHITECTURES", "").split(";")
            return bool(gpus) and all(any(runs_cuda(g.compute_capability, a) for a in archs) for g in gpus)
        case Backend.HIP:
            targets = re.split("[;,]", cmake.get("GPU_TARGETS", ""))
            return bool(gpus) and all(runs_hip(g.arch, targets, env) for g in gpus)
        case Backend.METAL | Backend.VULKAN:
            return bool(gpus) or proofs.has_device(names, backend)


def runs_cuda(capability: tuple[int, int] | None, arch: str) -> bool:
    """Whether a GPU runs code for `arch` as CMake writes it; a GPU of unknown capability counts as able.

    Machine code runs on the same major version from its minor one on, `a` on exactly its own; PTX on everything newer.
    """
    found = CUDA_ARCH.fullmatch(arch)
    if capability is None or arch in ("native", "all", "all-major"):
        return True
    if not found:
        return False
    made_for = (int(found[1]), int(found[2]))
    if found[3] == "a":
        return capability == made_for
    if found[3] == "f" or found[4] == "-real":
        return capability[0] == made_for[0] and capability[1] >= made_for[1]
    return capability >= made_for


def runs_hip(arch: str, targets: list[str], env: Mapping[str, str]) -> bool:
    """Whether an AMD GPU runs code for one of `targets`; HSA_OVERRIDE_GFX_VERSION replaces its architecture."""
    if override := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", env.get("HSA_OVERRIDE_GFX_VERSION", "")):
        arch = f"gfx{override[1]}{override[2]}{int(override[3]):x}"
    return not arch or arch in {target.partition(":")[0] for target in targets}


def hidden(backend: Backend) -> dict[str, str]:
    """Variables that hide GPUs from a build without code for them, which would use them nevertheless."""
    match backend:
        case Backend.CUDA:
            return {"CUDA_VISIBLE_DEVICES": "-1"}
        case Backend.HIP:
            return {"HIP_VISIBLE_DEVICES": "-1", "CUDA_VISIBLE_DEVICES": "-1"}
        case Backend.CPU | Backend.METAL | Backend.VULKAN:
            return {}
