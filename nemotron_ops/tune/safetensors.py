"""Reads the tensors of a safetensors file as float32. Disk.

The format: eight bytes of length (little endian), a JSON object of names to type, shape and offsets, then the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotron_ops.errors import ModelError

Array = npt.NDArray[np.float32]

HEAD_BYTES = 8
MOST_HEAD_BYTES = 100 << 20  # as the safetensors library has it
TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def tensors_of(path: Path) -> Iterator[tuple[str, Array]]:
    """Each tensor with its name, in the order of the names. Raises ModelError if the file cannot be used."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEAD_BYTES)
            size = struct.unpack("<Q", raw)[0] if len(raw) == HEAD_BYTES else MOST_HEAD_BYTES + 1
            if size > MOST_HEAD_BYTES:
                raise ModelError(f"cannot read {path}: it is no safetensors file")
            head = json.loads(file.read(size))
            for name in sorted(head.keys() - {"__metadata__"}):
                one = head[name]
                begin, end = one["data_offsets"]
                file.seek(HEAD_BYTES + size + begin)
                yield name, _array(file.read(end - begin), one["dtype"], one["shape"])
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ModelError(f"cannot read {path}: it is no whole safetensors file ({exc})") from exc


def _array(raw: bytes, kind: str, shape: list[int]) -> Array:
    data: npt.NDArray[Any] = np.frombuffer(raw, TYPES[kind])
    if kind == "BF16":  # the upper half of a float32
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(data, np.float32).reshape(shape)
