"""Reads the headers of a model's quants, from files of this machine or over the network. Disk, network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.memory.pack import Quant
from nemotron_ops.operations.fetching import made_here
from nemotron_ops.progress import remark
from nemotron_ops.recipes.resolve import Plan


def known_quants(plan: Plan, here: Installation, quants: Sequence[str] = ()) -> tuple[Quant, ...]:
    """The quants (or those in `quants`) of the plan's file, of the tiny model, or of the hub's repository.

    Without the hub, those that are here. Raises ModelError where there are none either.
    """
    from nemotron_ops.models.local import read_header
    from nemotron_ops.models.ref import quant_label

    model = plan.recipe.model
    if model.path:
        return (Quant(name=quant_label(Path(model.path).name) or "-", header=read_header(Path(model.path))),)
    if model.synthetic:
        kinds = quants or (model.quant or "Q8_0",)
        return tuple(Quant(name=q, header=read_header(made_here(here, model.synthetic, q))) for q in kinds)
    from nemotron_ops.models import hub, store
    from nemotron_ops.models.refusals import Stalled

    stored = [m for m in store.list_models(here.layout) if m.repo == model.repo]
    try:
        if hub.offline(here.env):
            raise Stalled(f"cannot plan {model.repo}: HF_HUB_OFFLINE forbids the network, and it is not here")
        return offered_quants(plan, here, quants)
    except Stalled as exc:
        if not stored:
            raise
        remark(here.report, f"{exc.message}; planning with what is here", warning=True)
        return tuple(Quant(name=m.quant, header=read_header(m.path)) for m in stored if not quants or m.quant in quants)


def offered_quants(plan: Plan, here: Installation, quants: Sequence[str] = ()) -> tuple[Quant, ...]:
    """The quants (or those in `quants`) that the hub offers. Raises ModelError if it cannot be read."""
    from nemotron_ops.models.offers import offers
    from nemotron_ops.models.ref import Ref

    model = plan.recipe.model
    found = offers(Ref(repo=model.repo), here, revision=model.revision, quants=quants)
    return tuple(Quant(name=o.quant, header=o.header, why=o.why) for o in found)


def other_quants(plan: Plan, here: Installation) -> tuple[Quant, ...]:
    """The quants that the hub offers besides the plan's own; none where it cannot be read."""
    from nemotron_ops.models.hub import list_files
    from nemotron_ops.models.ref import file_sets

    model = plan.recipe.model
    try:
        listing = list_files(model.repo, revision=model.revision, env=here.env)
        names = [q for q in file_sets(listing.files) if q.upper() != model.quant.upper()]
        return offered_quants(plan, here, names) if names else ()
    except ModelError:
        return ()


def projector_bytes(plan: Plan, here: Installation) -> int:
    """The size of the projector that a fetch would bring; 0 where none is wanted."""
    from nemotron_ops.models.hub import list_files
    from nemotron_ops.models.ref import Ref, choose

    model = plan.recipe.model
    if not model.mmproj:
        return 0
    listing = list_files(model.repo, revision=model.revision, env=here.env)
    projector = choose(listing.files, Ref(repo=model.repo, quant=model.quant), mmproj=True).mmproj
    return projector.size_bytes if projector else 0
