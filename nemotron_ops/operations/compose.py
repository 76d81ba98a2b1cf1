"""Turns a wish into what the supervisor runs: build, models, memory, command lines. Disk, network.

    resolve   recipes, settings and flags into one plan per model
    look      which build, which headers, what is here
    decide    quant and placement of every model (memory/pack.py), or the refusal
    make      build llama.cpp, fetch models
    argv      the command line of every instance

The order is the order in which things can fail cheaply. A dry run stops after deciding. Nothing is started here;
`reload` composes again from the same `Wish`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.installation import Installation
from nemotron_ops.memory.fit import Placement
from nemotron_ops.memory.pack import PackedModel, capacity_bytes
from nemotron_ops.operations.adapters import adapter_words
from nemotron_ops.operations.build_flags import known_flags
from nemotron_ops.operations.building import Confirm, have_build, look_for_build, refuse
from nemotron_ops.operations.memory_budget import (
    FoundModel,
    decide,
    devices_of,
    look_for_model,
    settings_by_hand,
    with_placement,
    with_quant,
)
from nemotron_ops.operations.model_files import ModelFiles, files_here, have_files
from nemotron_ops.operations.templates import template_words
from nemotron_ops.operations.wish import Composed, ModelWish, Wish, endpoint_for, plans_for
from nemotron_ops.recipes.load import load_settings
from nemotron_ops.recipes.resolve import Plan, Settings, public_names, request_fields
from nemotron_ops.supervisor.snapshot import ModelView
from nemotron_ops.supervisor.spec import Config, InstanceSpec

if TYPE_CHECKING:
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.engine.flags import Flags


@dataclass(frozen=True, kw_only=True)
class LlamaServer:
    """The build's llama-server: its path, the flags it knows, and words that are passed on to it as they are."""

    binary: Path
    build_id: str = ""
    flags: Flags | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadyModel:
    """A model that was decided and made. `plan` has the decided quant."""

    plan: Plan
    files: ModelFiles
    devices: tuple[str, ...]
    placements: tuple[Placement | None, ...]
    template: tuple[str, ...] = ()  # words of the command line for a chat template of the recipe's own
    adapters: tuple[str, ...] = ()  # words of the command line for LoRA adapters

    @property
    def placed(self) -> Plan:
        """The plan with what memory decided for its first replica."""
        return with_placement(self.plan, self.placements[0])


def compose(wish: Wish, here: Installation, *, dry_run: bool = False, confirm: Confirm = refuse) -> Composed:
    """Make sure of build and models and plan memory; with `dry_run` nothing is built and nothing is fetched.

    Raises the error of whatever is missing: UsageError, RecipeError, BuildError, EngineError, ModelError, FitError,
    GatewayError.
    """
    settings = wish.settings(load_settings(here.layout))
    plans = plans_for(wish, here, settings)
    endpoint = endpoint_for(wish, plans, here, settings)
    if not plans:
        return Composed(endpoint=endpoint, plans=(), config=Config(models=(), instances=()))

    found_build = look_for_build(here, may_build=wish.may_build or dry_run, confirm=confirm)
    found = [
        look_for_model(
            _with_found_quant(plan, model, wish, here), here,
            quant_is_open=wish.quant_is_open(model, plan.name), may_fetch=wish.may_fetch, dry_run=dry_run,
        )
        for model, plan in zip(wish.models, plans, strict=True)
    ]  # fmt: skip

    packed = decide(found, here, backend=found_build.backend)

    build = found_build.build if dry_run else have_build(found_build, here)
    models = [_make(f, chosen, wish, here, dry_run=dry_run) for f, chosen in zip(found, packed, strict=True)]

    server = _llama_server(build, here)
    extras = [model.extra for model in wish.models]
    config = Config(
        models=tuple(_view(m.plan) for m in models),
        instances=tuple(
            spec
            for m, extra in zip(models, extras, strict=True)
            for spec in _instances(m, replace(server, extra=extra))
        ),
        default_model=_default_model(settings, models),
        capacity_bytes=capacity_bytes(here.machine, backend=found_build.backend),
    )
    notes = tuple(note for chosen in packed for note in chosen.notes)
    return Composed(endpoint=endpoint, plans=tuple(m.placed for m in models), config=config, notes=notes)


def _make(found: FoundModel, chosen: PackedModel, wish: Wish, here: Installation, *, dry_run: bool) -> ReadyModel:
    """The model with its decided quant, fetched unless this is a dry run."""
    plan = with_quant(found.plan, chosen.quant)
    files = found.files if dry_run else have_files(plan, here, may_fetch=wish.may_fetch)
    return ReadyModel(
        plan=plan, files=files, devices=devices_of(plan, here), placements=chosen.placements,
        template=template_words(plan.recipe, here.layout, dry_run=dry_run),
        adapters=adapter_words(found.adapters, files, here, dry_run=dry_run),
    )  # fmt: skip


def _with_found_quant(plan: Plan, model: ModelWish, wish: Wish, here: Installation) -> Plan:
    """`plan`, with the quant that was served before where its own is not here and nothing may be fetched."""
    before = wish.found.get(plan.name, "")
    if wish.may_fetch or not before or not wish.quant_is_open(model, plan.name) or files_here(plan, here):
        return plan
    return with_quant(plan, before)


def _llama_server(build: Build | None, here: Installation) -> LlamaServer:
    if build is None:
        return LlamaServer(binary=Path("llama-server"))
    flags = known_flags(build, here.layout)
    return LlamaServer(binary=build.binary("llama-server"), build_id=build.id, flags=flags)


def _instances(model: ReadyModel, server: LlamaServer) -> list[InstanceSpec]:
    """One spec per replica."""
    return [_instance(model, server, i) for i in range(len(model.placements))]


def _instance(model: ReadyModel, llama_server: LlamaServer, i: int) -> InstanceSpec:
    from nemotron_ops.engine.args import server_argv

    plan, recipe, placement = model.plan, model.plan.recipe, model.placements[i]
    server = with_placement(plan, placement).server
    own_extra = tuple(server.pop("extra_args", ()))
    argv = server_argv(
        binary=llama_server.binary, model=model.files.path, mmproj=model.files.mmproj, socket="{socket}",
        api_key_file="{api_key_file}", alias=plan.alias, settings=server, extra=(*own_extra, *llama_server.extra),
        flags=llama_server.flags, device=model.devices[i % len(model.devices)] if model.devices else "",
        slot_save_path="{slots_dir}",
    )  # fmt: skip
    parallel, ctx = server["parallel"], server["ctx_size"]
    return InstanceSpec(
        name=f"{plan.name}-{i}", model=plan.name, argv=(*argv, *model.template, *model.adapters), slots=parallel,
        ctx_tokens=ctx if server.get("kv_unified") else ctx // parallel,
        memory_bytes=placement.bytes_by_device if placement else {},
        build=llama_server.build_id, files=model.files.all,
        restart=recipe.restart, health=recipe.health, lifecycle=recipe.lifecycle,
        may_shrink="ctx_size" not in settings_by_hand(plan),
    )  # fmt: skip


def _default_model(settings: Settings, models: list[ReadyModel]) -> str:
    return settings.default_model or (models[0].plan.name if len(models) == 1 else "")


def _view(plan: Plan) -> ModelView:
    """How the gateway is to treat requests for this model."""
    requests = plan.recipe.requests
    return ModelView(
        name=plan.name,
        names=public_names(plan),
        aliases=plan.recipe.model.aliases,
        profiles={name: request_fields(p) for name, p in plan.recipe.profiles.items()},
        adapters={a.name: a.scale for a in plan.recipe.adapters},
        defaults={"max_tokens": requests.max_tokens} if requests.max_tokens else {},
        fixed=requests.fixed,
        capped=requests.capped,
        queue_length=requests.queue_length,
        queue_wait_s=requests.queue_wait_s,
        lost_in_thought=requests.lost_in_thought,
        heal_tool_calls=requests.heal_tool_calls,
        reask_tool_calls=requests.reask_tool_calls,
        on_demand=plan.recipe.lifecycle.on_demand,
    )
