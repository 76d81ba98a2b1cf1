"""`nemotron-ops fetch`: downloads a model and verifies its checksums. Prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of

if TYPE_CHECKING:
    from nemotron_ops.models.fetch import FetchPlan
    from nemotron_ops.models.store import StoredModel


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """What `fetch` was asked for, besides the model."""

    quant: str | None = option("Quant to fetch, as in the file names (UD-Q4_K_XL). Default: the recipe's.", metavar="Q")
    revision: str | None = option("Branch, tag or commit. A full commit pins it.", metavar="R")
    local_dir: Path | None = option("Put the files here, not in the store.", metavar="D")
    mmproj: bool = option("Also fetch the multimodal projector.")
    unproven: bool = option("Also fetch files whose hash the hub does not tell: only their size is checked.")


@click.command()
@click.argument("model", metavar="RECIPE|REPO[:QUANT]")
@options_of(FetchOptions)
@dry_run_option
@progress_option
@json_option
def fetch(model: str, wanted: FetchOptions, dry_run: bool, as_json: bool) -> None:
    """Download a model and verify its checksums.

    Continues where an earlier run stopped, uses files in the caches of Hugging Face and llama.cpp, and checks every
    file's sha256. HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the cache variables are honoured.
    """
    with App() as app:
        from nemotron_ops.operations.fetching import made_here
        from nemotron_ops.recipes.load import recipe_for

        recipe, here = recipe_for(model, app.layout, app.env).model, app.installation
        quant = wanted.quant or recipe.quant
        if recipe.synthetic or recipe.path:
            path = made_here(here, recipe.synthetic, quant) if recipe.synthetic else Path(recipe.path)
            app.ui.json({"model": model, "path": path}) if as_json else app.ui.say(f"{path} is here: nothing to fetch")
            return
        from nemotron_ops.models.fetch import FetchRequest, carry_out, prepare
        from nemotron_ops.models.ref import Ref

        request = FetchRequest(
            ref=Ref(repo=recipe.repo, quant=quant),
            revision=wanted.revision or recipe.revision,
            local_dir=wanted.local_dir.absolute() if wanted.local_dir else None,
            mmproj=wanted.mmproj or recipe.mmproj,
            pinned=recipe.sha256,
            unproven=wanted.unproven,
        )
        plan = prepare(request, here)
        _say_plan(app, plan)
        if dry_run:
            if as_json:
                app.ui.json(plan_value(plan))
            return
        found = carry_out(plan, here)
        app.ui.json(model_value(found)) if as_json else app.ui.data(str(found.path))


def model_value(model: StoredModel) -> dict[str, Any]:
    """A stored model for `--json`."""
    return {"id": model.id, "path": str(model.path), "size_bytes": model.size_bytes, **asdict(model)}


def plan_value(plan: FetchPlan) -> dict[str, Any]:
    """A planned fetch, for `--json`."""
    return {
        "model": f"{plan.ref.repo}:{plan.quant}",
        "revision": plan.revision,
        "commit": plan.commit,
        "size_bytes": plan.size_bytes,
        "fetch_bytes": plan.fetch_bytes,
        "free_bytes": plan.free_bytes,
        "here": plan.model is not None,
        "files": [
            {
                "name": w.file.name,
                "path": str(w.path),
                "size_bytes": w.file.size_bytes,
                "sha256": w.file.sha256,
                "here": w.here or ("partly" if w.partial_bytes else "no"),
                "fetch_bytes": w.fetch_bytes,
            }
            for w in plan.files
        ],
    }


def _say_plan(app: App, plan: FetchPlan) -> None:
    from nemotron_ops.ui import size

    if plan.note:
        app.ui.warn(plan.note)
    if plan.model:
        app.ui.say(f"{plan.model.id} is here and unchanged ({size(plan.model.size_bytes)})")
        return
    app.ui.say(f"{plan.ref.repo}:{plan.quant} at {plan.commit[:12]}")
    if plan.old:
        app.ui.say(f"  replaces {plan.old.commit[:12]}, which stays until the new files are here")
    for wanted in plan.files:
        state = {"stored": "is here", "cached": f"from {wanted.copy}"}.get(wanted.here, "")
        if wanted.partial_bytes and not wanted.here:
            state = f"{size(wanted.partial_bytes)} are here"
        app.ui.say(f"  {wanted.file.name}  {size(wanted.file.size_bytes)}  {state}".rstrip())
    app.ui.say(f"  {size(plan.fetch_bytes)} to fetch, {size(plan.free_bytes)} free on the disk")
