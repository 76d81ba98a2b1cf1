"""The tensors of safetensors files, from their heads: names, types, shapes, and whether the file is whole. Disk.

The format: eight bytes of length (little endian), a JSON object of names to type, shape and offsets, then the data.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from nemotron_ops.errors import ModelError

HEAD_BYTES = 8
MOST_HEAD_BYTES = 100 << 20  # as the safetensors library has it
EXPERT = re.compile(r"(.+\.experts)\.\d+\.(.+)")  # the converter stacks the experts of a layer into one tensor
PACKED = {"U8": 2, "I8": 2}  # four bits a weight
OUTTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # of anything else the converter makes BF16


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of a checkpoint."""

    name: str
    kind: str  # as the file spells it: BF16, F8_E4M3
    shape: tuple[int, ...]

    @property
    def weights(self) -> int:
        """How many weights it holds, at most."""
        return prod(self.shape) * PACKED.get(self.kind, 1)


def tensors_in(paths: Iterable[Path]) -> tuple[Stored, ...]:
    """All tensors of the files. Raises ModelError for a file that is cut off or no safetensors file."""
    return tuple(tensor for path in paths for tensor in _one(path))


def _one(path: Path) -> list[Stored]:
    try:
        with path.open("rb") as file:
            raw = file.read(HEAD_BYTES)
            length = struct.unpack("<Q", raw)[0] if len(raw) == HEAD_BYTES else MOST_HEAD_BYTES + 1
            if length > MOST_HEAD_BYTES:
                raise ModelError(f"cannot read {path}: it is no safetensors file")
            head = json.loads(file.read(length))
            found = [
                Stored(name=name, kind=str(one["dtype"]), shape=tuple(int(n) for n in one["shape"]))
                for name, one in head.items()
                if name != "__metadata__"
            ]
            ends = [int(one["data_offsets"][1]) for name, one in head.items() if name != "__metadata__"]
        size = path.stat().st_size
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as exc:
        raise ModelError(f"cannot read {path}: it is no whole safetensors file ({exc})") from exc
    if (expected := HEAD_BYTES + length + max(ends, default=0)) > size:
        raise ModelError(f"cannot read {path}: it has {size:,} bytes, and its head promises {expected:,}")
    return found


def outtype_of(tensors: Sequence[Stored]) -> str:
    """The converter's type for matrices that loses nothing: that of most weights, BF16 for those of fewer bits."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            counts[tensor.kind] += tensor.weights
    return OUTTYPES.get(counts.most_common(1)[0][0], "bf16") if counts else "f32"


def largest_weights(tensors: Sequence[Stored]) -> int:
    """Weights of the largest tensor that the converter holds at once; the experts of a layer are one."""
    sums: Counter[str] = Counter()
    for tensor in tensors:
        match = EXPERT.fullmatch(tensor.name)
        sums[f"{match[1]}.{match[2]}" if match else tensor.name] += tensor.weights
    return max(sums.values(), default=0)
