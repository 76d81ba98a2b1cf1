"""PEFT's adapters as llama.cpp's: names, layouts, alpha, and what is refused by name. Writes small files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotron_ops.errors import ModelError
from nemotron_ops.models.gguf import Header, Tensor
from nemotron_ops.models.local import read_header
from nemotron_ops.tune.adapter_check import bases_of, check_base, check_kind, check_shapes
from nemotron_ops.tune.adapter_file import write_adapter
from nemotron_ops.tune.adapter_tensors import Array, alpha_of, arch_of, check_learnt, gguf_tensors, rotary_rows
from nemotron_ops.tune.safetensors import tensors_of

PEFT: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 4,
    "target_parameters": ["mixer.experts.up_proj", "mixer.experts.down_proj"],
}
CONFIG = {
    "hybrid_override_pattern": "MEM*E",
    "n_routed_experts": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
STEM = "base_model.model.backbone."


def made(name: str, *shape: int) -> tuple[str, Array]:
    return name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def one(name: str, *shape: int) -> tuple[str, Array]:
    return next(gguf_tensors(PEFT, CONFIG, [made(name, *shape)]))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("layers.0.mixer.in_proj", "blk.0.ssm_in"),
        ("layers.3.mixer.o_proj", "blk.3.attn_output"),
        ("layers.3.mixer.v_proj", "blk.3.attn_v"),
        ("layers.1.mixer.up_proj", "blk.1.ffn_up"),
        ("layers.1.mixer.shared_experts.down_proj", "blk.1.ffn_down_shexp"),
        ("layers.1.mixer.gate", "blk.1.ffn_gate_inp"),
    ],
)
@pytest.mark.parametrize("prefix", ["base_model.model.", STEM, "base_model.model.model."])
def test_modules_have_llama_cpps_names(prefix: str, theirs: str, ours: str) -> None:
    name, data = one(f"{prefix}{theirs}.lora_A.weight", 2, 4)
    assert (name, data.shape) == (f"{ours}.weight.lora_a", (2, 4))


def test_rows_of_q_and_k_are_ordered_as_for_rotary_positions() -> None:
    _, data = one(STEM + "layers.3.mixer.q_proj.lora_B.weight", 8, 2)
    assert data[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]
    assert rotary_rows(np.arange(4, dtype=np.float32)[:, None], 1)[:, 0].tolist() == [0, 2, 1, 3]
    _, a = one(STEM + "layers.3.mixer.q_proj.lora_A.weight", 2, 4)
    assert a.tolist() == np.arange(8).reshape(2, 4).tolist()


def test_experts_are_by_expert_in_both_halves() -> None:
    """The parameter that PEFT named last is the outermost wrapper; the inner one has `base_layer` in its name."""
    name, a = one(STEM + "layers.1.mixer.experts.lora_A.weight", 6, 4)
    assert (name, a.shape) == ("blk.1.ffn_down_exps.weight.lora_a", (3, 2, 4))
    name, b = one(STEM + "layers.1.mixer.experts.base_layer.lora_B.weight", 5, 6)
    assert (name, b.shape) == ("blk.1.ffn_up_exps.weight.lora_b", (3, 5, 2))
    assert b[2, 1, 0] == 1 * 6 + 0 * 3 + 2  # rank-major: column = rank · experts + expert


@pytest.mark.parametrize("leaf", ["fc1_latent_proj", "fc2_latent_proj", "conv1d"])
def test_latent_projections_are_refused_with_the_reason(leaf: str) -> None:
    with pytest.raises(ModelError, match=r"llama\.cpp ignores adapters on"):
        one(f"{STEM}layers.1.mixer.{leaf}.lora_A.weight", 2, 4)


@pytest.mark.parametrize("name", [STEM + "layers.0.mixer.in_proj.weight", STEM + "layers.0.norm.lora_A.weight"])
def test_what_no_adapter_file_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="cannot write the adapter"):
        one(name, 2, 4)


@pytest.mark.parametrize("option", ["use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "lora_bias"])
def test_options_without_a_form_are_refused(option: str) -> None:
    with pytest.raises(ModelError, match=f"no form for {option}"):
        alpha_of({**PEFT, option: {"x": 1}})


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    assert alpha_of(PEFT) == 4
    assert alpha_of({**PEFT, "r": 16, "use_rslora": True}) == 16


def test_the_architecture_follows_the_layers_and_no_default() -> None:
    """transformers fills a dense config with defaults of experts; only the pattern counts."""
    assert arch_of(CONFIG) == "nemotron_h_moe"
    assert arch_of({"hybrid_override_pattern": "M-M*-", "n_routed_experts": 8}) == "nemotron_h"
    assert arch_of({"layers_block_type": ["mamba", "moe"]}) == "nemotron_h_moe"
    assert arch_of({"layers_block_type": ["mamba", "mlp"]}) == "nemotron_h"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_adapter_that_is_not_finite_or_all_zero_is_refused(value: float) -> None:
    with pytest.raises(ModelError, match=r"no numbers|all zero"):
        check_learnt([("x.lora_a", np.ones((2, 2), np.float32)), ("x.lora_b", np.full((2, 2), value, np.float32))])


def safetensors(path: Path, tensors: dict[str, Array]) -> None:
    head, body = {}, b""
    for name, data in tensors.items():
        raw = (data.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        head[name] = {"dtype": "BF16", "shape": list(data.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_the_file_is_read_back_with_its_base(tmp_path: Path) -> None:
    stem = STEM + "layers.0.mixer.in_proj.lora_"
    safetensors(
        tmp_path / "adapter_model.safetensors", dict([made(stem + "A.weight", 2, 4), made(stem + "B.weight", 6, 2)])
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT))
    assert write_adapter(tmp_path, CONFIG, tmp_path / "out.gguf", base_sha256="ab" * 32) == 1
    header = read_header(tmp_path / "out.gguf")
    check_kind(header, "out.gguf")
    assert (header.arch, bases_of(header)) == ("nemotron_h_moe", ("ab" * 32,))
    assert {t.name: t.dims for t in header.tensors} == {
        "blk.0.ssm_in.weight.lora_a": (4, 2), "blk.0.ssm_in.weight.lora_b": (2, 6),
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"12345678", struct.pack("<Q", 5) + b"{}}}}", struct.pack("<Q", 1 << 50)])
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="safetensors file"):
        list(tensors_of(tmp_path / "x.safetensors"))


def header(arch: str, **tensors: tuple[int, ...]) -> Header:
    made = tuple(Tensor(name=n, dims=d, type="F32", offset=0, n_bytes=0) for n, d in tensors.items())
    return Header(version=3, values={"general.architecture": arch}, tensors=made, data_offset=0)


def test_shapes_and_pairs_must_fit_the_base() -> None:
    base = header("nemotron_h", w=(4, 6))
    check_shapes(header("nemotron_h", **{"w.lora_a": (4, 2), "w.lora_b": (2, 6)}), base, "x")
    for wrong in (
        {"w.lora_a": (5, 2), "w.lora_b": (2, 6)},
        {"w.lora_a": (4, 2)},
        {"v.lora_a": (4, 2), "v.lora_b": (2, 6)},
        {"w.lora_a": (4, 3), "w.lora_b": (2, 6)},
        {"w": (4, 6)},
    ):
        with pytest.raises(ModelError, match="cannot use adapter x"):
            check_shapes(header("nemotron_h", **wrong), base, "x")
    with pytest.raises(ModelError, match="it is for nemotron_h_moe, the base is nemotron_h"):
        check_shapes(header("nemotron_h_moe"), base, "x")


def test_an_adapter_is_bound_to_the_hash_of_its_base() -> None:
    check_base("x", ("a" * 64, "b" * 64), "b" * 64)
    with pytest.raises(ModelError, match="another base"):
        check_base("x", ("a" * 64,), "b" * 64)
    with pytest.raises(ModelError, match="nothing says which base"):
        check_base("x", (), "b" * 64)
