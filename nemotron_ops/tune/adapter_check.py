"""Whether a GGUF adapter belongs to a base: kind, architecture, shapes, and the base's hash. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nemotron_ops.errors import ModelError
from nemotron_ops.models.gguf import Header, Tensor

BASE_KEY = "nemotron_ops.base_sha256"  # in an adapter file: hashes of its bases, with commas between them
# Loaded by llama.cpp, and never applied (models/nemotron-h.cpp, v0.5.0).
IGNORED = ("ffn_latent_down", "ffn_latent_up", "ssm_conv1d")
A, B = ".lora_a", ".lora_b"


def bases_of(adapter: Header) -> tuple[str, ...]:
    """The hashes of the bases that the adapter's file names; empty where it names none."""
    value = adapter.values.get(BASE_KEY, "")
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else ()


def check_kind(adapter: Header, name: str) -> None:
    """Raises ModelError unless the file is a LoRA adapter that llama.cpp applies."""
    if (adapter.values.get("general.type"), adapter.values.get("adapter.type")) != ("adapter", "lora"):
        raise ModelError(f"cannot use {name}: it is a model, not a LoRA adapter")
    ignored = next((t.name for t in adapter.tensors if any(i in t.name for i in IGNORED)), "")
    if ignored:
        raise ModelError(f"cannot use {name}: llama.cpp ignores adapters on {ignored.removesuffix(A).removesuffix(B)}")


def check_base(name: str, bound: Sequence[str], base_sha256: str) -> None:
    """Raises ModelError unless the adapter is bound to the base with `base_sha256`."""
    if not bound:
        raise ModelError(
            f"cannot use adapter {name}: nothing says which base it was made for",
            hint=f'if it was made for this one: base_sha256 = ["{base_sha256}"] under [[adapters]] in the recipe',
        )
    if base_sha256 not in bound:
        raise ModelError(
            f"cannot use adapter {name}: it was made for another base (sha256 {bound[0][:12]}…, not "
            f"{base_sha256[:12]}…)",
            hint="on another base it would load and answer nonsense; serve the base that it was made for",
        )


def check_shapes(adapter: Header, base: Header, name: str) -> None:
    """Raises ModelError unless each pair of the adapter fits a weight of the base."""
    if adapter.arch != base.arch:
        raise ModelError(f"cannot use adapter {name}: it is for {adapter.arch}, the base is {base.arch}")
    weights = {t.name: t for t in base.tensors}
    halves = {t.name: t for t in adapter.tensors}
    for half in halves:
        stem = half.removesuffix(A).removesuffix(B)
        a, b, weight = halves.get(stem + A), halves.get(stem + B), weights.get(stem)
        if a is None or b is None or half == stem:
            raise ModelError(f"cannot use adapter {name}: {half} is no half of a pair")
        if weight is None or not _fits(a, b, weight):
            raise ModelError(f"cannot use adapter {name}: {stem} has another shape in the base, or is not in it")


def _fits(a: Tensor, b: Tensor, weight: Tensor) -> bool:
    """(in, rank, …) and (rank, out, …) for a weight of (in, out, …). Embeddings have A transposed."""
    if weight.name.startswith("token_embd"):
        return a.dims[:1] == b.dims[:1] or a.dims[1:2] == b.dims[:1]
    return (a.dims[0], b.dims[1]) == weight.dims[:2] and a.dims[1] == b.dims[0] and a.dims[2:] == weight.dims[2:]
