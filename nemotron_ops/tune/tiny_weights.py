"""Weights of a small Nemotron-H checkpoint -> the arrays of its GGUF, for the tiny trainable models. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nemotron_ops.models.synthetic.shape import Shape
from nemotron_ops.tune.adapter_tensors import HEADS, LEAF, Array, rotary_rows

IN_LAYER = re.compile(r"(?:model|backbone)\.layers\.(\d+)\.(.+)")
WHOLE = {
    "embeddings.weight": "token_embd.weight",
    "norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
SMALL = {
    "norm.weight": "attn_norm.weight",
    "mixer.conv1d.weight": "ssm_conv1d.weight",
    "mixer.conv1d.bias": "ssm_conv1d.bias",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm.weight": "ssm_norm.weight",
    "mixer.gate.e_score_correction_bias": "exp_probs_b.bias",
}
OF_EXPERT = re.compile(r"(.+\.mixer\.experts)\.(\d+)\.(up|down)_proj\.weight")


def config_of(shape: Shape, n_vocab: int) -> dict[str, Any]:
    """config.json for `shape`, which is dense or has experts without a latent space."""
    experts = {
        "n_routed_experts": shape.n_expert, "num_experts_per_tok": shape.n_used, "n_shared_experts": 1,
        "moe_intermediate_size": shape.n_ff_exp, "moe_shared_expert_intermediate_size": shape.n_ff_shexp,
        "routed_scaling_factor": shape.expert_scale, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
    }  # fmt: skip
    return (experts if shape.n_expert else {}) | {
        "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "vocab_size": n_vocab,
        "hybrid_override_pattern": shape.pattern, "num_hidden_layers": len(shape.pattern),
        "hidden_size": shape.n_embd, "num_attention_heads": shape.n_head, "num_key_value_heads": shape.n_head_kv,
        "head_dim": shape.head_dim, "intermediate_size": shape.n_ff, "ssm_state_size": shape.d_state,
        "mamba_num_heads": shape.ssm_heads, "mamba_head_dim": shape.ssm_head_dim, "n_groups": shape.n_group,
        "conv_kernel": shape.d_conv, "chunk_size": 32, "initializer_range": 0.08, "layer_norm_epsilon": shape.eps,
        "bos_token_id": 1, "eos_token_id": 11, "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip


def gguf_arrays(shape: Shape, config: Mapping[str, Any], tensors: Iterable[tuple[str, Array]]) -> dict[str, Array]:
    """Arrays by GGUF name, in the layout that llama.cpp reads."""
    found: dict[str, Array] = {}
    experts: dict[str, dict[int, Array]] = {}
    for name, data in tensors:
        if match := OF_EXPERT.fullmatch(name):
            experts.setdefault(f"blk.{_layer(name)}.ffn_{match[3]}_exps.weight", {})[int(match[2])] = data
        else:
            found |= [_one(shape, config, name, data)]
    return found | {name: np.stack([by[i] for i in sorted(by)]) for name, by in experts.items()}


def _layer(name: str) -> str:
    match = IN_LAYER.fullmatch(name)
    assert match
    return match[1]


def _one(shape: Shape, config: Mapping[str, Any], name: str, data: Array) -> tuple[str, Array]:
    match = IN_LAYER.fullmatch(name)
    if match is None:
        return WHOLE[name.removeprefix("model.").removeprefix("backbone.")], data
    layer, rest = match.groups()
    target = SMALL.get(rest)
    if target is None:
        leaf = rest.removeprefix("mixer.").removesuffix(".weight")
        data = rotary_rows(data, int(config[HEADS[leaf]])) if leaf in HEADS else data
        return f"blk.{layer}.{LEAF[leaf]}.weight", data
    match target:
        case "ssm_a":
            data = -np.exp(data).reshape(-1, 1)
        case "ssm_d":
            data = data.reshape(-1, 1)
        case "ssm_conv1d.weight":
            data = data.reshape(data.shape[0], -1)
        case "ssm_norm.weight":
            data = data.reshape(shape.n_group, -1)
        case _:
            pass
    return f"blk.{layer}.{target}", data
