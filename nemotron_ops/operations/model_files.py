"""Provides a model's files for llama-server: made on the spot, found in the store, or fetched. Disk, network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.fetching import made_here

if TYPE_CHECKING:
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.models.store import StoredModel
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


def files_here(plan: Plan, here: Installation) -> ModelFiles | None:
    """The model's files if they are complete on this machine. A synthetic model is made, in milliseconds."""
    model = plan.recipe.model
    if model.path:
        return ModelFiles(path=Path(model.path), all=(model.path,))
    if model.synthetic:
        path = made_here(here, model.synthetic, model.quant)
        return ModelFiles(path=path, all=(str(path),))
    found = _stored(plan, here)
    return _files(plan, found) if found else None


def expected_files(plan: Plan, here: Installation) -> ModelFiles:
    """Where the model would be, for a command line that is only shown."""
    model = plan.recipe.model
    return ModelFiles(path=here.layout.models / f"{model.repo}/{model.quant or 'model'}.gguf")


def have_files(plan: Plan, here: Installation, *, may_fetch: bool) -> ModelFiles:
    """The model's files, fetched if they are not here. Raises ModelError.

    Notes that a stored model is used now: `models gc` removes what was not used for long.
    """
    if plan.recipe.model.path or plan.recipe.model.synthetic:
        found = files_here(plan, here)
        assert found
        return found
    from nemotron_ops.models import fetch, store

    if stored := _stored(plan, here):
        store.mark_used(here.layout, stored, time.time())
        return _files(plan, stored)
    check_may_fetch(plan, may_fetch=may_fetch)
    model = plan.recipe.model
    request = fetch.FetchRequest(ref=_ref(plan), revision=model.revision, mmproj=model.mmproj, pinned=model.sha256)
    return _files(plan, fetch.fetch(request, here))


def check_may_fetch(plan: Plan, *, may_fetch: bool) -> None:
    """Raises ModelError where the model would have to be fetched and may not be."""
    if not may_fetch:
        hint = f"run `nemotron-ops fetch {plan.name}` first"
        raise ModelError(f"cannot serve {plan.name}: {_ref(plan)} is not on this machine", hint=hint)


def in_store(plan: Plan, here: Installation) -> bool:
    """Whether the store has this model, be it changed or without its projector."""
    from nemotron_ops.models import store

    return store.find(here.layout, _ref(plan)) is not None


def _stored(plan: Plan, here: Installation) -> StoredModel | None:
    """The model in the store, if all its files are as they were proven."""
    from nemotron_ops.models import store

    found = store.find(here.layout, _ref(plan))
    if found and all(store.intact(f) for f in found.files) and (found.mmproj or not plan.recipe.model.mmproj):
        return found
    return None


def _ref(plan: Plan) -> Ref:
    from nemotron_ops.models.ref import Ref

    return Ref(repo=plan.recipe.model.repo, quant=plan.recipe.model.quant)


def _files(plan: Plan, found: StoredModel) -> ModelFiles:
    wanted = plan.recipe.model.mmproj
    used = [f.path for f in found.files if f.role == "weights" or wanted]
    return ModelFiles(path=found.path, mmproj=found.mmproj if wanted else None, all=tuple(used))
