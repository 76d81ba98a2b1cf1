"""Whether the device nodes that a GPU backend needs are there. Pure.

llama-server built for a GPU and started without one would run on the CPU, silently and slowly. The unit therefore
fails until the nodes exist, and systemd tries again.
"""

from __future__ import annotations

from collections.abc import Callable

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
