"""The key-value pairs of a Nemotron 3 GGUF. Pure.

The keys that llama.cpp requires were found by leaving each out: an RMS model still needs `layer_norm_epsilon`, and
without the expert counts llama.cpp aborts. The kind of a layer is not stored: Mamba has neither KV heads nor a
feed-forward length, attention has KV heads only.
"""

from __future__ import annotations

import numpy as np

from nemotron_ops.models.synthetic.container import Value
from nemotron_ops.models.synthetic.shape import Shape
from nemotron_ops.models.synthetic.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K": 15, "Q6_K": 18, "BF16": 32}  # llama.h: llama_ftype
QUANTIZATION_VERSION = 2  # ggml.h: GGML_QNT_VERSION


def metadata(shape: Shape, vocab: Vocabulary, *, name: str, quant: str, template: str) -> dict[str, Value]:
    """All pairs in file order."""
    general: dict[str, Value] = {
        "general.architecture": shape.arch,
        "general.type": "model",
        "general.name": name,
        "general.basename": "Nemotron-3-Tiny",
        "general.size_label": "tiny",
        "general.quantization_version": QUANTIZATION_VERSION,
        "general.file_type": FILE_TYPES[quant],
        "general.sampling.temp": 1.0,  # llama-server uses these as defaults
        "general.sampling.top_p": 1.0,
    }
    return general | _architecture(shape, len(vocab)) | _tokenizer(vocab, template)


def split_pairs(index: int, count: int, n_tensors: int) -> dict[str, Value]:
    """The pairs that mark a file as shard `index` (from 0) of `count`."""
    return {
        "split.no": np.uint16(index),
        "split.tensors.count": np.int32(n_tensors),
        "split.count": np.uint16(count),
    }


def _architecture(s: Shape, n_vocab: int) -> dict[str, Value]:
    n_ff = s.n_ff_exp if s.n_expert else s.n_ff
    pairs: dict[str, Value] = {
        "block_count": len(s.blocks),
        "context_length": s.n_ctx,
        "embedding_length": s.n_embd,
        "feed_forward_length": np.array([n_ff if c in "E-A" else 0 for c in s.blocks], np.int32),
        "attention.head_count": s.n_head,
        "attention.head_count_kv": np.array([s.n_head_kv if c in "*A" else 0 for c in s.blocks], np.int32),
        "attention.key_length": s.head_dim,
        "attention.value_length": s.head_dim,
        "attention.layer_norm_epsilon": s.eps,
        "attention.layer_norm_rms_epsilon": s.eps,
        "vocab_size": n_vocab,
        "rope.dimension_count": s.n_embd // s.n_head,
        "rope.scaling.finetuned": False,
        "ssm.conv_kernel": s.d_conv,
        "ssm.state_size": s.d_state,
        "ssm.group_count": s.n_group,
        "ssm.inner_size": s.d_inner,
        "ssm.time_step_rank": s.ssm_heads,
    }
    if s.n_expert:
        pairs |= {
            "expert_count": s.n_expert,
            "expert_used_count": s.n_used,
            "expert_shared_count": 1,
            "expert_feed_forward_length": s.n_ff_exp,
            "expert_shared_feed_forward_length": s.n_ff_shexp,
            "expert_weights_norm": True,
            "expert_weights_scale": s.expert_scale,
            "expert_group_count": 1,
            "expert_group_used_count": 1,
        }
    if s.latent:
        pairs["moe_latent_size"] = s.latent
    if s.mtp:
        pairs["nextn_predict_layers"] = 1
    return {f"{s.arch}.{key}": value for key, value in pairs.items()}


def _tokenizer(vocab: Vocabulary, template: str) -> dict[str, Value]:
    pairs: dict[str, Value] = {
        "model": "gpt2",
        "pre": "pixtral",  # as in real Nemotron 3 files
        "tokens": vocab.tokens,
        "token_type": np.array(vocab.types, np.int32),
        "merges": vocab.merges,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "unknown_token_id": UNK,
        "padding_token_id": PAD,
        "add_bos_token": False,  # without it the pixtral pre-tokenizer adds one
        "add_eos_token": False,
        "chat_template": template,
    }
    return {f"tokenizer.{key}" if key == "chat_template" else f"tokenizer.ggml.{key}": v for key, v in pairs.items()}
