"""Brings a model's files to this machine: from a hub, or made on the spot. Disk, network."""

from __future__ import annotations

from pathlib import Path

from nemotron_ops.installation import Installation


def made_here(here: Installation, kind: str, quant: str) -> Path:
    """A tiny synthetic model, made if it does not exist."""
    from nemotron_ops.models import store, synthetic

    return synthetic.ensure(kind, here.layout.models / store.SYNTHETIC, quant=quant or "Q8_0")
