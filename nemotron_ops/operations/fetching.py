"""Brings a model's files to this machine: from a hub, or made on the spot. Disk, network."""

from __future__ import annotations

from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation

TRAINABLE = "trainable"
EDITION = 1  # of the tiny trainable model: grows when its bytes change


def trainable_path(here: Installation) -> Path:
    """Where the tiny trainable model is made; its checkpoint is beside it."""
    return here.layout.models / "synthetic" / f"trainable-e{EDITION}" / "model.gguf"


def made_here(here: Installation, kind: str, quant: str) -> Path:
    """A tiny synthetic model, made if it does not exist."""
    from nemotron_ops.models import store, synthetic

    if kind == TRAINABLE:
        path = trainable_path(here)
        if not path.is_file():
            raise ModelError(
                "cannot find the tiny trainable model: it is not made yet",
                hint="`nemotron-ops tune tiny-train --data FILE` makes it",
            )
        return path
    return synthetic.ensure(kind, here.layout.models / store.SYNTHETIC, quant=quant or "Q8_0")
