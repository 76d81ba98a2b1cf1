"""A model's files for llama-server: made on the spot, found in the store, or fetched. Disk, network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.errors import ModelError

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.recipes.resolve import Plan


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """What llama-server is to read: the first GGUF file, the projector if it is wanted, and all files by path."""

    path: Path
    mmproj: Path | None = None
    all: tuple[str, ...] = ()

    @property
    def mmproj_bytes(self) -> int:
        return self.mmproj.stat().st_size if self.mmproj and self.mmproj.exists() else 0


def model_files(plan: Plan, app: App, *, may_fetch: bool, dry_run: bool) -> ModelFiles:
    """The model's files, made, found or fetched. Raises ModelError."""
    model = plan.recipe.model
    if model.path:
        return ModelFiles(path=Path(model.path), all=(model.path,))
    if model.synthetic:
        from nemotron_ops.cli.fetch import made_here

        path = made_here(app, model.synthetic, model.quant)
        return ModelFiles(path=path, all=(str(path),))
    from nemotron_ops.models import fetch, store
    from nemotron_ops.models.ref import Ref

    ref = Ref(repo=model.repo, quant=model.quant)
    found = store.find(app.layout, ref)
    if found and all(store.intact(f) for f in found.files) and (found.mmproj or not model.mmproj):
        if not dry_run:
            store.mark_used(app.layout, found, time.time())  # `models gc` goes by it
    elif dry_run:
        return ModelFiles(path=app.layout.models / f"{model.repo}/{model.quant or 'model'}.gguf")
    elif not may_fetch:
        hint = f"run `nemotron-ops fetch {plan.name}` first"
        raise ModelError(f"cannot serve {plan.name}: {ref} is not on this machine", hint=hint)
    else:
        request = fetch.FetchRequest(ref=ref, revision=model.revision, mmproj=model.mmproj, pinned=model.sha256)
        found = fetch.fetch(request, app.installation)
    used = [f.path for f in found.files if f.role == "weights" or model.mmproj]
    return ModelFiles(path=found.path, mmproj=found.mmproj if model.mmproj else None, all=tuple(used))
