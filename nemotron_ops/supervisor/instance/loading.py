"""How far a load is, and whether it still moves. Pure.

llama-server reports progress only in its router mode, so it is read from the kernel's counters: bytes read and memory
held, against the size of the model's files. Growth of any counter, or of the log, shows that the load goes on: the
deadline of a start limits silence, not duration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nemotron_ops.policy import HOST

# printed at once, at any verbosity, where --n-gpu-layers is given (llama.cpp v0.5.0, common/arg.cpp)
NO_GPU = "no usable GPU found"
CPU_STEP_S = 0.05  # less CPU time than this between two looks counts as idle
ALMOST = 0.99  # only `ready` is 100 %


@dataclass(frozen=True, kw_only=True)
class Look:
    """Counters of one process at one time."""

    read_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    log_bytes: int = 0


def moved(before: Look, after: Look) -> bool:
    """Whether any counter grew between two looks."""
    return (
        after.read_bytes > before.read_bytes
        or after.rss_bytes > before.rss_bytes
        or after.log_bytes > before.log_bytes
        or after.cpu_s - before.cpu_s >= CPU_STEP_S
    )


def mark(before: Look, after: Look) -> Look:
    """The base of the next comparison: the last look that moved, with the CPU time of this one.

    Each answer to /health takes some CPU time, so a load that hangs would otherwise seem to move for ever.
    """
    return after if moved(before, after) else replace(before, cpu_s=after.cpu_s)


def lost_gpu(planned_bytes: Mapping[str, int], log: str) -> str:
    """Why this process must not serve: its memory was planned on a GPU and llama-server sees none; otherwise "".

    It would run on the CPU, some hundred times slower and in memory outside the plan.
    """
    if NO_GPU not in log:
        return ""
    gpus = ", ".join(sorted(d for d, n in planned_bytes.items() if d != HOST and n))
    return f"llama-server sees no GPU, but its memory was planned on {gpus}" if gpus else ""


def share(look: Look, file_bytes: int) -> float | None:
    """The loaded share of the model's bytes, 0..1; None if the size of the files is unknown.

    Mapped files show in the resident size, read ones in the bytes read; the larger value counts.
    """
    if file_bytes <= 0:
        return None
    return min(ALMOST, max(look.read_bytes, look.rss_bytes) / file_bytes)
