"""Sizes of a Nemotron 3 network, and its tensors. Pure.

The pattern has one letter per layer, as in NVIDIA's `hybrid_override_pattern`: `M` Mamba-2, `*` attention,
`-` dense feed-forward, `E` mixture of experts. The tiny shapes meet the kernels' requirements: state 128 (CUDA's
ssm_scan knows 128 and 256), head sizes in multiples of 16, quantised rows in multiples of 32, and d_inner a
multiple of the state (engines of early 2026 assert it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemotron_ops.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Hyper-parameters under the names of the GGUF keys, shortened."""

    pattern: str
    n_embd: int = 256
    n_ctx: int = 1048576
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    ssm_heads: int = 8  # GGUF: ssm.time_step_rank
    ssm_head_dim: int = 16
    d_state: int = 128
    n_group: int = 2
    d_conv: int = 4
    n_ff: int = 128  # dense feed-forward
    n_expert: int = 0
    n_used: int = 2
    n_ff_exp: int = 64
    n_ff_shexp: int = 64
    expert_scale: float = 2.5
    latent: int = 0  # width of the experts (Super); 0: n_embd
    mtp: bool = False  # one more block that predicts the token after next
    eps: float = 1e-5

    @property
    def arch(self) -> str:
        return "nemotron_h_moe" if self.n_expert else "nemotron_h"

    @property
    def d_inner(self) -> int:
        return self.ssm_heads * self.ssm_head_dim

    @property
    def conv_dim(self) -> int:
        return self.d_inner + 2 * self.n_group * self.d_state

    @property
    def d_in_proj(self) -> int:
        return self.d_inner + self.conv_dim + self.ssm_heads

    @property
    def blocks(self) -> str:
        """The pattern with the MTP block, which is attention and experts in one, as letter `A`."""
        return self.pattern + ("A" if self.mtp else "")


MOE = Shape(pattern="MEMEM*E", n_expert=8)  # the first 7 of Nano 30B's 52 layers
DENSE = Shape(pattern="M-M*-")  # the kinds of layers of Nano 4B
SUPER = Shape(pattern="MEMEM*E", n_expert=8, latent=64, mtp=True)  # latent experts and MTP, as Super 120B
SHAPES = {"moe": MOE, "dense": DENSE, "super": SUPER}
TRAINABLE = Shape(pattern="M-M*-", n_embd=64, head_dim=32, ssm_heads=4, ssm_head_dim=32)  # random, then taught
TRAINABLE_MOE = Shape(pattern="ME*E", n_embd=64, head_dim=32, ssm_heads=4, ssm_head_dim=32, n_expert=4)


def shape_of(kind: str) -> Shape:
    """The shape called `kind`. Raises UsageError if there is none."""
    if kind not in SHAPES:
        raise UsageError(f"cannot make a tiny model of kind {kind!r}: there are {', '.join(SHAPES)}")
    return SHAPES[kind]


Tensor = tuple[str, tuple[int, ...]]


def tensors(shape: Shape, n_vocab: int) -> Iterator[Tensor]:
    """Names and sizes (numpy order, the reverse of ggml's) of all tensors, in file order."""
    n = shape.n_embd
    yield "token_embd.weight", (n_vocab, n)
    for i, letter in enumerate(shape.blocks):
        p = f"blk.{i}."
        if letter == "A":
            yield from _mtp(shape, p)
            continue
        yield p + "attn_norm.weight", (n,)
        match letter:
            case "M":
                yield from _mamba(shape, p)
            case "*":
                yield from _attention(shape, p)
            case "E":
                yield from _experts(shape, p)
            case _:
                yield p + "ffn_up.weight", (shape.n_ff, n)
                yield p + "ffn_down.weight", (n, shape.n_ff)
    yield "output_norm.weight", (n,)
    yield "output.weight", (n_vocab, n)


def _mamba(s: Shape, p: str) -> Iterator[Tensor]:
    yield p + "ssm_in.weight", (s.d_in_proj, s.n_embd)
    yield p + "ssm_conv1d.weight", (s.conv_dim, s.d_conv)
    yield p + "ssm_conv1d.bias", (s.conv_dim,)
    yield p + "ssm_dt.bias", (s.ssm_heads,)
    yield p + "ssm_a", (s.ssm_heads, 1)
    yield p + "ssm_d", (s.ssm_heads, 1)
    yield p + "ssm_norm.weight", (s.n_group, s.d_inner // s.n_group)
    yield p + "ssm_out.weight", (s.n_embd, s.d_inner)


def _attention(s: Shape, p: str) -> Iterator[Tensor]:
    yield p + "attn_q.weight", (s.n_head * s.head_dim, s.n_embd)
    yield p + "attn_k.weight", (s.n_head_kv * s.head_dim, s.n_embd)
    yield p + "attn_v.weight", (s.n_head_kv * s.head_dim, s.n_embd)
    yield p + "attn_output.weight", (s.n_embd, s.n_head * s.head_dim)


def _experts(s: Shape, p: str) -> Iterator[Tensor]:
    width = s.latent or s.n_embd
    yield p + "ffn_gate_inp.weight", (s.n_expert, s.n_embd)
    yield p + "exp_probs_b.bias", (s.n_expert,)
    if s.latent:
        yield p + "ffn_latent_down.weight", (width, s.n_embd)
        yield p + "ffn_latent_up.weight", (s.n_embd, width)
    yield p + "ffn_up_exps.weight", (s.n_expert, s.n_ff_exp, width)
    yield p + "ffn_down_exps.weight", (s.n_expert, width, s.n_ff_exp)
    yield p + "ffn_up_shexp.weight", (s.n_ff_shexp, s.n_embd)
    yield p + "ffn_down_shexp.weight", (s.n_embd, s.n_ff_shexp)


def _mtp(s: Shape, p: str) -> Iterator[Tensor]:
    for norm in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm", "attn_norm", "post_attention_norm"):
        yield f"{p}{norm}.weight", (s.n_embd,)
    yield p + "nextn.eh_proj.weight", (s.n_embd, 2 * s.n_embd)
    yield from _attention(s, p)
    yield from _experts(s, p)
