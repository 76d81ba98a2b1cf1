"""Bytes of a model, buffer by buffer, for given settings. Pure.

Buffers carry the names that llama-server logs: model, KV, RS (recurrent state), compute, output. The formula for
Nemotron was derived from llama.cpp v0.5.0 (`src/llama-kv-cache.cpp`, `src/llama-memory-recurrent.cpp`,
`src/llama-context.cpp`) and is compared with its log in the tests: KV, RS and output are exact, compute is an
upper bound of ggml's allocation.

    KV       streams × cells × Σ over attention layers (row(type_k, n_kv × head_k) + row(type_v, n_kv × head_v))
    RS       slots × (1 + drafted tokens) × Mamba layers × 4 × ((d_conv - 1) × conv_dim + d_state × d_inner)
    output   slots × 4 × n_vocab
    compute  ubatch × (4 × widest step [+ scores] + mask) + slots × 4 × d_state × d_inner

Context checkpoints (each the size of one sequence's RS) and the prompt cache grow later, in host memory, up to caps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nemotron_ops.errors import FitError
from nemotron_ops.memory.model_shape import HYBRID, ModelShape, model_shape
from nemotron_ops.models.gguf import Header, row_bytes

AUTO_SLOTS = 4  # llama-server's default without -np, with one unified cache (tools/server/server.cpp)
CELL_PADDING = 256
DEFAULT_DRAFT_TOKENS = 3  # --spec-draft-n-max (common/common.shape)
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """llama-server's flags that determine memory, with its own defaults resolved."""

    ctx_size: int
    parallel: int = AUTO_SLOTS
    kv_unified: bool = True
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    batch_size: int = 2048
    ubatch_size: int = 512
    flash_attn: bool = True
    draft_tokens: int = 0  # per MTP step; 0: no MTP
    ctx_checkpoints: int = 32
    cache_ram_mib: int = 8192
    lora_bytes: int = 0
    mmproj_bytes: int = 0

    @property
    def streams(self) -> int:
        return 1 if self.kv_unified else self.parallel

    @property
    def cells(self) -> int:
        """Cells of one stream."""
        return pad(self.ctx_size if self.kv_unified else self.ctx_size // self.parallel, CELL_PADDING)


def settings_from(server: Mapping[str, Any], *, lora_bytes: int = 0, mmproj_bytes: int = 0) -> Settings:
    """Settings from flags by field name (`ctx_size`, `parallel`, …); absent or None means llama-server's default."""
    given = {k: v for k, v in server.items() if v is not None}
    parallel = given.get("parallel")
    return Settings(
        ctx_size=int(given["ctx_size"]),
        parallel=int(parallel) if parallel else AUTO_SLOTS,
        kv_unified=bool(given.get("kv_unified", not parallel)),
        cache_type_k=str(given.get("cache_type_k", "f16")),
        cache_type_v=str(given.get("cache_type_v", "f16")),
        batch_size=int(given.get("batch_size", 2048)),
        ubatch_size=int(given.get("ubatch_size", 512)),
        flash_attn=given.get("flash_attn", "auto") != "off",
        draft_tokens=_draft_tokens(given),
        ctx_checkpoints=int(given.get("ctx_checkpoints", 32)),
        cache_ram_mib=int(given.get("cache_ram_mib", 8192)),
        lora_bytes=lora_bytes,
        mmproj_bytes=mmproj_bytes,
    )


def _draft_tokens(given: Mapping[str, Any]) -> int:
    """Tokens that MTP drafts at once: llama-server's default unless --spec-draft-n-max is among the extra flags."""
    if "draft-mtp" not in str(given.get("spec_type", "")):
        return 0
    words = [str(w) for w in given.get("extra_args", ())]
    after = [words[i + 1] for i, w in enumerate(words[:-1]) if w == "--spec-draft-n-max"]
    return int(after[-1]) if after and after[-1].isdigit() else DEFAULT_DRAFT_TOKENS


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes by buffer, over all devices; `fit` distributes them."""

    settings: Settings
    weights: int
    kv: int
    rs: int
    compute: int
    output: int
    mtp_kv: int
    mtp_compute: int
    lora: int
    mmproj: int
    checkpoints_max: int  # host memory that may fill later
    prompt_cache_max: int
    kv_per_token: int
    rs_per_sequence: int

    @property
    def context(self) -> int:
        """KV and recurrent state together, as llama-fit-params counts them."""
        return self.kv + self.rs + self.mtp_kv

    @property
    def start_bytes(self) -> int:
        """Bytes in use when the model is ready."""
        return self.weights + self.context + self.compute + self.mtp_compute + self.output + self.lora + self.mmproj

    @property
    def total_bytes(self) -> int:
        """The most bytes in use, with checkpoints and prompt cache full."""
        return self.start_bytes + self.checkpoints_max + self.prompt_cache_max


def estimate(header: Header, settings: Settings) -> Estimate:
    """The bytes of every buffer.

    Raises UnknownArchitectureError if the formula does not hold for the architecture, FitError for settings that
    llama-server would refuse.
    """
    return estimate_shape(model_shape(header), settings)


def estimate_shape(shape: ModelShape, s: Settings) -> Estimate:
    """`estimate` for a model whose shape is known."""
    mtp = s.draft_tokens > 0
    if mtp and not shape.n_nextn:
        raise FitError("cannot use draft-mtp with this model: it has no MTP layers", hint="leave out spec_type")
    kv_layers = [kv_row_bytes(shape, s, i) for i in range(len(shape.trunk))]
    mtp_rows = sum(kv_row_bytes(shape, s, len(shape.trunk) + i) for i in range(shape.n_nextn)) if mtp else 0
    rs = rs_bytes(shape, s)
    compute = compute_bytes(shape, s)
    return Estimate(
        settings=s,
        weights=weight_bytes(shape),
        kv=s.streams * s.cells * sum(kv_layers),
        rs=rs,
        compute=compute,
        output=4 * shape.n_vocab * s.parallel * (2 if mtp else 1),  # MTP drafts in a separate context
        mtp_kv=s.streams * s.cells * mtp_rows,
        mtp_compute=compute if mtp else 0,
        lora=s.lora_bytes,
        mmproj=s.mmproj_bytes,
        checkpoints_max=s.ctx_checkpoints * shape.rs_sequence_bytes * s.parallel,
        prompt_cache_max=max(s.cache_ram_mib, 0) * MIB,
        kv_per_token=sum(kv_layers),
        rs_per_sequence=shape.rs_sequence_bytes,
    )


def weight_bytes(shape: ModelShape) -> int:
    """All tensors of the file."""
    return shape.input_bytes + shape.output_bytes + sum(b.dense_bytes + b.expert_bytes for b in shape.blocks)


def kv_row_bytes(shape: ModelShape, s: Settings, block: int) -> int:
    """KV bytes of one block per token of context. Raises FitError for a cache type that does not fit its rows."""
    n_kv = shape.blocks[block].n_kv
    if not n_kv:
        return 0
    try:
        return row_bytes(s.cache_type_k, n_kv * shape.head_k) + row_bytes(s.cache_type_v, n_kv * shape.head_v)
    except (KeyError, ValueError) as exc:
        raise FitError(
            f"cannot use cache types {s.cache_type_k} and {s.cache_type_v} with this model: {exc}",
            hint="use f16, q8_0 or q4_0",
        ) from exc


def rs_bytes(shape: ModelShape, s: Settings) -> int:
    """Recurrent state of all slots; with MTP, each keeps a copy per drafted token for rollback."""
    return s.parallel * (1 + s.draft_tokens) * shape.rs_sequence_bytes


def compute_bytes(shape: ModelShape, s: Settings) -> int:
    """The scratch memory of one ubatch through the widest step of the graph.

    The mask is always in memory: f16 with flash attention (2 bytes per cell and token), f32 without. Without flash
    attention, the scores of all heads are in memory at once too.
    """
    tokens = min(s.ubatch_size, s.batch_size, s.cells * s.streams)
    attention = 4 * _attention_step(shape) + (0 if s.flash_attn else 4 * shape.n_head * s.cells)
    mask = (2 if s.flash_attn else 4) * s.cells
    per_slot = 4 * shape.d_state * shape.d_inner
    return tokens * (max(4 * _mixer_step(shape), attention) + mask) + s.parallel * per_slot


def _attention_step(shape: ModelShape) -> int:
    """Values per token that are live at once in an attention layer, without scores."""
    n_kv = max((b.n_kv for b in shape.blocks), default=0)
    return 2 * shape.n_embd + shape.n_head * (shape.head_k + shape.head_v) + n_kv * (shape.head_k + shape.head_v)


def _mixer_step(shape: ModelShape) -> int:
    """Values per token that are live at once in the widest Mamba or feed-forward layer."""
    if shape.arch not in HYBRID:  # gated: gate, up and their product
        experts = shape.n_used * (3 * shape.n_ff_exp + shape.n_embd) + 4 * shape.n_embd
        return experts if shape.n_used else 3 * shape.n_ff + 4 * shape.n_embd
    experts = shape.n_used * (shape.n_ff_exp + shape.expert_width) + 5 * shape.n_embd
    feed_forward = experts if shape.n_used else 2 * shape.n_ff + 3 * shape.n_embd
    d_in_proj = shape.d_inner + shape.conv_dim + shape.ssm_heads
    mamba = d_in_proj + 3 * shape.conv_dim + shape.d_inner + 2 * shape.n_embd
    return max(feed_forward, mamba)


def with_context(s: Settings, ctx_size: int) -> Settings:
    """`s` with another context."""
    return replace(s, ctx_size=ctx_size)


def pad(n: int, multiple: int) -> int:
    """`n` rounded up to a multiple."""
    return -(-n // multiple) * multiple
