"""What a conversion will write, and what it needs of disk and memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_ops.errors import FitError, HostError, UsageError
from nemotron_ops.models.checkpoint.shapes import Stored, largest_weights, outtype_of
from nemotron_ops.tune.merge_need import MARGIN, QUANTS, VECTOR_BYTES

WEIGHT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
HEADER_BYTES = 32 << 20  # vocabulary and metadata, at most
SPARE_BYTES = 256 << 20
BASE_BYTES = 1 << 30  # torch and transformers, loaded
COPIES = 3  # of the largest tensor, as float32: as read, as turned, as written


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """Sizes, at most: of the unquantised file, of each quant, and the memory of the converter."""

    outtype: str
    weights: int
    whole_bytes: int
    quant_bytes: dict[str, int]
    memory_bytes: int
    fetch_bytes: int = 0

    @property
    def disk_bytes(self) -> int:
        """What is written before anything can be removed."""
        return self.fetch_bytes + self.whole_bytes + sum(self.quant_bytes.values()) + SPARE_BYTES


def quants_of(text: str) -> tuple[str, ...]:
    """The quants in a list with commas, each once. Raises UsageError for one that is not known."""
    found = tuple(dict.fromkeys(word.strip().upper() for word in text.split(",") if word.strip()))
    unknown = [q for q in found if q not in QUANTS]
    if unknown or not found:
        what = f"write {unknown[0]}" if unknown else "convert to no type"
        raise UsageError(f"cannot {what}: it is no type of GGUF weights", hint=f"known: {', '.join(QUANTS)}")
    return found


def plan_of(tensors: Sequence[Stored], quants: Sequence[str], *, fetch_bytes: int = 0) -> ConvertPlan:
    """The plan for a checkpoint with these tensors."""
    outtype = outtype_of(tensors)
    matrices = sum(t.weights for t in tensors if len(t.shape) > 1)
    vectors = sum(t.weights for t in tensors if len(t.shape) <= 1)
    fixed = HEADER_BYTES + vectors * VECTOR_BYTES
    return ConvertPlan(
        outtype=outtype,
        weights=matrices + vectors,
        whole_bytes=fixed + matrices * WEIGHT_BYTES[outtype],
        quant_bytes={q: fixed + int(matrices * QUANTS[q] / 8 * MARGIN) for q in quants},
        memory_bytes=BASE_BYTES + COPIES * 4 * largest_weights(tensors),
        fetch_bytes=fetch_bytes,
    )


def check_room(plan: ConvertPlan, what: str, *, free_bytes: int, free_memory_bytes: int, folder: str) -> None:
    """Raises HostError if the disk is too small, FitError if the memory is."""
    if plan.disk_bytes > free_bytes:
        raise HostError(
            f"cannot convert {what}: it takes up to {plan.disk_bytes / 1e9:.1f} GB, "
            f"{free_bytes / 1e9:.1f} GB are free in {folder}",
            hint="make room (see `nemotron-ops models gc --dry-run`), or ask for fewer quants at once",
        )
    if plan.memory_bytes > free_memory_bytes:
        raise FitError(
            f"cannot convert {what}: its largest tensor takes up to {plan.memory_bytes / 1e9:.1f} GB of memory, "
            f"{free_memory_bytes / 1e9:.1f} GB are free",
            hint="stop what is loaded first: nemotron-ops stop",
        )
