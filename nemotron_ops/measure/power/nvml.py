"""Energy of NVIDIA's GPUs, from their driver. NVML through ctypes.

Cards from Volta on count millijoules; for others the power, a mean over up to a second, is added up. A card that is cut
into slices (MIG) tells the energy of all of them together, so it is not counted.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LIBRARY = "libnvidia-ml.so.1"


@dataclass(kw_only=True)
class _Card:
    """One GPU. `counts`: it has a counter; otherwise its power is added up between reads."""

    name: str
    handle: ctypes.c_void_p
    counts: bool
    first_mj: int = 0
    last_at: float = 0.0
    last_w: float = 0.0
    used_j: float = 0.0


class Nvml:
    """The GPUs of this machine. `energy.Source`."""

    def __init__(self, lib: ctypes.CDLL, cards: list[_Card], clock: Callable[[], float] = time.monotonic) -> None:
        self._lib, self._cards, self._clock, self._lost = lib, cards, clock, False
        self.period_s = 60.0 if all(c.counts for c in cards) else 0.1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self._cards)

    def start(self) -> None:
        self._lost = False
        for card in self._cards:
            card.used_j, card.last_at = 0.0, self._clock()
            if card.counts:
                card.first_mj = self._read(_energy_mj, card)
            else:
                card.last_w = self._read(_power_mw, card) / 1000

    def tick(self) -> None:
        for card in self._cards:
            if card.counts:
                card.used_j = (self._read(_energy_mj, card) - card.first_mj) / 1000
            else:
                watts, now = self._read(_power_mw, card) / 1000, self._clock()
                card.used_j += (card.last_w + watts) / 2 * (now - card.last_at)
                card.last_w, card.last_at = watts, now

    def joules(self) -> Mapping[str, float]:
        self.tick()
        return {} if self._lost else {c.name: c.used_j for c in self._cards}

    def close(self) -> None:
        self._lib.nvmlShutdown()

    def _read(self, read: Callable[[ctypes.CDLL, ctypes.c_void_p], int | None], card: _Card) -> int:
        value = read(self._lib, card.handle)
        self._lost = self._lost or value is None
        return value or 0


def open_nvml(library: str = LIBRARY) -> Nvml | str:
    """The GPUs that tell their energy or power, or why there are none."""
    try:
        lib = ctypes.CDLL(library)
        if lib.nvmlInit_v2() != 0:
            return "NVML: NVIDIA's driver does not answer"
    except (OSError, AttributeError):
        return "NVML: there is no NVIDIA driver"
    cards: list[_Card] = []
    problem = "NVML: no GPU tells its power"
    try:
        for index in range(_count(lib)):
            handle = ctypes.c_void_p()
            if lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
                continue
            if _is_cut(lib, handle):
                problem = f"NVML: GPU {index} is cut into slices, and tells the power of all of them"
            elif (counts := _energy_mj(lib, handle) is not None) or _power_mw(lib, handle) is not None:
                cards.append(_Card(name=f"gpu{index}", handle=handle, counts=counts))
    except AttributeError:
        problem = "NVML: NVIDIA's driver is too old"
    if cards:
        return Nvml(lib, cards)
    lib.nvmlShutdown()
    return problem


def _count(lib: ctypes.CDLL) -> int:
    n = ctypes.c_uint()
    return n.value if lib.nvmlDeviceGetCount_v2(ctypes.byref(n)) == 0 else 0


def _is_cut(lib: ctypes.CDLL, handle: ctypes.c_void_p) -> bool:
    current, pending = ctypes.c_uint(), ctypes.c_uint()
    done = lib.nvmlDeviceGetMigMode(handle, ctypes.byref(current), ctypes.byref(pending))
    return done == 0 and bool(current.value)


def _energy_mj(lib: ctypes.CDLL, handle: ctypes.c_void_p) -> int | None:
    """Millijoules since the driver was loaded; None where the card does not count them."""
    value = ctypes.c_ulonglong()
    return value.value if lib.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0 else None


def _power_mw(lib: ctypes.CDLL, handle: ctypes.c_void_p) -> int | None:
    value = ctypes.c_uint()
    return value.value if lib.nvmlDeviceGetPowerUsage(handle, ctypes.byref(value)) == 0 else None
