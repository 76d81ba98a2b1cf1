"""Sampling where no recipe knows a model: of the GGUF header, then of its base model on the hub. Disk, network.

What the hub said is kept in the cache folder, also that it said nothing: a supervisor that starts again without network
must come to the same command line, or it would load the model anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.progress import remark
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.recipes.sampling import FILE, is_open, of_generation_config, of_header, with_sampling

if TYPE_CHECKING:
    from nemotron_ops.models.gguf import Header


def with_own_sampling(plan: Plan, header: Header | None, here: Installation, *, may_ask: bool) -> Plan:
    """`plan` with the sampling that its model states, where recipe, settings and flags state none.

    With `may_ask`, the hub is asked once for the base model's file.
    """
    if header is None or not is_open(plan):
        return plan
    if stated := of_header(header.values):
        return with_sampling(plan, stated, "GGUF general.sampling")
    from nemotron_ops.models.base_model import base_model

    base = base_model(header, here.env)
    if not base:
        return plan
    return with_sampling(plan, of_generation_config(_config_of(base, here, may_ask=may_ask)), f"{FILE} of {base}")


def _config_of(base: str, here: Installation, *, may_ask: bool) -> str:
    """The text of the base model's file, from the cache or the hub; "" if there is none."""
    from nemotron_ops.files import read_plain, write_atomic
    from nemotron_ops.models.base_model import small_file
    from nemotron_ops.models.hub import offline

    kept = here.layout.cache / "generation" / f"{base.replace('/', '--')}.json"
    try:
        return read_plain(kept).decode(errors="replace")
    except OSError:
        pass
    if not may_ask or offline(here.env):
        return ""
    try:
        text = small_file(base, FILE, here.env)
    except ModelError as exc:
        text = ""
        remark(here.report, f"{exc.message}: sampling of {base} is not known; {_again(kept)}", warning=True)
    write_atomic(kept, text)
    return text


def _again(kept: Path) -> str:
    return f"remove {kept} to ask again"
