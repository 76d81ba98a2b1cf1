"""Brings a model's files to this machine: from a hub, or made on the spot. Disk, network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.installation import Installation

if TYPE_CHECKING:
    from nemotron_ops.models.fetch import Means


def means(here: Installation) -> Means:
    """The means of one fetch: the installation, and the time for the manifest."""
    from nemotron_ops.models.fetch import Means

    return Means(layout=here.layout, env=here.env, report=here.report, now=time.time())


def made_here(here: Installation, kind: str, quant: str) -> Path:
    """A tiny synthetic model, made if it does not exist."""
    from nemotron_ops.models import store, synthetic

    return synthetic.ensure(kind, here.layout.models / store.SYNTHETIC, quant=quant or "Q8_0")
