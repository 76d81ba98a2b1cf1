"""Reads from llama-server's log how much memory it uses. Pure.

With `-lv 4` (plain or `--log-jsonl`) llama-server logs every allocated buffer, in MiB with two digits. Their sums by
kind are compared with an Estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nemotron_ops.memory.model import MIB, Estimate

BUFFER = re.compile(r"(\w+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
PROJECTED = re.compile(r"projected to use (\d+) MiB of (host|device) memory")


@dataclass(frozen=True, kw_only=True)
class LoggedBuffer:
    """One buffer of the log: device ("CPU", "CUDA0"), kind and size."""

    device: str
    kind: str
    mib: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One kind of buffer, predicted and logged."""

    kind: str
    predicted_mib: float
    logged_mib: float

    @property
    def ratio(self) -> float | None:
        return self.predicted_mib / self.logged_mib if self.logged_mib else None


def logged_buffers(lines: Iterable[str]) -> list[LoggedBuffer]:
    """Every buffer in the log, in order."""
    found = (BUFFER.search(line) for line in lines)
    return [LoggedBuffer(device=m[1], kind=m[2], mib=float(m[3])) for m in found if m]


def projected_mib(lines: Iterable[str]) -> int | None:
    """llama-server's own projection before loading, host and device memory together; None if there is none."""
    first: dict[str, int] = {}
    for line in lines:
        if match := PROJECTED.search(line):
            first.setdefault(match[2], int(match[1]))
    return sum(first.values()) if first else None


def by_kind(buffers: Sequence[LoggedBuffer]) -> dict[str, float]:
    """MiB per kind of buffer over all devices."""
    sums: dict[str, float] = {}
    for buffer in buffers:
        sums[buffer.kind] = sums.get(buffer.kind, 0.0) + buffer.mib
    return sums


def predicted(e: Estimate) -> dict[str, float]:
    """MiB per kind as the log counts: MTP's cache under KV, its scratch memory under compute."""
    kinds: Mapping[str, int] = {
        "model": e.weights,
        "KV": e.kv + e.mtp_kv,
        "RS": e.rs,
        "compute": e.compute + e.mtp_compute,
        "output": e.output,
    }
    return {kind: n_bytes / MIB for kind, n_bytes in kinds.items()}


def compare(e: Estimate, lines: Iterable[str]) -> list[Comparison]:
    """Predicted against logged, kind by kind, and the sum of all."""
    logged = by_kind(logged_buffers(lines))
    wanted = predicted(e)
    rows = [Comparison(kind=k, predicted_mib=v, logged_mib=logged.get(k, 0.0)) for k, v in wanted.items()]
    total = Comparison(kind="total", predicted_mib=sum(wanted.values()), logged_mib=sum(logged.values()))
    return [*rows, total]
