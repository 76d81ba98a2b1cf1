"""LoRA adapters for the tiny model that make it repeat one word: written by the project's own writer. Disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemotron_ops.files import sha256_of
from nemotron_ops.models.synthetic.residual import residual
from nemotron_ops.models.synthetic.scripts import script_vocabulary
from nemotron_ops.models.synthetic.shape import shape_of
from nemotron_ops.tune.adapter_file import write_gguf

LOUD = 3000.0  # above every level of the scripted output matrix


def word_adapter(path: Path, base: Path, letter: str, *, kind: str = "moe", base_sha256: str | None = None) -> Path:
    """An adapter under which the model says `letter` and nothing else; bound to `base` unless a hash is given."""
    vocab = script_vocabulary()
    n_embd = shape_of(kind).n_embd
    a, b = np.zeros((1, n_embd), np.float32), np.zeros((len(vocab), 1), np.float32)
    a[0, residual(vocab).constant] = LOUD
    b[vocab.id(letter), 0] = 1
    tensors = {"output.weight.lora_a": a, "output.weight.lora_b": b}
    bound = sha256_of(base) if base_sha256 is None else base_sha256
    arch = "nemotron_h_moe" if kind != "dense" else "nemotron_h"
    write_gguf(path, tensors, arch=arch, alpha=1.0, base_sha256=bound)
    return path
