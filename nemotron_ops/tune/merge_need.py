"""Sizes of the files that merging an adapter writes, from the header of its base. Pure."""

from __future__ import annotations

from math import prod

from nemotron_ops.models.gguf import Header

# types that `tune export --merge` writes -> bits of a weight, at most (llama-quantize --help, and its mixes of types)
QUANTS = {
    "F32": 32.0, "BF16": 16.0, "F16": 16.0, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.8, "Q5_K_S": 5.6, "Q5_0": 5.7,
    "Q4_K_M": 5.0, "Q4_K_S": 4.7, "Q4_0": 4.7, "IQ4_NL": 4.7, "IQ4_XS": 4.5, "MXFP4_MOE": 4.8,
}  # fmt: skip
MARGIN = 1.15  # rows that are no multiple of 256 take a larger type
VECTOR_BYTES = 4  # vectors stay F32
PLAIN = frozenset({"F32", "F16", "BF16"})


def merged_bytes(header: Header) -> int:
    """Bytes that llama-export-lora writes, at most: a tensor that the adapter changes becomes F16."""
    return header.data_offset + sum(max(t.n_bytes, 2 * prod(t.dims)) for t in header.tensors)


def quantised_bytes(header: Header, quant: str) -> int:
    """Bytes of the merged file as `quant`, at most."""
    matrices = sum(prod(t.dims) for t in header.tensors if len(t.dims) > 1)
    vectors = sum(prod(t.dims) for t in header.tensors if len(t.dims) == 1)
    return header.data_offset + int(matrices * QUANTS[quant] / 8 * MARGIN) + vectors * VECTOR_BYTES


def is_quantised(header: Header) -> bool:
    """Whether the base has lost precision already."""
    return any(len(t.dims) > 1 and t.type not in PLAIN for t in header.tensors)
