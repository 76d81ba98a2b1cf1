"""Finds AMD, Apple and Vulkan GPUs. /sys, vulkaninfo, subprocess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nemotron_ops import proc
from nemotron_ops.host import parse
from nemotron_ops.host.facts import Gpu

KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")


def amd(nodes: Path = KFD_NODES) -> tuple[Gpu, ...]:
    """AMD GPUs that the kernel's compute driver knows (no ROCm needed)."""
    found: list[Gpu] = []
    for node in sorted(nodes.glob("*"), key=lambda p: int(p.name) if p.name.isdigit() else 0):
        try:
            properties = parse.kfd_gpu((node / "properties").read_text())
        except OSError:
            continue
        if properties.get("simd_count", 0) == 0:  # a CPU
            continue
        arch = parse.gfx_name(properties.get("gfx_target_version", 0))
        memory = sum(_bank_bytes(bank) for bank in (node / "mem_banks").glob("*/properties"))
        found.append(Gpu(index=len(found), kind="hip", name=arch, arch=arch, memory_bytes=memory))
    return tuple(found)


def apple(chip: str, ram_bytes: int) -> tuple[Gpu, ...]:
    """The GPU of an Apple chip, which shares the machine's memory."""
    return (Gpu(index=0, kind="metal", name=chip, memory_bytes=ram_bytes, unified=True),)


def vulkan(vulkaninfo: str, env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """GPUs that Vulkan can use, by name."""
    done = proc.run([vulkaninfo, "--summary"], env=env, timeout_s=20)
    names = parse.vulkan_devices(done.stdout) if done.ok else ()
    return tuple(Gpu(index=i, kind="vulkan", name=name) for i, name in enumerate(names))


def _bank_bytes(properties: Path) -> int:
    try:
        bank = parse.kfd_gpu(properties.read_text())
    except OSError:
        return 0
    return bank.get("size_in_bytes", 0) if bank.get("heap_type") in (1, 2) else 0
