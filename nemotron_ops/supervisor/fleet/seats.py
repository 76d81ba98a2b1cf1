"""Which instances may start now: start order and one memory budget. Pure.

A wanted instance takes a seat when all instances before it in start order have settled and its memory fits beside those
seated. If it was requested by a client or by hand (`pressing`), the least recently used idle instances that are not
pinned are evicted; at boot none is. An instance that could not fit even then is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nemotron_ops.policy import GIB


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One instance. `settled`: no longer starting. `idle`: ready, without a request."""

    id: str
    order: int = 0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    pinned: bool = False
    idle: bool = False
    settled: bool = True
    last_used: float = 0.0
    pressing: bool = False


@dataclass(frozen=True, kw_only=True)
class Admission:
    """`wait` and `refuse` map an id to the reason."""

    start: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    wait: Mapping[str, str] = field(default_factory=dict)
    refuse: Mapping[str, str] = field(default_factory=dict)


def admit(waiting: Sequence[Seat], seated: Sequence[Seat], capacity_bytes: Mapping[str, int]) -> Admission:
    """The decision about each of `waiting`, in their order."""
    start: list[str] = []
    evict: list[str] = []
    wait: dict[str, str] = {}
    refuse: dict[str, str] = {}
    taken = list(seated)
    for seat in waiting:
        if reason := hopeless(seat, taken, capacity_bytes):
            refuse[seat.id] = reason
        elif before := _before(seat, [*waiting, *taken], refuse):
            wait[seat.id] = f"starts after {before}"
        elif not (short := shortage(seat, taken, capacity_bytes)):
            start.append(seat.id)
            taken.append(seat)
        else:
            wait[seat.id] = f"waits for memory: {short}"
            evict += [s for s in victims(seat, taken, capacity_bytes) if s not in evict]
    return Admission(start=tuple(start), evict=tuple(evict), wait=wait, refuse=refuse)


def shortage(seat: Seat, seated: Sequence[Seat], capacity_bytes: Mapping[str, int]) -> str:
    """Which device lacks how much for `seat` beside `seated`, in words; empty if it fits."""
    for device, need in seat.memory_bytes.items():
        if device not in capacity_bytes:
            continue
        used = sum(s.memory_bytes.get(device, 0) for s in seated)
        if used + need > capacity_bytes[device]:
            free = max(0, capacity_bytes[device] - used)
            return f"needs {_gib(need)} on {device}, {_gib(free)} of {_gib(capacity_bytes[device])} free"
    return ""


def hopeless(seat: Seat, seated: Sequence[Seat], capacity_bytes: Mapping[str, int]) -> str:
    """Why `seat` cannot fit even beside the pinned instances alone; empty if it can."""
    return shortage(seat, [s for s in seated if s.pinned and s.id != seat.id], capacity_bytes)


def victims(seat: Seat, seated: Sequence[Seat], capacity_bytes: Mapping[str, int]) -> tuple[str, ...]:
    """The least recently used idle instances whose eviction makes room; none if that is not enough."""
    if not seat.pressing:
        return ()
    evicted: list[Seat] = []
    for victim in sorted((s for s in seated if s.idle and not s.pinned), key=lambda s: s.last_used):
        if not any(victim.memory_bytes.get(d) for d in seat.memory_bytes):
            continue
        evicted.append(victim)
        if not shortage(seat, [s for s in seated if s not in evicted], capacity_bytes):
            return tuple(s.id for s in evicted)
    return ()


def _before(seat: Seat, others: Sequence[Seat], refused: Mapping[str, str]) -> str:
    """The name of an instance that must settle first."""
    if seat.pressing:
        return ""
    earlier = (o.id for o in others if o.order < seat.order and not o.settled and o.id not in refused)
    return next(earlier, "")


def _gib(n: int) -> str:
    return f"{n / GIB:.1f} GiB"
