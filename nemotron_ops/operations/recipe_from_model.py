"""Describes a model for a recipe of one's own: from its header, and from its card on the hub. Disk, network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.model_sampling import with_own_sampling
from nemotron_ops.operations.quants import known_quants
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.resolve import SAMPLING, resolve
from nemotron_ops.recipes.written import POOLING, Described

if TYPE_CHECKING:
    from nemotron_ops.models.gguf import Header
    from nemotron_ops.recipes.resolve import Plan
    from nemotron_ops.recipes.schema import Model


def describe_model(target: str, here: Installation) -> Described:
    """What header and hub say of `target`. Raises UsageError, ModelError; a card that cannot be read is left out."""
    from nemotron_ops.models.base_model import base_model

    recipe = recipe_for(target, here.layout, here.env)
    plan = resolve(recipe)
    found = known_quants(plan, here, (recipe.model.quant,) if recipe.model.quant else ())
    own = found[0] if recipe.model.quant or recipe.model.path else _preferred(plan, here)
    if own.header is None:
        raise ModelError(f"cannot describe {target}: its header cannot be read: {own.why}")
    model = replace(recipe.model, quant="" if recipe.model.path else recipe.model.quant or own.name)
    described = _of_header(model, own.header)
    base = base_model(own.header, here.env)
    sampled = with_own_sampling(plan, own.header, here, may_ask=True)
    values = {k: sampled.value(k) for k in SAMPLING if sampled.value(k) is not None}
    card = _card(model, here) if model.repo else {}
    return replace(
        described,
        base=base or str(card.get("base") or ""),
        license=described.license or str(card.get("license") or ""),
        mmproj=bool(card.get("mmproj")),
        sampling=values,
        sampling_from=next((sampled.settings[k].source for k in values), ""),
    )


def _preferred(plan: Plan, here: Installation) -> Any:
    """The quant that is chosen where none is named, with its header."""
    from nemotron_ops.models.hub import list_files
    from nemotron_ops.models.ref import Ref, choose

    model = plan.recipe.model
    listing = list_files(model.repo, revision=model.revision, env=here.env)
    return known_quants(plan, here, (choose(listing.files, Ref(repo=model.repo)).quant,))[0]


def _of_header(model: Model, header: Header) -> Described:
    pooling = header.number("pooling_type", 0) if header.arch else 0
    values = {key: header.values.get(f"general.{key}", "") for key in ("name", "license")}
    texts = {key: value if isinstance(value, str) else "" for key, value in values.items()}
    return Described(
        repo=model.repo, path=model.path, quant=model.quant, revision=model.revision, alias=model.alias,
        title=texts["name"], license=texts["license"], arch=header.arch,
        trained_tokens=header.number("context_length", 0), pooling=pooling if pooling in POOLING else 0,
    )  # fmt: skip


def _card(model: Model, here: Installation) -> dict[str, Any]:
    """Base model, licence and projector, as the hub's page has them; {} where it cannot be asked."""
    from nemotron_ops.models.hub import HubRefused, hub_api, token_of

    try:
        with hub_api(here.env, token_of(here.env), what=model.repo, revision=model.revision) as api:
            info = api.model_info(model.repo, revision=model.revision, timeout=10.0)
    except (ModelError, HubRefused):
        return {}
    card = info.card_data
    base = getattr(card, "base_model", None) if card else None
    names = [str(s.rfilename).rpartition("/")[2].lower() for s in info.siblings or ()]
    return {
        "base": base[0] if isinstance(base, list) and base else base,
        "license": getattr(card, "license", None) if card else None,
        "mmproj": any("mmproj" in name and name.endswith(".gguf") for name in names),
    }
