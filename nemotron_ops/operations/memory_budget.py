"""Finds out what memory each model needs, and applies the decided placement to its plan. Disk; network for headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nemotron_ops.installation import Installation
from nemotron_ops.memory.fit import Placement
from nemotron_ops.memory.machine import device_name
from nemotron_ops.memory.pack import ModelToPack, PackedModel, Quant, Refusal, pack
from nemotron_ops.operations.adapters import FoundAdapter, look_for_adapters
from nemotron_ops.operations.model_files import (
    ModelFiles,
    check_may_fetch,
    expected_files,
    files_here,
    have_files,
    in_store,
)
from nemotron_ops.operations.model_sampling import with_own_sampling
from nemotron_ops.operations.quants import offered_quants, other_quants, projector_bytes
from nemotron_ops.recipes.resolve import Plan, Setting

NOT_HERE = "memory is not planned yet, the model is not here; see `nemotron-ops plan`"


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model before the decision. `quant_is_open`: another one may take its place where it does not fit."""

    plan: Plan
    quants: tuple[Quant, ...]
    files: ModelFiles
    mmproj_bytes: int = 0
    quant_is_open: bool = False
    adapters: tuple[FoundAdapter, ...] = ()


def look_for_model(
    plan: Plan, here: Installation, *, quant_is_open: bool = False, may_fetch: bool = True, dry_run: bool = False
) -> FoundModel:
    """The model's header and size: of its files if they are here, else of the hub's. Its plan gets its own sampling.

    Fetches only what cannot be judged otherwise: a stored model that was changed, a header that the hub does not show.
    Raises ModelError.
    """
    found = _look_for_base(plan, here, quant_is_open=quant_is_open, may_fetch=may_fetch, dry_run=dry_run)
    own = with_own_sampling(found.plan, found.quants[0].header, here, may_ask=may_fetch and not dry_run)
    return replace(found, plan=own, adapters=look_for_adapters(plan.recipe, here.layout))


def _look_for_base(
    plan: Plan, here: Installation, *, quant_is_open: bool, may_fetch: bool, dry_run: bool
) -> FoundModel:  # fmt: skip
    """The model without its adapters and its own sampling."""
    if files := files_here(plan, here):
        return _from_files(plan, files)
    model = plan.recipe.model
    if dry_run:
        unknown = Quant(name=model.quant, header=None, why=NOT_HERE)
        return FoundModel(plan=plan, quants=(unknown,), files=expected_files(plan, here))
    check_may_fetch(plan, may_fetch=may_fetch)
    if not in_store(plan, here):
        own = offered_quants(plan, here, (model.quant,))[0]
        if own.header:
            return FoundModel(
                plan=plan,
                quants=(replace(own, name=model.quant or own.name),),
                files=expected_files(plan, here),
                mmproj_bytes=projector_bytes(plan, here),
                quant_is_open=quant_is_open and bool(model.quant),
            )
    return _from_files(plan, have_files(plan, here, may_fetch=True))


def decide(found: Sequence[FoundModel], here: Installation, *, backend: str) -> tuple[PackedModel, ...]:
    """Quant and placement of every model. Raises FitError.

    Reads the headers of a model's other quants only if its own does not fit.
    """
    models = [to_pack(f, here) for f in found]
    looked_up: set[str] = set()
    while isinstance(outcome := pack(models, here.machine, backend=backend), Refusal):
        refused = next(i for i, m in enumerate(models) if m.name == outcome.model)
        if not found[refused].quant_is_open or outcome.model in looked_up:
            raise outcome.error
        looked_up.add(outcome.model)
        others = other_quants(found[refused].plan, here)
        models[refused] = replace(models[refused], quants=(*models[refused].quants, *others))
    return outcome


def to_pack(found: FoundModel, here: Installation) -> ModelToPack:
    """The model's memory request: its flags, and one device for each replica."""
    plan, devices = found.plan, devices_of(found.plan, here)
    return ModelToPack(
        name=plan.name,
        quants=found.quants,
        server=plan.server,
        by_hand=settings_by_hand(plan),
        most_tokens=plan.recipe.context.max_tokens,
        devices=tuple(devices[i % len(devices)] if devices else "" for i in range(replicas_of(plan, here))),
        mmproj_bytes=found.mmproj_bytes,
        lora_bytes=sum(a.n_bytes for a in found.adapters),
        on_demand=plan.recipe.lifecycle.on_demand,
    )


def replicas_of(plan: Plan, here: Installation) -> int:
    """The number of instances: the recipe's, or one per GPU."""
    wanted = plan.recipe.lifecycle.replicas
    return max(1, len(here.machine.gpus)) if wanted == "auto" else int(wanted)


def devices_of(plan: Plan, here: Installation) -> tuple[str, ...]:
    """llama-server device names, one per replica in turn; none where llama-server is to choose."""
    lifecycle = plan.recipe.lifecycle
    if lifecycle.devices or lifecycle.replicas != "auto" or len(here.machine.gpus) < 2:
        return lifecycle.devices
    return tuple(device_name(g, i) for i, g in enumerate(here.machine.gpus))


def settings_by_hand(plan: Plan) -> frozenset[str]:
    """The settings that were chosen by hand: memory planning keeps them."""
    named = {k: s.source for k, s in plan.settings.items()}
    return frozenset(k for k, s in named.items() if s != "built in" and not s.startswith("recipe "))


def with_quant(plan: Plan, quant: str) -> Plan:
    """`plan` with the quant that was decided for it."""
    model = plan.recipe.model
    if not model.repo or not model.quant or quant.upper() == model.quant.upper():
        return plan
    return replace(plan, recipe=replace(plan.recipe, model=replace(model, quant=quant)))


def with_placement(plan: Plan, found: Placement | None) -> Plan:
    """`plan` with what the placement decides; settings that already have the value keep their source."""
    return plan.with_settings(_placed_settings(plan, found)) if found else plan


def _placed_settings(plan: Plan, found: Placement) -> Mapping[str, Setting]:
    decided = {
        "ctx_size": found.ctx_size,
        "n_gpu_layers": found.n_gpu_layers,
        "n_cpu_moe": found.n_cpu_moe or None,
        "tensor_split": found.tensor_split or None,
        "ctx_checkpoints": found.ctx_checkpoints,
        "cache_ram_mib": found.cache_ram_mib,
    }
    source = f"memory: {found.why}"
    return {k: Setting(value=v, source=source) for k, v in decided.items() if v is not None and v != plan.value(k)}


def _from_files(plan: Plan, files: ModelFiles) -> FoundModel:
    """A model whose files are on this machine; its header is unknown if a given path does not exist."""
    from nemotron_ops.models.local import read_header

    header = read_header(files.path) if files.path.exists() else None
    own = Quant(name=plan.recipe.model.quant, header=header, why="" if header else NOT_HERE)
    return FoundModel(plan=plan, quants=(own,), files=files, mmproj_bytes=files.mmproj_bytes)
