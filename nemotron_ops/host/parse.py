"""Parses /proc, /sys and version output. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from nemotron_ops.host.facts import Gpu

MIB = 1024 * 1024
UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


def os_release(text: str) -> dict[str, str]:
    """Keys and values of /etc/os-release."""
    found = {}
    for line in text.splitlines():
        key, sep, value = line.partition("=")
        if sep and not key.startswith("#"):
            found[key.strip()] = value.strip().strip("\"'")
    return found


def version(text: str) -> tuple[int, ...]:
    """The first dotted number in `text`; () if there is none."""
    found = re.search(r"(\d+(?:\.\d+)+)", text) or re.search(r"(\d+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def compiler(text: str) -> tuple[str, tuple[int, ...]]:
    """Kind and version from a compiler's `--version`: ("gcc", (12, 2, 0)).

    Distributions put their package's version in brackets before gcc's own ("gcc (Debian 12.2.0-14+deb12u1)
    12.2.0"), so brackets are dropped first.
    """
    first = text.splitlines()[0] if text else ""
    plain = re.sub(r"\([^)]*\)", "", first)
    if "Apple" in first:
        return "apple-clang", version(plain)
    if "clang" in first:
        return "clang", version(plain)
    gnu = "Free Software Foundation" in text or re.search(r"\b(gcc|g\+\+|c\+\+|cc)(?!\w)", first)
    return ("gcc", version(plain)) if gnu else ("", version(plain))


def nvcc_version(text: str) -> tuple[int, ...]:
    """(13, 0, 88) from `nvcc --version`; () if the text is not from nvcc."""
    found = re.search(r"release (\d+)\.(\d+)(?:, V\d+\.\d+\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and instruction-set flags of the first CPU in /proc/cpuinfo (x86 and Arm)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, sep, value = line.partition(":")
        if sep:
            fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", fields.get("CPU part", "")), frozenset(flags.split())


def cpu_max(text: str) -> int | None:
    """Whole CPUs that cgroup v2's `cpu.max` grants, rounded up; None for no limit."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def memory_limit(text: str) -> int | None:
    """Bytes that `memory.max` (or v1's `memory.limit_in_bytes`) grants; None for no limit."""
    text = text.strip()
    if not text.isdigit() or int(text) >= UNLIMITED_BYTES:
        return None
    return int(text)


def cgroup_path(text: str) -> str:
    """This process's path in the unified hierarchy, from /proc/self/cgroup ("/" if missing)."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:] or "/"
    return "/"


def nvidia_smi(text: str) -> tuple[tuple[Gpu, ...], str]:
    """GPUs and driver version from `nvidia-smi --query-gpu=` NVIDIA_SMI_FIELDS `--format=csv,noheader,nounits`.

    Missing values read "[N/A]"; so does the memory of a GPU that shares the CPU's (DGX Spark).
    """
    gpus, driver = [], ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 7 or not cells[0].isdigit():
            continue
        index, uuid, name, cc, total, free, driver = cells
        gpus.append(
            Gpu(
                index=int(index),
                kind="cuda",
                name=name,
                uuid=uuid,
                compute_capability=_capability(cc),
                memory_bytes=_mib(total),
                free_bytes=_mib(free),
                unified=not total.isdigit(),
            )
        )
    return tuple(gpus), driver


NVIDIA_SMI_FIELDS = "index,uuid,name,compute_cap,memory.total,memory.free,driver_version"


def nvidia_smi_cuda(text: str) -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, from the header of plain `nvidia-smi`."""
    found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def kfd_gpu(properties: str) -> Mapping[str, int]:
    """Keys and numbers of one AMD GPU's `properties` below /sys/class/kfd/kfd/topology/nodes."""
    found = {}
    for line in properties.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[key] = int(value)
    return found


def gfx_name(target_version: int) -> str:
    """AMD's name of an architecture from `gfx_target_version`: 110000 -> gfx1100, 90010 -> gfx90a."""
    if target_version <= 0:
        return ""
    major, minor, step = target_version // 10000, target_version // 100 % 100, target_version % 100
    return f"gfx{major}{minor:x}{step:x}"


def vulkan_devices(text: str) -> tuple[str, ...]:
    """Names of real GPUs in `vulkaninfo --summary`; software renderers are left out."""
    found = []
    for block in re.split(r"\n(?=GPU\d+:)", text):
        name = re.search(r"deviceName\s*=\s*(.+)", block)
        kind = re.search(r"deviceType\s*=\s*(\S+)", block)
        if name and kind and "CPU" not in kind.group(1):
            found.append(name.group(1).strip())
    return tuple(found)


def _capability(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _mib(text: str) -> int:
    return int(text) * MIB if text.isdigit() else 0
