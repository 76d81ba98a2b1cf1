"""GGUF bytes from metadata and tensors. Pure.

The layout (ggml's `docs/gguf.md`, version 3, little endian): magic, version, counts, key-value pairs, tensor
infos, then tensor data from the next multiple of the alignment, each tensor padded to it. gguf-py's writer
is not used, so that the bytes do not depend on its version, and so that a header can be made without its data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

ALIGNMENT = 32
F32_ALWAYS = ("norm.weight", ".bias", "ssm_a", "ssm_d", "ssm_conv1d.weight", "ffn_gate_inp.weight")
# llama-quantize's choice where a row is not a multiple of a K-quant's 256 (src/llama-quant.cpp)
FALLBACK = {
    GGMLQuantizationType.Q2_K: GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q3_K: GGMLQuantizationType.IQ4_NL,
    GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_K: GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0,
}

Value = str | bool | int | float | np.generic | Sequence[str] | np.ndarray[tuple[int], np.dtype[np.int32]]


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor without its data; `size` in numpy order."""

    name: str
    size: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def n_bytes(self) -> int:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.size)) // per_block * block_bytes


def tensor_type(name: str, size: tuple[int, ...], quant: GGMLQuantizationType) -> GGMLQuantizationType:
    """llama-quantize's type of a tensor: F32 for vectors and exact tensors, fallbacks for odd rows."""
    if len(size) == 1 or name.endswith(F32_ALWAYS):
        return GGMLQuantizationType.F32
    if size[-1] % gguf.GGML_QUANT_SIZES[quant][0] == 0:
        return quant
    fallback = FALLBACK.get(quant, GGMLQuantizationType.F16)
    return fallback if size[-1] % gguf.GGML_QUANT_SIZES[fallback][0] == 0 else GGMLQuantizationType.F16


def header(metadata: Mapping[str, Value], infos: Iterable[TensorInfo]) -> bytes:
    """All bytes before the data, padded to the start of the data."""
    listed = list(infos)
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(listed), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for info in listed:
        dims = struct.pack(f"<I{len(info.size)}Q", len(info.size), *reversed(info.size))
        parts.append(_string(info.name) + dims + struct.pack("<IQ", info.type, offset))
        offset += padded(info.n_bytes)
    whole = b"".join(parts)
    return whole + bytes(padded(len(whole)) - len(whole))


def padded(n: int) -> int:
    """`n` rounded up to the alignment."""
    return -(-n // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


_SCALARS = {
    np.dtype(np.uint16): (GGUFValueType.UINT16, "<H"),
    np.dtype(np.uint32): (GGUFValueType.UINT32, "<I"),
    np.dtype(np.int32): (GGUFValueType.INT32, "<i"),
    np.dtype(np.float32): (GGUFValueType.FLOAT32, "<f"),
}


def _value(value: Value) -> bytes:
    """A value after its type: Python's int is uint32, float is float32; numpy scalars keep theirs."""
    if isinstance(value, bool):
        return struct.pack("<I?", GGUFValueType.BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", GGUFValueType.STRING) + _string(value)
    if isinstance(value, np.ndarray):
        head = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.INT32, len(value))
        return head + value.astype("<i4").tobytes()
    if isinstance(value, Sequence):
        head = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.STRING, len(value))
        return head + b"".join(_string(text) for text in value)
    scalar = np.uint32(value) if isinstance(value, int) else value
    scalar = np.float32(scalar) if isinstance(scalar, float) else scalar
    kind, form = _SCALARS[scalar.dtype]
    return struct.pack("<I", kind) + struct.pack(form, scalar.item())
