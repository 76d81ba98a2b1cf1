"""How far a load is, and whether it still moves. Pure.

llama-server reports no progress of its own outside its router mode, so it is read from what the kernel counts: bytes
read and memory held, against the size of the model's files. Any growth of any counter, or of the log, is a sign that
the load goes on: the deadline of a start is about silence, never about duration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nemotron_ops.policy import HOST

# printed at once, at any verbosity, where --n-gpu-layers is given (llama.cpp v0.5.0, common/arg.cpp)
NO_GPU = "no usable GPU found"
CPU_STEP_S = 0.05  # less computing than this between two looks is idling
ALMOST = 0.99  # only `ready` is all of it


@dataclass(frozen=True, kw_only=True)
class Look:
    """Counters of one process at one time."""

    read_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    log_bytes: int = 0


def moved(before: Look, after: Look) -> bool:
    """Whether anything happened between two looks."""
    return (
        after.read_bytes > before.read_bytes
        or after.rss_bytes > before.rss_bytes
        or after.log_bytes > before.log_bytes
        or after.cpu_s - before.cpu_s >= CPU_STEP_S
    )


def mark(before: Look, after: Look) -> Look:
    """What the next look is compared with: the last one that moved, but computing counts from look to look.

    Each answer to /health costs a little of it, so a load that hangs would else move for ever.
    """
    return after if moved(before, after) else replace(before, cpu_s=after.cpu_s)


def lost_gpu(planned_bytes: Mapping[str, int], log: str) -> str:
    """Why this process must not serve: its memory was planned on a GPU and llama-server sees none; "" if all is well.

    It would go on with the CPU, some hundred times slower and in memory that nobody planned for.
    """
    if NO_GPU not in log:
        return ""
    gpus = ", ".join(sorted(d for d, n in planned_bytes.items() if d != HOST and n))
    return f"llama-server sees no GPU, and was to run on {gpus}" if gpus else ""


def share(look: Look, file_bytes: int) -> float | None:
    """0..1 of the model's bytes that are in, or None where the files' size is unknown.

    Mapped files show in the resident size, read ones in the bytes read; whichever is more counts.
    """
    if file_bytes <= 0:
        return None
    return min(ALMOST, max(look.read_bytes, look.rss_bytes) / file_bytes)
