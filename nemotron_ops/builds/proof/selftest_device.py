"""Whether the device that a build is for is in this machine, so that it can be tested there. Pure.

A build holds code for the architectures that were asked for, whatever machine it was compiled on. It is tested on GPUs
only where all of that kind can run its code: llama-server would use all of them.
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
    """Whether a build for `backend` with the options `cmake` can be tested where it is to run.

    `names` are the devices that the fresh binary lists: the only word on Vulkan, which this machine's facts may not
    know.
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
    """Whether a GPU runs code for `arch` as CMake writes it; one that the driver says nothing of is given a try.

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
    """Whether an AMD GPU runs code for one of `targets`; ROCm can be told to take it for another."""
    if told := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", env.get("HSA_OVERRIDE_GFX_VERSION", "")):
        arch = f"gfx{told[1]}{told[2]}{int(told[3]):x}"
    return not arch or arch in {target.partition(":")[0] for target in targets}


def hidden(backend: Backend) -> dict[str, str]:
    """Variables that hide GPUs from a build that has no code for them: it would send work there, asked or not."""
    match backend:
        case Backend.CUDA:
            return {"CUDA_VISIBLE_DEVICES": "-1"}
        case Backend.HIP:
            return {"HIP_VISIBLE_DEVICES": "-1", "CUDA_VISIBLE_DEVICES": "-1"}
        case Backend.CPU | Backend.METAL | Backend.VULKAN:
            return {}
