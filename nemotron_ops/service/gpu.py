"""Decides whether the GPU that a service is meant for can be used, from device nodes and llama-server's devices. Pure.

Without its GPU, llama-server would run on the CPU, silently and slowly. The unit therefore fails until the nodes exist
and the current build lists a device, and systemd tries again. Nodes alone prove little: driver and library may differ
in version, this user or the unit's DevicePolicy= may not open the nodes, and the build may be for another backend.
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
    """The patterns that `present` does not find, one for each group; any pattern of a group is enough.

    WSL has /dev/dxg and Jetson /dev/nvgpu instead of NVIDIA's usual nodes.
    """
    return tuple(group[0] for group in NODES[kind] if not any(present(pattern) for pattern in group))


@dataclass(frozen=True, kw_only=True)
class GpuCheck:
    """What was found on this machine."""

    missing: tuple[str, ...] = ()  # patterns of device nodes
    backend: str = ""  # of the current build, "" where there is none
    devices: tuple[str, ...] = ()  # of this backend, as `llama-server --list-devices` names them
    output: tuple[str, ...] = ()  # of llama-server, its last lines


def refusal(kind: str, found: GpuCheck) -> tuple[str, str]:
    """Why a service for `kind` must not start, and a hint; both empty if the GPU can be used."""
    if not found.backend:
        return "there is no build of llama.cpp", f"nemotron-ops build --{kind}"
    if found.backend != kind:
        return f"the current build is for {found.backend}", f"nemotron-ops build --{kind}, or `builds use` such a build"
    if found.missing:
        return f"no {' and no '.join(found.missing)}", "the driver is not loaded: `nemotron-ops doctor` looks"
    if not found.devices:
        return "llama-server sees no such device, although its nodes are there", NO_DEVICE
    return "", ""


NO_DEVICE = (
    "driver and library differ in version (nvidia-smi says so), this user may not open the nodes (groups render and "
    "video), or the unit's DevicePolicy= forbids it (service install --no-device-policy)"
)


def kind_for(asked: str, *, backend: str, machine: Sequence[str]) -> str:
    """The kind of GPU a service is for, "" for none: as requested, else the current build's, else the machine's."""
    if asked != "auto":
        return asked.replace("none", "")
    if backend:
        return backend if backend in NODES else ""
    return next((kind for kind in NODES if kind in machine), "")
