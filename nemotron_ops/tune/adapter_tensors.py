"""Tensors of a LoRA adapter as PEFT saves them -> those that llama.cpp reads. Pure.

PEFT has two matrices for each module, A (rank, in) and B (out, rank); llama.cpp adds scale · alpha / rank · B·A to the
weight of the same name. What llama.cpp has no form for, or would leave out without an error, is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotron_ops.errors import ModelError

Array = npt.NDArray[np.float32]

LEAF = {
    "in_proj": "ssm_in",
    "out_proj": "ssm_out",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "gate": "ffn_gate_inp",
    "shared_experts.up_proj": "ffn_up_shexp",
    "shared_experts.down_proj": "ffn_down_shexp",
}
WHOLE = {"lm_head": "output", "embeddings": "token_embd"}
HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
# llama.cpp loads adapters here and never applies them (plain ggml_mul_mat in models/nemotron-h.cpp, v0.5.0)
IGNORED = ("fc1_latent_proj", "fc2_latent_proj", "conv1d")
# Options of PEFT without a form in an adapter file.
REFUSED = {
    "use_dora": "DoRA scales each row by a learnt length",
    "lora_bias": "a bias has no place in the file",
    "modules_to_save": "whole modules were trained, not only adapters",
    "alpha_pattern": "the file has one alpha for all modules",
    "rank_pattern": "ranks by module were not tried",
    "trainable_token_indices": "new tokens are no adapter",
}
NAME = re.compile(r"base_model\.model\.(?:(?:model|backbone)\.)?(.+?)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
IN_LAYER = re.compile(r"layers\.(\d+)\.mixer\.(.+)")


def alpha_of(peft: Mapping[str, Any]) -> float:
    """The alpha for the file: llama.cpp divides by the rank, where rslora divides by its root.

    Raises ModelError for options that a file cannot express.
    """
    for option, why in REFUSED.items():
        if peft.get(option):
            raise ModelError(f"cannot write the adapter: llama.cpp has no form for {option}: {why}")
    return float(peft["lora_alpha"]) * (float(peft["r"]) ** 0.5 if peft.get("use_rslora") else 1.0)


def arch_of(config: Mapping[str, Any]) -> str:
    """The GGUF architecture of a checkpoint's config.json: with routed experts it is the MoE one."""
    pattern = config.get("hybrid_override_pattern")
    kinds = list(pattern or config.get("layers_block_type") or config.get("layer_types") or ())
    return "nemotron_h_moe" if {"E", "moe"} & set(kinds) else "nemotron_h"


def gguf_tensors(
    peft: Mapping[str, Any], config: Mapping[str, Any], tensors: Iterable[tuple[str, Array]]
) -> Iterator[tuple[str, Array]]:
    """(name, array) of each half of a pair. `peft` is adapter_config.json, `config` the base's config.json.

    Raises ModelError for a tensor that no adapter file can hold, or that llama.cpp would ignore.
    """
    for name, data in tensors:
        if name.endswith("base_layer.weight"):
            continue
        match = NAME.fullmatch(name)
        if not match:
            raise ModelError(f"cannot write the adapter: no adapter file can hold {name}")
        where, half = match.groups()
        target, data = _placed(where, half, data, peft, config)
        yield f"{target}.weight.lora_{half.lower()}", np.ascontiguousarray(data, np.float32)


def _placed(
    where: str, half: str, data: Array, peft: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, Array]:
    """The tensor's name without its ending, and its data as llama.cpp lays it out."""
    if where in WHOLE:
        return WHOLE[where], data.T if (half, where) == ("A", "embeddings") else data
    match = IN_LAYER.fullmatch(where)
    layer, leaf = match.groups() if match else ("", "")
    if leaf in IGNORED:
        raise ModelError(
            f"cannot write the adapter: llama.cpp ignores adapters on {leaf}",
            hint="train without it; what it has learnt is only kept by merging",
        )
    if leaf.startswith("experts"):
        return _experts(layer, leaf, half, data, peft, config)
    if leaf not in LEAF:
        raise ModelError(f"cannot write the adapter: llama.cpp has no tensor for {where}")
    if leaf in HEADS and half == "B":
        data = rotary_rows(data, int(config[HEADS[leaf]]))
    return f"blk.{layer}.{LEAF[leaf]}", data


def _experts(
    layer: str, leaf: str, half: str, data: Array, peft: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, Array]:
    """Adapters of all routed experts: PEFT keeps A by expert and B by rank, llama.cpp both by expert.

    PEFT nests a wrapper for each parameter: the one that was named last is the outermost.
    """
    experts, rank = int(config["n_routed_experts"]), int(peft["r"])
    which = peft["target_parameters"][::-1][leaf.count("base_layer")].split(".")[-1]
    if half == "A":
        data = data.reshape(experts, rank, -1)
    else:
        data = data.reshape(data.shape[0], rank, experts).transpose(2, 0, 1)
    return f"blk.{layer}.ffn_{which.split('_')[0]}_exps", data


def rotary_rows(rows: Array, heads: int) -> Array:
    """Rows of q or k as the converter orders them, for rotary positions, although Nemotron-H has none."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def check_learnt(tensors: Iterable[tuple[str, Array]]) -> None:
    """Raises ModelError if a value is not finite, or if the adapter changes nothing."""
    learnt = False
    for name, data in tensors:
        if not np.isfinite(data).all():
            raise ModelError(f"cannot use the adapter: {name} has values that are no numbers")
        learnt = learnt or (name.endswith(".lora_b") and bool(data.any()))
    if not learnt:
        raise ModelError("cannot use the adapter: it is all zero: nothing was learnt")
