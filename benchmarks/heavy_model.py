"""A model of a few hundred MB for benchmarks: its weights do not fit into caches, so memory is measured. Disk.

A mixture of experts whose weights are zeros, which cost the same time as others; it says nothing of sense.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemotron_ops.models.synthetic.shape import Shape
from nemotron_ops.models.synthetic.write import write_sparse
from nemotron_ops.paths import Layout

SHAPE = Shape(
    pattern="MEMEM*E", n_embd=1024, n_head=8, n_head_kv=2, head_dim=128, ssm_heads=16, ssm_head_dim=64, n_group=4,
    n_ff=1024, n_expert=64, n_used=2, n_ff_exp=512, n_ff_shexp=512,
)  # fmt: skip
RECIPE = """\
title = "a mixture of experts that is all zeros"
arch = "nemotron_h_moe"
[model]
path = "{path}"
[context]
default_tokens = {context}
[server]
parallel = 1
"""


@contextmanager
def heavy_recipe(name: str, folder: Path, layout: Layout, *, context: int = 768, extra: str = "") -> Iterator[str]:
    """A user recipe of this model while the block runs; `extra` are further lines of its [server] table."""
    model = folder / "zeros.gguf"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_sparse(SHAPE, model, quant="Q8_0", n_vocab=8192, name="zeros")
        _touch(model)
    recipe = layout.user_recipes / f"{name}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE.format(path=model, context=context) + extra)
    try:
        yield name
    finally:
        recipe.unlink()


def _touch(model: Path) -> None:
    """Fill the file's hole with zeros on disk: pages of a hole could be one page of memory."""
    half = model.with_suffix(".half")
    half.write_bytes(model.read_bytes())
    os.replace(half, model)
    sys.stdout.write(f"{model.name}: {model.stat().st_size / 1e6:.0f} MB\n")
