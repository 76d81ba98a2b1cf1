"""Checkpoints in safetensors: the files that are taken, their tensors, and the config for the converter."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from nemotron_ops.errors import ModelError
from nemotron_ops.models.checkpoint.choice import check_index, chosen
from nemotron_ops.models.checkpoint.config import converter_config
from nemotron_ops.models.checkpoint.shapes import Stored, largest_weights, outtype_of, tensors_in

TINY = {"a.weight": ("BF16", [4, 8]), "norm.weight": ("F32", [8])}
BYTES = {"BF16": 2, "F32": 4}


def written(path: Path, tensors: dict[str, tuple[str, list[int]]], *, cut: int = 0) -> Path:
    head, at = {}, 0
    for name, (kind, shape) in tensors.items():
        size = BYTES[kind]
        for n in shape:
            size *= n
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(at - cut))
    return path


def test_weights_and_data_are_taken_and_no_code_and_no_pickle() -> None:
    names = [
        "modeling_nemotron_h.py", "config.json", "pytorch_model.bin", "model-00001-of-00001.safetensors",
        "tokenizer.json", "chat_template.jinja", "README.md", "images/a.png", "original/model.safetensors",
        "consolidated.safetensors", "training_args.pt",
    ]  # fmt: skip
    assert chosen(names, "x") == (
        "model-00001-of-00001.safetensors", "README.md", "chat_template.jinja", "config.json", "tokenizer.json"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["config.json", "pytorch_model.bin"], "is a pickle, which may run code"),
        (["config.json"], "has no .safetensors file"),
        (["model.safetensors"], "has no config.json"),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_the_reason(names: list[str], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        chosen(names, "owner/model")


def test_a_file_that_the_index_names_must_be_there() -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    check_index(index, ["model-1.safetensors", "model-2.safetensors"], "x")
    with pytest.raises(ModelError, match=r"model-2\.safetensors is missing"):
        check_index(index, ["model-1.safetensors"], "x")


def test_tensors_come_from_the_heads_and_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "model.safetensors", TINY)
    assert tensors_in([whole]) == (
        Stored(name="a.weight", kind="BF16", shape=(4, 8)), Stored(name="norm.weight", kind="F32", shape=(8,))
    )  # fmt: skip
    with pytest.raises(ModelError, match="its head promises"):
        tensors_in([written(tmp_path / "cut.safetensors", TINY, cut=1)])
    (tmp_path / "web.safetensors").write_text("<html>please log in</html>")
    with pytest.raises(ModelError, match="no safetensors file"):
        tensors_in([tmp_path / "web.safetensors"])


@pytest.mark.parametrize(
    ("kind", "outtype"), [("BF16", "bf16"), ("F16", "f16"), ("F32", "f32"), ("F8_E4M3", "bf16"), ("U8", "bf16")]
)
def test_the_unquantised_type_loses_nothing_of_most_weights(kind: str, outtype: str) -> None:
    tensors = [Stored(name="a", kind=kind, shape=(64, 64)), Stored(name="router", kind="F32", shape=(2, 2))]
    assert outtype_of(tensors) == outtype


def test_the_experts_of_a_layer_count_as_the_one_tensor_that_they_become() -> None:
    experts = [
        Stored(name=f"backbone.layers.1.mixer.experts.{i}.up_proj.weight", kind="BF16", shape=(8, 16)) for i in range(4)
    ]
    assert largest_weights([*experts, Stored(name="lm_head.weight", kind="BF16", shape=(10, 16))]) == 4 * 8 * 16


def test_a_dense_config_of_transformers_gets_the_hubs_pattern_and_loses_its_experts() -> None:
    saved = {
        "model_type": "nemotron_h", "layers_block_type": ["linear_attention", "mlp", "full_attention"],
        "num_experts_per_tok": 2, "moe_intermediate_size": 7, "n_group": 1, "n_groups": 2, "hidden_size": 64,
    }  # fmt: skip
    assert converter_config(saved) == {
        "model_type": "nemotron_h", "hybrid_override_pattern": "M-*", "num_hidden_layers": 3, "n_groups": 2,
        "hidden_size": 64,
    }  # fmt: skip


def test_a_config_with_experts_keeps_them() -> None:
    saved = {"model_type": "nemotron_h", "layers_block_type": ["mamba", "moe"], "num_experts_per_tok": 2, "n_group": 1}
    kept = converter_config(saved)
    assert (kept["hybrid_override_pattern"], kept["num_experts_per_tok"], kept["n_group"]) == ("ME", 2, 1)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "layers_block_type": ["attention"]},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M*", "num_experts_per_tok": 2},
        {"model_type": "nemotron_h", "layers_block_type": ["a kind of the future"]},
    ],
)
def test_other_configs_stay_as_they_are(config: dict[str, object]) -> None:
    assert converter_config(config) == config
