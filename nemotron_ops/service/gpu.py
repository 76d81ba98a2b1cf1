"""Whether the GPU that a service is meant for can be used: its device nodes, and what llama-server itself sees. Pure.

llama-server built for a GPU and started without one would run on the CPU, silently and slowly. The unit therefore
fails until the nodes exist and the current build lists a device, and systemd tries again. Nodes alone prove little:
driver and library may differ in version, the nodes may be closed to this user or by the unit's DevicePolicy=, and the
build may be for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

NODES = {
    "cuda": (("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/nvgpu"), ("/dev/nvidia-uvm", "/dev/dxg", "/dev/nvgpu")),
    "hip": (("/dev/kfd",), ("/dev/dri/renderD*",)),
    "vulkan": (("/dev/dri/renderD*", "/dev/nvidia[0-9]*"),),
}


def missing_nodes(kind: str, *, present: Callable[[str], bool]) -> tuple[str, ...]:
    """The patterns that `present` does not find, one per need; any one of a need's alternatives will do.

    WSL has /dev/dxg and Jetson /dev/nvgpu instead of NVIDIA's usual nodes.
    """
    return tuple(group[0] for group in NODES[kind] if not any(present(pattern) for pattern in group))


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What was seen: nodes that lack, the current build's backend ("" for no build), its devices, its last words."""

    lacking: tuple[str, ...] = ()
    backend: str = ""
    devices: tuple[str, ...] = ()  # of this backend, as `llama-server --list-devices` names them
    said: tuple[str, ...] = ()


def refusal(kind: str, seen: Sight) -> tuple[str, str]:
    """Why a service for `kind` must not start, and what to try; empty where the GPU can be used."""
    if not seen.backend:
        return "there is no build of llama.cpp", f"nemotron-ops build --{kind}"
    if seen.backend != kind:
        return f"the current build is for {seen.backend}", f"nemotron-ops build --{kind}, or `builds use` such a build"
    if seen.lacking:
        return f"no {' and no '.join(seen.lacking)}", "the driver is not loaded: `nemotron-ops doctor` looks"
    if not seen.devices:
        return "llama-server sees no such device, although its nodes are there", NO_DEVICE
    return "", ""


NO_DEVICE = (
    "driver and library differ in version (nvidia-smi says so), this user may not open the nodes (groups render and "
    "video), or the unit's DevicePolicy= forbids it (service install --no-device-policy)"
)


def kind_for(asked: str, *, backend: str, machine: Sequence[str]) -> str:
    """The kind of GPU a service is for, "" for none: as asked, else the current build's, else the machine's."""
    if asked != "auto":
        return asked.replace("none", "")
    if backend:
        return backend if backend in NODES else ""
    return next((kind for kind in NODES if kind in machine), "")
