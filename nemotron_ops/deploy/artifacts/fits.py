"""What fits a target: whether a build of another machine runs there, and whether its disks have room. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_ops.deploy.steps.facts import Site, TargetFacts, dotted
from nemotron_ops.errors import DeployError

# a release unpacked beside its bundle; most of it is uvloop, rich and huggingface_hub
PROGRAM_BYTES = 400 << 20
NAMES = {"cpu": "the CPU", "cuda": "NVIDIA GPUs", "hip": "AMD GPUs", "vulkan": "Vulkan", "metal": "Metal"}


def why_not_send(manifest: Mapping[str, Any], facts: TargetFacts, *, asked: str = "") -> str:
    """Why the build of this manifest is not sent: wrong backend, or it cannot run on the target; "" if it can.

    `asked` is the backend from the command line; by default it is what the target has.
    """
    plan, platform = manifest["plan"], manifest.get("platform")
    backend, wanted = str(plan["backend"]), asked or facts.backend
    if backend != wanted:
        reason = f"--{asked} is asked for" if asked else f"the target has {_has(facts)}"
        return f"it is for {NAMES.get(backend, backend)}, and {reason}"
    if not platform:
        return "its manifest does not say what it needs"
    if (platform["system"], platform["machine"]) != ("Linux", facts.machine):
        return f"it is for {platform['system']} on {platform['machine']}, the target is {facts.machine}"
    if platform["glibc"] and tuple(platform["glibc"]) > facts.glibc:
        return f"it needs glibc {'.'.join(map(str, platform['glibc']))}, the target has {dotted(facts.glibc)}"
    # without an instruction set that it was compiled for, a binary dies with SIGILL
    if lacking := sorted(set(platform["isa"]) - facts.cpu_features):
        return f"the target's CPU lacks {', '.join(lacking)}"
    if backend == "cuda":
        return _cuda(plan, facts)
    return "" if backend == "cpu" else f"it runs only with the {NAMES.get(backend, backend)} libraries of this machine"


@dataclass(frozen=True, kw_only=True)
class SpaceNeeded:
    """Bytes that a deploy sends to a target or makes there."""

    build_bytes: int = 0  # of a build that is sent
    build_id: str = ""
    compile_bytes: int = 0  # of a build on the target, while it is made
    models: Sequence[tuple[str, int]] = ()  # name and bytes of model files that are sent


def check_room(name: str, facts: TargetFacts, site: Site, space: SpaceNeeded) -> None:
    """Raise DeployError where this does not fit on the target's disks; what is stored there already does not count.

    `fetch` and `build` check what they need on the target themselves, to the byte.
    """
    models = sum(size for file, size in space.models if (file, size) not in facts.models)
    build = 0 if space.build_id in facts.builds else space.build_bytes
    made = 0 if any(b.partition("-")[0] == facts.backend for b in facts.builds) else space.compile_bytes
    # files arrive in `incoming`; on one file system a model moves from there into the store by rename
    root = max(0, PROGRAM_BYTES + build + models - facts.incoming_bytes)
    data = build + made + (0 if facts.one_disk else models)
    if facts.one_disk:
        _enough(name, f"{site.root}", root + data, facts.free_bytes)
    else:
        _enough(name, f"{site.root}", root, facts.free_bytes)
        _enough(name, f"{site.data}", data, facts.data_free_bytes)


def _enough(name: str, where: str, need: int, free: int) -> None:
    if free < need:
        raise DeployError(
            f"cannot deploy to {name}: {need >> 20} MiB are needed there for {where}, {free >> 20} MiB are free",
            hint=f"remove old releases or models: nemotron-ops deploy exec {name} builds prune",
        )


def _cuda(plan: Mapping[str, Any], facts: TargetFacts) -> str:
    if not plan.get("cuda_from_wheels"):
        return "it uses the CUDA toolkit that is installed on this machine"
    if not facts.compute:
        return "the target's nvidia-smi does not tell its GPUs' compute capability"
    # code for one compute capability ("90-real") does not run on others, or runs slower than a build made there
    made_for = {int("".join(c for c in arch.partition("-")[0] if c.isdigit())) for arch in plan["archs"]}
    if others := sorted(set(facts.compute) - made_for):
        return f"it is for compute capability {_listed(made_for)}, the target has {_listed(others)}"
    needs = int(str(plan["cuda"]).partition(".")[0])
    if needs > facts.driver_cuda[0]:  # within one major version, older drivers run newer toolkits' programs
        return f"it needs a driver for CUDA {needs}, the target's is for {dotted(facts.driver_cuda)}"
    return ""


def _has(facts: TargetFacts) -> str:
    return "no GPU" if facts.backend == "cpu" else NAMES[facts.backend]


def _listed(numbers: Sequence[int] | set[int]) -> str:
    return ", ".join(dotted((n // 10, n % 10)) for n in sorted(numbers))
