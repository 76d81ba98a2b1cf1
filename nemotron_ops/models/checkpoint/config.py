"""config.json as llama.cpp's converter reads it. Pure.

transformers 5 saves a Nemotron-H model with names of its own for the kinds of layers, and with the fields of experts
also where there are none. The converter takes such a dense model for one with experts (seen at llama.cpp b11434); it
knows the hub's pattern of letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LETTERS = {
    "linear_attention": "M", "mamba": "M", "mamba2": "M", "full_attention": "*", "attention": "*", "mlp": "-",
    "moe": "E",
}  # fmt: skip
OF_EXPERTS = ("moe_", "mtp_", "n_routed_", "n_shared_", "num_experts", "num_nextn_")
ROUTING = frozenset({"n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor"})  # n_groups is the Mamba's


def converter_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` in the form that the hub's models have; one that needs no change, or is not known, stays as it is."""
    kinds = config.get("layers_block_type")
    if config.get("model_type") != "nemotron_h" or config.get("hybrid_override_pattern"):
        return dict(config)
    if not isinstance(kinds, list) or not all(isinstance(k, str) and k in LETTERS for k in kinds):
        return dict(config)
    pattern = "".join(LETTERS[k] for k in kinds)
    kept = {k: v for k, v in config.items() if k != "layers_block_type"}
    if "E" not in pattern:
        kept = {k: v for k, v in kept.items() if not k.startswith(OF_EXPERTS) and k not in ROUTING}
    return kept | {"hybrid_override_pattern": pattern, "num_hidden_layers": len(pattern)}
