"""Modules and memory of a LoRA, against the published sizes of Nemotron 3. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.tune.need import Run, four_bit_saves, need
from nemotron_ops.tune.network import Network, network_of
from nemotron_ops.tune.targets import DEFAULT, NOT, choose

GIB = 1 << 30
COMMON: dict[str, Any] = {
    "vocab_size": 131072, "head_dim": 128, "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4,
}  # fmt: skip
CONFIG_4B = COMMON | {
    "hybrid_override_pattern": "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-", "hidden_size": 3136, "chunk_size": 256,
    "num_attention_heads": 40, "num_key_value_heads": 8, "mamba_num_heads": 96, "mamba_head_dim": 80,
    "intermediate_size": 12544, "n_routed_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip
CONFIG_30B = COMMON | {
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", "hidden_size": 2688,
    "num_attention_heads": 32, "num_key_value_heads": 2, "mamba_num_heads": 64, "mamba_head_dim": 64,
    "chunk_size": 128, "n_routed_experts": 128, "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
}  # fmt: skip
NANO_4B, NANO_30B = network_of(CONFIG_4B), network_of(CONFIG_30B)


def gib(network: Network, max_length: int, **more: Any) -> float:
    chosen = choose(network, rank=16, experts=more.pop("experts", False))
    return need(network, chosen, Run(max_length=max_length, **more)).total / GIB


def test_parameters_are_the_published_ones_and_experts_by_default_of_a_dense_model_are_none() -> None:
    assert (round(NANO_4B.n_parameters / 1e9, 3), round(NANO_30B.n_parameters / 1e9, 3)) == (3.974, 31.578)
    assert NANO_4B.n_expert == 0


def test_the_guide_says_that_4b_fits_a_free_gpu_of_16_gb() -> None:
    assert gib(NANO_4B, 2048) == pytest.approx(11.0, abs=0.1)
    assert gib(NANO_4B, 4096) < 16e9 / GIB < gib(NANO_4B, 8192)


def test_the_guide_says_that_30b_needs_about_60_gb() -> None:
    assert gib(NANO_30B, 2048) == pytest.approx(62.4, abs=0.1)
    assert gib(NANO_30B, 8192) < 80e9 / GIB
    assert gib(NANO_30B, 2048, experts=True) == pytest.approx(68.7 + 2.4, abs=0.5)


def test_four_bit_leaves_fused_experts_in_16_bit() -> None:
    assert four_bit_saves(NANO_30B) < 0.04
    assert four_bit_saves(NANO_4B) > 0.5


def test_the_default_covers_every_kind_of_layer_and_never_the_router() -> None:
    for network, millions in [(NANO_4B, 17.1), (NANO_30B, 11.4)]:
        chosen = choose(network, rank=16)
        assert round(chosen.n_trained / 1e6, 1) == millions
        assert chosen.uncovered == ()
        assert "gate" not in {m.leaf for m in chosen.modules}
    assert round(choose(NANO_30B, rank=16, experts=True).n_trained / 1e6) == 439


def test_attention_alone_leaves_most_layers_without_an_adapter() -> None:
    chosen = choose(NANO_30B, rank=16, targets=("q_proj", "v_proj"))
    assert (chosen.shares["*"], chosen.uncovered) == (1.0, ("M", "E"))


@pytest.mark.parametrize("target", sorted(NOT))
def test_what_would_learn_nothing_or_be_ignored_is_refused_with_its_reason(target: str) -> None:
    with pytest.raises(UsageError, match=f"cannot train {target}"):
        choose(NANO_30B, rank=16, targets=(*DEFAULT, target))


def test_a_target_that_matches_nothing_is_an_error() -> None:
    for wrong in (("gate_proj",), ("q_proj", "qkv")):
        with pytest.raises(UsageError, match="no layer of this model"):
            choose(NANO_4B, rank=16, targets=wrong)
    with pytest.raises(UsageError, match="no layer of this model"):
        choose(NANO_4B, rank=16, experts=True)


@pytest.mark.parametrize("broken", [{"hybrid_override_pattern": "MX"}, {"hybrid_override_pattern": ""}])
def test_other_networks_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="not those of Nemotron-H"):
        network_of(CONFIG_4B | broken)
    with pytest.raises(ModelError, match="has no hidden_size"):
        network_of({k: v for k, v in CONFIG_4B.items() if k != "hidden_size"})
