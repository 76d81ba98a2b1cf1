"""Memory that training a LoRA needs, before it starts. Pure.

    need   = weights + adapter + checkpoints + max(mamba, feed-forward, logits) + context
    weights      2 bytes each; in 4 bit the embeddings, the output matrix and fused experts stay at 16 bit
    adapter      16 bytes each: weight, gradient and two moments, in float32
    checkpoints  one hidden state for each layer (gradient checkpointing)
    mamba        one block's activations on the torch path

Checked on a CPU against the peak of models with 21 to 88 million parameters: within 2 %. No GPU was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.tune.network import Network
from nemotron_ops.tune.targets import Chosen

CONTEXT_BYTES = 900_000_000  # of CUDA; none on a CPU
STATE_BYTES = 16
LOSS_TILE = 1024  # tokens whose logits are held at once; as in child/train.py
FOUR_BIT = 0.516  # bytes of a weight with its scales, doubly quantised (NF4)


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes by purpose."""

    weights: int
    adapter: int
    checkpoints: int
    activations: int
    context: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.checkpoints + self.activations + self.context


@dataclass(frozen=True, kw_only=True)
class Run:
    """What decides memory besides the model: tokens and bytes."""

    max_length: int
    batch: int = 1
    weight_bytes: int = 2  # 4 on a CPU
    four_bit: bool = False
    on_gpu: bool = True


def need(network: Network, chosen: Chosen, run: Run) -> Need:
    """The memory of one training step."""
    tokens = run.batch * run.max_length
    size = run.weight_bytes
    mamba = tokens * (
        size * (2 * network.in_proj + 3 * network.conv_dim)
        + 4 * (6 * network.d_inner + 6 * network.ssm_heads * network.d_state + 4 * network.ssm_heads * network.chunk)
    )
    width = max(network.n_ff, network.n_ff_exp + network.n_ff_shexp)
    activations = max(mamba, tokens * 4 * size * width, 16 * min(tokens, LOSS_TILE) * network.n_vocab)
    if chosen.trains_experts:  # PEFT adds the delta to one layer's experts before each product
        activations += size * 2 * network.d_model * network.n_ff_exp * network.n_expert
    return Need(
        weights=_weights(network, run),
        adapter=STATE_BYTES * chosen.n_trained,
        checkpoints=len(network.pattern) * tokens * network.d_model * size,
        activations=activations,
        context=CONTEXT_BYTES if run.on_gpu else 0,
    )


def _weights(network: Network, run: Run) -> int:
    if not run.four_bit:
        return run.weight_bytes * network.n_parameters
    linear = sum(m.n_weights for m in network.modules() if not m.leaf.startswith("experts"))
    return int(2 * (network.n_parameters - linear) + FOUR_BIT * linear)


def four_bit_saves(network: Network) -> float:
    """The share of the weights that 4-bit loading saves: fused experts stay at 16 bit."""
    run = Run(max_length=0)
    return 1 - _weights(network, Run(max_length=0, four_bit=True)) / _weights(network, run)
