"""Models of true shape as sparse GGUF files: real headers, and a hole instead of the weights.

llama.cpp reads such a file, plans all its buffers and logs their sizes without reading a weight; on disk it takes a few
MB. Sources of the Nemotron shapes: NVIDIA's published configurations; the parameter counts that
follow from them equal the published ones (3.97 B, 31.6 B, 120.7 B).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from nemotron_ops.models import gguf
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.synthetic.container import TensorInfo, Value, header, padded, tensor_type
from nemotron_ops.models.synthetic.metadata import metadata
from nemotron_ops.models.synthetic.scripts import script_vocabulary
from nemotron_ops.models.synthetic.shape import Shape, tensors
from nemotron_ops.models.synthetic.write import write_sparse

NANO_4B = Shape(
    pattern="M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-",
    n_embd=3136, n_head=40, n_head_kv=8, head_dim=128, ssm_heads=96, ssm_head_dim=80, n_group=8, n_ff=12544,
)  # fmt: skip
NANO_30B = Shape(
    pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    n_embd=2688, n_head=32, n_head_kv=2, head_dim=128, ssm_heads=64, ssm_head_dim=64, n_group=8,
    n_expert=128, n_used=6, n_ff_exp=1856, n_ff_shexp=3712,
)  # fmt: skip
SUPER_120B = Shape(
    pattern="MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
    n_embd=4096, n_head=32, n_head_kv=2, head_dim=128, ssm_heads=128, ssm_head_dim=64, n_group=8,
    n_expert=512, n_used=22, n_ff_exp=2688, n_ff_shexp=5376, expert_scale=5.0, latent=1024,
)  # fmt: skip
TRUE_SHAPES = {"4b": NANO_4B, "30b": NANO_30B, "120b": SUPER_120B, "120b-mtp": replace(SUPER_120B, mtp=True)}
N_VOCAB = 131072
GRANITE_LIKE = ("granite", "granitemoe", "minicpm")


def sparse(name: str, directory: Path, quant: str = "Q4_K", shards: int = 1) -> Path:
    """The (first) file of a true-size model, written to `directory`."""
    path = directory / f"{name}-{quant}.gguf"
    return write_sparse(TRUE_SHAPES[name], path, quant=quant, shards=shards)[0]


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """An ordinary transformer; experts in every layer if there are any."""

    arch: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_expert: int = 0
    n_used: int = 0
    n_ff_exp: int = 0
    n_ff_shexp: int = 0
    bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    n_vocab: int = 32000


TRANSFORMERS = {
    "llama-8b": Transformer(
        arch="llama", n_layer=32, n_embd=4096, n_head=32, n_head_kv=8, head_dim=128, n_ff=14336, n_vocab=128256
    ),
    "llama-moe-8x7b": Transformer(
        arch="llama", n_layer=32, n_embd=4096, n_head=32, n_head_kv=8, head_dim=128, n_ff=14336,
        n_expert=8, n_used=2, n_ff_exp=14336,
    ),
    "qwen2-7b": Transformer(
        arch="qwen2", n_layer=28, n_embd=3584, n_head=28, n_head_kv=4, head_dim=128, n_ff=18944, bias=True,
        n_vocab=152064,
    ),
    "qwen3-4b": Transformer(
        arch="qwen3", n_layer=36, n_embd=2560, n_head=32, n_head_kv=8, head_dim=128, n_ff=9728, qk_norm=True,
        tied=True, n_vocab=151936,
    ),
    "qwen3-30b-a3b": Transformer(
        arch="qwen3moe", n_layer=48, n_embd=2048, n_head=32, n_head_kv=4, head_dim=128, n_ff=6144, qk_norm=True,
        n_expert=128, n_used=8, n_ff_exp=768, n_vocab=151936,
    ),
    "qwen1.5-moe-a2.7b": Transformer(
        arch="qwen2moe", n_layer=24, n_embd=2048, n_head=16, n_head_kv=16, head_dim=128, n_ff=5632, bias=True,
        n_expert=60, n_used=4, n_ff_exp=1408, n_ff_shexp=5632, n_vocab=151936,
    ),
    "granite-moe": Transformer(
        arch="granitemoe", n_layer=32, n_embd=1536, n_head=24, n_head_kv=8, head_dim=64, n_ff=512,
        n_expert=40, n_used=8, n_ff_exp=512, n_vocab=49155, tied=True,
    ),
    **{
        arch: Transformer(arch=arch, n_layer=8, n_embd=4096, n_head=32, n_head_kv=8, head_dim=128, n_ff=14336)
        for arch in ("granite", "smollm3", "internlm2", "mistral3", "minicpm", "ernie4_5")
    },
}  # fmt: skip


def sparse_transformer(name: str, directory: Path, quant: str = "Q8_0") -> Path:
    """A true-size ordinary transformer, written to `directory`."""
    shape = TRANSFORMERS[name]
    kind = GGMLQuantizationType[quant]
    infos = _infos(_tensors(shape), kind)
    path = directory / f"{name}-{quant}.gguf"
    head = header(metadata_of(shape), infos)
    with path.open("wb") as f:
        f.write(head)
        f.truncate(len(head) + sum(padded(i.n_bytes) for i in infos))
    return path


def true_header(name: str, quant: str) -> Header:
    """The header alone of a true-size model, without a file."""
    kind = GGMLQuantizationType[quant]
    if name in TRANSFORMERS:
        pairs, found = metadata_of(TRANSFORMERS[name]), _infos(_tensors(TRANSFORMERS[name]), kind)
    else:
        shape, vocab = TRUE_SHAPES[name], script_vocabulary()
        pairs = metadata(shape, vocab, name=name, quant=quant, template="")
        pairs[f"{shape.arch}.vocab_size"] = N_VOCAB
        del pairs["tokenizer.ggml.tokens"]
        found = _infos(tensors(shape, N_VOCAB), kind)
    data = header(pairs, found)
    return gguf.parse(lambda offset, n: data[offset : offset + n], size=len(data))


def _infos(named: Iterable[tuple[str, tuple[int, ...]]], kind: GGMLQuantizationType) -> list[TensorInfo]:
    return [TensorInfo(name=n, size=size, type=tensor_type(n, size, kind)) for n, size in named]


def _tensors(s: Transformer) -> list[tuple[str, tuple[int, ...]]]:
    q, kv = s.n_head * s.head_dim, s.n_head_kv * s.head_dim
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (s.n_vocab, s.n_embd))]
    for i in range(s.n_layer):
        p = f"blk.{i}."
        found += [(p + "attn_norm.weight", (s.n_embd,)), (p + "ffn_norm.weight", (s.n_embd,))]
        found += [(p + "attn_q.weight", (q, s.n_embd)), (p + "attn_k.weight", (kv, s.n_embd))]
        found += [(p + "attn_v.weight", (kv, s.n_embd)), (p + "attn_output.weight", (s.n_embd, q))]
        if s.bias:
            found += [(p + "attn_q.bias", (q,)), (p + "attn_k.bias", (kv,)), (p + "attn_v.bias", (kv,))]
        if s.qk_norm:
            found += [(p + "attn_q_norm.weight", (s.head_dim,)), (p + "attn_k_norm.weight", (s.head_dim,))]
        if s.n_expert:
            found.append((p + "ffn_gate_inp.weight", (s.n_expert, s.n_embd)))
            for n in ("gate", "up"):
                found.append((p + f"ffn_{n}_exps.weight", (s.n_expert, s.n_ff_exp, s.n_embd)))
            found.append((p + "ffn_down_exps.weight", (s.n_expert, s.n_embd, s.n_ff_exp)))
            if s.n_ff_shexp:
                found.append((p + "ffn_gate_inp_shexp.weight", (s.n_embd,)))
                found += [(p + f"ffn_{n}_shexp.weight", (s.n_ff_shexp, s.n_embd)) for n in ("gate", "up")]
                found.append((p + "ffn_down_shexp.weight", (s.n_embd, s.n_ff_shexp)))
        else:
            found += [(p + "ffn_gate.weight", (s.n_ff, s.n_embd)), (p + "ffn_up.weight", (s.n_ff, s.n_embd))]
            found.append((p + "ffn_down.weight", (s.n_embd, s.n_ff)))
    found.append(("output_norm.weight", (s.n_embd,)))
    return found if s.tied else [*found, ("output.weight", (s.n_vocab, s.n_embd))]


def metadata_of(s: Transformer) -> dict[str, Value]:
    pairs: dict[str, Value] = {
        "block_count": s.n_layer,
        "context_length": 131072,
        "embedding_length": s.n_embd,
        "feed_forward_length": s.n_ff,
        "attention.head_count": s.n_head,
        "attention.head_count_kv": s.n_head_kv,
        "attention.key_length": s.head_dim,
        "attention.value_length": s.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": s.head_dim,
        "rope.freq_base": 1e6,
        "vocab_size": s.n_vocab,
    }
    if s.n_expert:
        pairs |= {"expert_count": s.n_expert, "expert_used_count": s.n_used, "expert_feed_forward_length": s.n_ff_exp}
    if s.n_ff_shexp:
        pairs["expert_shared_feed_forward_length"] = s.n_ff_shexp
    if s.arch in GRANITE_LIKE:
        scales = ("attention.scale", "logit_scale", "embedding_scale", "residual_scale")
        pairs |= dict.fromkeys(scales, 0.5)
    tokens = tuple(f"<{i}>" for i in range(s.n_vocab))
    return {
        "general.architecture": s.arch,
        "general.file_type": 7,
        **{f"{s.arch}.{k}": v for k, v in pairs.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.ones(s.n_vocab, np.int32),
        "tokenizer.ggml.merges": ("< 0",),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
