"""Sizes of merged files, from headers made here."""

from __future__ import annotations

from nemotron_ops.models.gguf import Header, Tensor
from nemotron_ops.tune.merge_need import QUANTS, is_quantised, merged_bytes, quantised_bytes


def header(kind: str, n_bytes: int) -> Header:
    """A matrix of 256 x 100 of `kind`, and a vector."""
    matrix = Tensor(name="a.weight", dims=(256, 100), type=kind, offset=0, n_bytes=n_bytes)
    vector = Tensor(name="b.weight", dims=(256,), type="F32", offset=n_bytes, n_bytes=1024)
    return Header(version=3, values={}, tensors=(matrix, vector), data_offset=64)


def test_a_quantised_base_grows_to_16_bit_and_one_of_32_bit_stays() -> None:
    assert merged_bytes(header("Q4_0", 14_400)) == 64 + 51_200 + 1024
    assert merged_bytes(header("F32", 102_400)) == 64 + 102_400 + 1024
    assert is_quantised(header("Q4_0", 14_400))
    assert not is_quantised(header("BF16", 51_200))


def test_a_quantised_file_is_planned_with_a_margin_and_by_its_type() -> None:
    sizes = [quantised_bytes(header("F32", 102_400), quant) for quant in ("Q4_K_M", "Q8_0", "F16", "F32")]
    assert sizes == sorted(sizes)
    assert 14_400 < sizes[0] < 25_000
    assert set(QUANTS) >= {"Q4_K_M", "Q8_0", "IQ4_XS", "MXFP4_MOE"}
