"""The model parameters that determine memory use, from a GGUF header. Pure.

Nemotron 3 files do not store the kind of a layer. It follows from two arrays: Mamba has neither KV heads nor a
feed-forward length, attention has KV heads only, feed-forward has a length only. An MTP block has both; these blocks
come last and are counted in `block_count`. An ordinary transformer has both in every block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nemotron_ops.errors import FitError
from nemotron_ops.models.gguf import Header

HYBRID = frozenset({"nemotron_h", "nemotron_h_moe"})
PLAIN = frozenset({
    "ernie4_5", "granite", "granitemoe", "internlm2", "llama", "minicpm", "mistral3", "qwen2", "qwen2moe", "qwen3",
    "qwen3moe", "smollm3",
})  # fmt: skip
BLOCK = re.compile(r"blk\.(\d+)\.")
EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps\.")  # what --n-cpu-moe moves (common/common.shape)


class UnknownArchitectureError(FitError):
    """The memory formula does not hold for this architecture."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block: its bytes of weights, and whether it keeps KV cache or recurrent state."""

    dense_bytes: int  # all weights except those of experts
    expert_bytes: int
    n_kv: int = 0  # KV heads; 0: no attention
    recurrent: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The parameters of a model that determine its memory. `blocks` has the MTP blocks last."""

    arch: str
    blocks: tuple[Block, ...]
    n_nextn: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    n_head: int
    head_k: int
    head_v: int
    n_ff: int
    n_used: int
    n_ff_exp: int
    expert_width: int
    d_conv: int
    d_inner: int
    d_state: int
    n_group: int
    ssm_heads: int
    input_bytes: int  # token embedding: always in host memory
    output_bytes: int
    tied: bool  # the output matrix is the token embedding

    @property
    def trunk(self) -> tuple[Block, ...]:
        return self.blocks[: len(self.blocks) - self.n_nextn]

    @property
    def nextn(self) -> tuple[Block, ...]:
        return self.blocks[len(self.blocks) - self.n_nextn :]

    @property
    def conv_dim(self) -> int:
        return self.d_inner + 2 * self.n_group * self.d_state

    @property
    def rs_layer_bytes(self) -> int:
        """Recurrent state of one Mamba layer for one sequence: convolution window and SSM state, always float32."""
        return 4 * ((self.d_conv - 1) * self.conv_dim + self.d_state * self.d_inner)

    @property
    def rs_sequence_bytes(self) -> int:
        """Recurrent state of one sequence; also the size of one context checkpoint."""
        return self.rs_layer_bytes * sum(b.recurrent for b in self.trunk)

    @property
    def expert_blocks(self) -> int:
        return sum(b.expert_bytes > 0 for b in self.blocks)


def model_shape(header: Header) -> ModelShape:
    """The shape of the model with `header`.

    Raises UnknownArchitectureError if the formula does not hold for the model, ModelError for an invalid header.
    """
    arch = header.arch
    _check_known(header)
    hybrid = arch in HYBRID
    heads = header.by_layer("attention.head_count")
    kv = header.by_layer("attention.head_count_kv", max(heads))
    ff = header.by_layer("feed_forward_length", 0)
    n_head, n_embd = max(heads), header.number("embedding_length")
    n_nextn = header.number("nextn_predict_layers", 0)
    weights = _weights(header)
    blocks = tuple(
        Block(
            dense_bytes=weights.dense.get(i, 0),
            expert_bytes=weights.experts.get(i, 0),
            n_kv=kv[i],
            recurrent=hybrid and kv[i] == 0 and ff[i] == 0,
        )
        for i in range(len(kv))
    )
    head_dim = n_embd // max(n_head, 1)
    return ModelShape(
        arch=arch,
        blocks=blocks,
        n_nextn=min(n_nextn, len(blocks)),
        n_embd=n_embd,
        n_vocab=header.n_vocab,
        n_ctx_train=header.number("context_length"),
        n_head=n_head,
        head_k=header.number("attention.key_length", head_dim),
        head_v=header.number("attention.value_length", head_dim),
        n_ff=max(ff),
        n_used=header.number("expert_used_count", 0),
        n_ff_exp=header.number("expert_feed_forward_length", 0),
        expert_width=header.number("moe_latent_size", 0) or n_embd,
        d_conv=header.number("ssm.conv_kernel") if hybrid else 1,
        d_inner=header.number("ssm.inner_size") if hybrid else 0,
        d_state=header.number("ssm.state_size") if hybrid else 0,
        n_group=header.number("ssm.group_count") if hybrid else 0,
        ssm_heads=header.number("ssm.time_step_rank") if hybrid else 0,
        input_bytes=weights.input_bytes,
        output_bytes=weights.output_bytes,
        tied=not any(t.name == "output.weight" for t in header.tensors),
    )


def _check_known(header: Header) -> None:
    arch = header.arch or "none named"
    odd = [k for k in ("attention.sliding_window", "attention.kv_lora_rank") if header.number(k, 0)]
    if arch not in HYBRID | PLAIN or odd:
        why = f" with {odd[0].partition('.')[2]}" if odd else ""
        raise UnknownArchitectureError(
            f"cannot compute the memory of this model: architecture {arch}{why} is not known",
            hint=f"known: {', '.join(sorted(HYBRID | PLAIN))}",
        )


@dataclass(frozen=True, kw_only=True)
class _Weights:
    dense: dict[int, int]
    experts: dict[int, int]
    input_bytes: int
    output_bytes: int


def _weights(header: Header) -> _Weights:
    """Bytes of tensors by llama.cpp's placement: per block, its experts, input layer, output layer."""
    dense: dict[int, int] = {}
    experts: dict[int, int] = {}
    rest = {"input": 0, "output": 0}
    for tensor in header.tensors:
        match = BLOCK.match(tensor.name)
        if match is None:
            rest["input" if tensor.name.startswith("token_embd") else "output"] += tensor.n_bytes
            continue
        into = experts if EXPERTS.search(tensor.name) else dense
        index = int(match[1])
        into[index] = into.get(index, 0) + tensor.n_bytes
    return _Weights(dense=dense, experts=experts, input_bytes=rest["input"], output_bytes=rest["output"])
