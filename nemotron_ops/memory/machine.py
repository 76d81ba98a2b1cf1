"""The memory pools of a machine: its GPUs and its host memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nemotron_ops.errors import UsageError
from nemotron_ops.host.facts import Facts, Gpu
from nemotron_ops.policy import HOST

GPU_MARGIN_BYTES = 1024 << 20  # llama-server's own --fit-target, for the driver's context and pools
HOST_MARGIN_BYTES = 512 << 20  # for the process itself and for other programs
KINDS = ("cuda", "hip", "metal", "vulkan")
# ggml/include/ggml-cuda.h and others
DEVICE_NAMES = {"cuda": "CUDA", "hip": "ROCm", "metal": "MTL", "vulkan": "Vulkan"}
SMALL_MAC_BYTES = 36 << 30


@dataclass(frozen=True, kw_only=True)
class Device:
    """One pool of memory. `name` is llama-server's ("CUDA0"), `room_bytes` what may be used, without the margin."""

    name: str
    label: str
    total_bytes: int
    room_bytes: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All pools. `unified`: the GPUs use host memory, which is then counted once."""

    host: Device
    gpus: tuple[Device, ...] = ()
    unified: bool = False
    unmeasured: tuple[str, ...] = ()  # GPUs that do not report their memory


def machine(
    facts: Facts, *, backend: str = "", devices: Iterable[str] = (), used_bytes: Mapping[str, int] | None = None
) -> Machine:
    """The pools of a machine for a build of `backend` ("": the first kind of GPU present, "cpu": none).

    `devices` limits the GPUs to those named. `used_bytes` is the memory of our other models, by device: the sum of
    their placements' `bytes_by_device`. Raises UsageError for an unknown device.
    """
    used = used_bytes or {}
    kind = backend or next((k for k in KINDS if any(g.kind == k for g in facts.gpus)), "cpu")
    mine = [g for g in facts.gpus if g.kind == kind]
    named = {device_name(g, i): g for i, g in enumerate(mine)}
    wanted = list(devices) or list(named)
    if unknown := [d for d in wanted if d not in named]:
        known = ", ".join(named) or "none"
        raise UsageError(f"cannot use device {unknown[0]}: there is no such device", hint=f"there are: {known}")
    unified = any(named[n].unified for n in wanted)
    host_room = facts.ram_available_bytes - HOST_MARGIN_BYTES - used.get(HOST, 0)
    if unified:
        host_room -= sum(v for k, v in used.items() if k != HOST)
    host = Device(name=HOST, label=facts.cpu or "CPU", total_bytes=facts.ram_bytes, room_bytes=max(host_room, 0))
    measured = [n for n in wanted if named[n].memory_bytes]
    return Machine(
        host=host,
        gpus=tuple(_gpu(n, named[n], facts, used.get(n, 0)) for n in measured),
        unified=unified,
        unmeasured=tuple(n for n in wanted if not named[n].memory_bytes),
    )


def device_name(gpu: Gpu, index: int) -> str:
    """llama-server's name of the `index`th GPU of its kind."""
    return f"{DEVICE_NAMES.get(gpu.kind, gpu.kind)}{index}"


def _gpu(name: str, gpu: Gpu, facts: Facts, used: int) -> Device:
    room = (gpu.free_bytes or gpu.memory_bytes) - GPU_MARGIN_BYTES - used
    if gpu.kind == "metal":
        room = min(room, _metal_working_set(facts.ram_bytes) - used)
    return Device(name=name, label=gpu.name, total_bytes=gpu.memory_bytes, room_bytes=max(room, 0))


def _metal_working_set(ram_bytes: int) -> int:
    """macOS's default limit of GPU memory: two thirds of RAM on small machines, else three quarters."""
    return ram_bytes * 2 // 3 if ram_bytes <= SMALL_MAC_BYTES else ram_bytes * 3 // 4
