"""Finds NVIDIA GPUs and their driver, without a CUDA toolkit. NVML through ctypes, nvidia-smi.

NVML comes with the driver and needs no CUDA context, so it works while the GPUs are full. Where it is missing or fails,
`nvidia-smi` is run; very old versions do not know `compute_cap` and find nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nemotron_ops import proc
from nemotron_ops.host import parse
from nemotron_ops.host.facts import Gpu

NVML_LIBRARY = "libnvidia-ml.so.1"
SMI_TIMEOUT_S = 20.0  # the first call after boot initialises the cards


@dataclass(frozen=True, kw_only=True)
class Nvidia:
    """GPUs and driver; all empty on a machine without NVIDIA's driver."""

    gpus: tuple[Gpu, ...] = ()
    driver_version: str = ""
    driver_cuda: tuple[int, int] | None = None


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def find(env: Mapping[str, str], *, smi: str | None, library: str = NVML_LIBRARY) -> Nvidia:
    """Ask NVML, which is `library`, then `smi` (the path of nvidia-smi, if there is one)."""
    found = _nvml(library)
    if found is None and smi:
        found = _smi(smi, env)
    return found or Nvidia()


def _nvml(library: str) -> Nvidia | None:
    try:
        lib = ctypes.CDLL(library)
        if lib.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None
    try:
        return Nvidia(
            gpus=tuple(gpu for i in range(_count(lib)) for gpu in _nvml_gpus(lib, i)),
            driver_version=_text(lib.nvmlSystemGetDriverVersion),
            driver_cuda=_driver_cuda(lib),
        )
    except AttributeError:  # a driver so old that it lacks one of these functions
        return None
    finally:
        lib.nvmlShutdown()


def _count(lib: ctypes.CDLL) -> int:
    n = ctypes.c_uint()
    return n.value if lib.nvmlDeviceGetCount_v2(ctypes.byref(n)) == 0 else 0


def _driver_cuda(lib: ctypes.CDLL) -> tuple[int, int] | None:
    n = ctypes.c_int()
    if lib.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(n)) != 0:
        return None
    return n.value // 1000, n.value % 1000 // 10


def _nvml_gpus(lib: ctypes.CDLL, index: int) -> list[Gpu]:
    """The GPU at `index`, or its MIG slices if it has any."""
    handle = ctypes.c_void_p()
    if lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return []
    major, minor = ctypes.c_int(), ctypes.c_int()
    capability = None
    if lib.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0:
        capability = (major.value, minor.value)
    gpu = _with_memory(lib, handle, _named(lib, handle, index))
    gpu = replace(gpu, compute_capability=capability)
    slices = [replace(s, compute_capability=capability) for s in _mig_slices(lib, handle, index)]
    return slices or [gpu]


def _named(lib: ctypes.CDLL, handle: ctypes.c_void_p, index: int) -> Gpu:
    name = _text(lambda buf, n: lib.nvmlDeviceGetName(handle, buf, n))
    return Gpu(index=index, kind="cuda", name=name, uuid=_text(lambda buf, n: lib.nvmlDeviceGetUUID(handle, buf, n)))


def _with_memory(lib: ctypes.CDLL, handle: ctypes.c_void_p, gpu: Gpu) -> Gpu:
    """`gpu` with its memory; where NVML reports none, the GPU shares the CPU's (DGX Spark)."""
    memory = _Memory()
    if lib.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return replace(gpu, unified=True)
    return replace(gpu, memory_bytes=memory.total, free_bytes=memory.free)


def _mig_slices(lib: ctypes.CDLL, parent: ctypes.c_void_p, index: int) -> list[Gpu]:
    current, pending, most = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
    if lib.nvmlDeviceGetMigMode(parent, ctypes.byref(current), ctypes.byref(pending)) != 0 or not current.value:
        return []
    if lib.nvmlDeviceGetMaxMigDeviceCount(parent, ctypes.byref(most)) != 0:
        return []
    slices = []
    for i in range(most.value):
        handle = ctypes.c_void_p()
        if lib.nvmlDeviceGetMigDeviceHandleByIndex(parent, i, ctypes.byref(handle)) == 0:
            slices.append(replace(_with_memory(lib, handle, _named(lib, handle, index)), mig=True))
    return slices


def _text(call: ctypes._FuncPointer | object) -> str:
    buffer = ctypes.create_string_buffer(96)
    done = call(buffer, ctypes.c_uint(len(buffer)))  # type: ignore[operator]
    return buffer.value.decode(errors="replace") if done == 0 else ""


def _smi(smi: str, env: Mapping[str, str]) -> Nvidia | None:
    query = f"--query-gpu={parse.NVIDIA_SMI_FIELDS}"
    done = proc.run([smi, query, "--format=csv,noheader,nounits"], env=env, timeout_s=SMI_TIMEOUT_S)
    if not done.ok:
        return None
    gpus, driver = parse.nvidia_smi(done.stdout)
    header = proc.run([smi], env=env, timeout_s=SMI_TIMEOUT_S)
    return Nvidia(gpus=gpus, driver_version=driver, driver_cuda=parse.nvidia_smi_cuda(header.stdout))
