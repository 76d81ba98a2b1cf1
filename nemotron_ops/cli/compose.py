"""From what a user typed to what the supervisor runs: recipe, build, model, memory, command lines. Disk, network.

The order is the order in which things can fail cheaply: recipes and flags first, then the build, then the model's
bytes, then memory. Nothing is started here. `reload` composes again from the same `Wish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops import addresses
from nemotron_ops.addresses import is_loopback
from nemotron_ops.cli.builds_flags import asked_flags
from nemotron_ops.cli.model_files import ModelFiles, model_files
from nemotron_ops.cli.room import Room, settings_by_hand
from nemotron_ops.errors import BuildError, GatewayError, UsageError
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import load_settings, recipe_for
from nemotron_ops.recipes.resolve import Plan, Settings, public_names, request_fields, resolve
from nemotron_ops.recipes.schema import Recipe
from nemotron_ops.supervisor.snapshot import ModelView
from nemotron_ops.supervisor.spec import Config, InstanceSpec

if TYPE_CHECKING:
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.cli.app import App
    from nemotron_ops.engine.flags import Flags


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What `serve` was asked for. `flags` are fields of `schema.Server`, or host, port, api_key_file, alias.

    `quants` maps a recipe's name, or "" for all, to the quant to serve.
    """

    targets: tuple[str, ...]
    quants: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    may_build: bool = True
    may_fetch: bool = True


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where clients connect. `settings` holds what else the gateway is told."""

    host: str
    port: int
    api_key_file: str = ""
    settings: Settings = field(default_factory=Settings)

    @property
    def scheme(self) -> str:
        return "https" if self.settings.tls_cert else "http"

    @property
    def url(self) -> str:
        """The base URL that clients take, ending in /v1."""
        return addresses.url(self.scheme, self.host, self.port)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Everything `serve` needs to start, and what `--dry-run` shows."""

    endpoint: Endpoint
    plans: tuple[Plan, ...]
    config: Config
    notes: tuple[str, ...] = ()


def compose(wish: Wish, app: App, *, dry_run: bool = False) -> Composed:
    """Make sure of build and models and plan memory; with `dry_run` nothing is built, fetched or made.

    Raises the error of whatever is missing: UsageError, RecipeError, BuildError, EngineError, ModelError, FitError,
    GatewayError.
    """
    settings = load_settings(app.layout)
    plans = plans_for(wish, app, settings)
    endpoint = endpoint_of(plans[0], settings, app.layout)
    build = build_for(wish, app, dry_run=dry_run)
    flags = asked_flags(build) if build else None
    room = Room(app=app, backend=build.backend if build else "")
    instances: list[InstanceSpec] = []
    placed: list[Plan] = []
    for target, plan in zip(wish.targets, plans, strict=True):
        if wish.may_fetch and not dry_run:
            plan = room.fitting_quant(plan, asked=":" in target or bool(_quant_of(wish, plan.name)))
        model = model_files(plan, app, may_fetch=wish.may_fetch, dry_run=dry_run)
        shown, specs = _instances(plan, model, build, flags, wish.extra, room)
        placed.append(shown)
        instances += specs
    config = Config(
        models=tuple(_view(p) for p in placed),
        instances=tuple(instances),
        default_model=settings.default_model or (placed[0].name if len(placed) == 1 else ""),
        capacity_bytes=room.capacity_bytes(),
    )
    return Composed(endpoint=endpoint, plans=tuple(placed), config=config, notes=tuple(room.notes))


def plans_for(wish: Wish, app: App, settings: Settings) -> tuple[Plan, ...]:
    """One Plan per target. Raises UsageError where two would have the same name."""
    if len(wish.targets) > 1 and wish.flags.get("alias"):
        raise UsageError("cannot use --alias with several models: which one is meant is unclear")
    recipes = [_with_quant(recipe_for(target, app.layout), wish) for target in wish.targets]
    plans = tuple(
        resolve(recipe, profile=wish.profile, settings=settings, env=app.env, flags=wish.flags) for recipe in recipes
    )
    names = [p.name for p in plans]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"cannot serve {sorted(twice)[0]} twice", hint="set lifecycle.replicas in a recipe instead")
    return plans


def _with_quant(recipe: Recipe, wish: Wish) -> Recipe:
    quant = _quant_of(wish, recipe.name)
    return replace(recipe, model=replace(recipe.model, quant=quant)) if quant else recipe


def _quant_of(wish: Wish, name: str) -> str:
    return wish.quants.get(name) or wish.quants.get("", "")


def endpoint_of(plan: Plan, settings: Settings, layout: Layout) -> Endpoint:
    """Where to listen, and which keys clients must show: those named, else the ones that `keys create` made.

    Raises GatewayError for an address beyond loopback without keys, or files that are not there.
    """
    own = layout.config / "keys.json"
    host, port, key_file = plan.value("host"), plan.value("port"), plan.value("api_key_file")
    if not key_file and own.exists():
        key_file = str(own)
    if not is_loopback(host) and not key_file:
        raise GatewayError(
            f"cannot listen on {host}: anybody who reaches this address could use the models",
            hint="make a key with `nemotron-ops keys create NAME`, or listen on 127.0.0.1",
        )
    for file in filter(None, (key_file, settings.tls_cert, settings.tls_key)):
        if not Path(file).is_file():
            raise GatewayError(f"cannot read {file}: there is no such file")
    return Endpoint(host=host, port=port, api_key_file=key_file or "", settings=settings)


def build_for(wish: Wish, app: App, *, dry_run: bool) -> Build | None:
    """The current build, or a new one for this machine. None only in a dry run that would build."""
    from nemotron_ops.builds.store import store

    build = store.current(app.layout)
    if build or dry_run:
        return build
    if not wish.may_build:
        raise BuildError("cannot serve: there is no build of llama.cpp", hint="run `nemotron-ops build` first")
    app.ui.say("there is no build of llama.cpp yet: building one")
    return current_or_new(app)


def current_or_new(app: App) -> Build:
    """The current build; where there is none, one is made for this machine. Raises the errors of building."""
    from nemotron_ops.builds.run import BuildOptions, BuildRequest, ensure_build
    from nemotron_ops.builds.store import store
    from nemotron_ops.cli.build import with_zig

    if build := store.current(app.layout):
        return build
    request = BuildRequest(options=with_zig(BuildOptions(), app))
    made = ensure_build(request, app.installation)
    app.ui.end_bars()
    return made


def _instances(
    plan: Plan, model: ModelFiles, build: Build | None, flags: Flags | None, extra: Sequence[str], room: Room
) -> tuple[Plan, list[InstanceSpec]]:
    """One spec per replica, and the plan of the first with what memory decided."""
    from nemotron_ops.engine.args import server_argv

    devices = _devices(plan, room.app)
    binary = build.binary("llama-server") if build else Path("llama-server")
    shown, specs = plan, []
    for i in range(_replicas(plan, room.app)):
        device = devices[i % len(devices)] if devices else ""
        placed, memory = room.place(plan, model.path, device, mmproj_bytes=model.mmproj_bytes)
        shown = placed if i == 0 else shown
        server = placed.server
        own_extra = tuple(server.pop("extra_args", ()))
        argv = server_argv(
            binary=binary, model=model.path, mmproj=model.mmproj, socket="{socket}", api_key_file="{api_key_file}",
            alias=plan.alias, settings=server, extra=(*own_extra, *extra), flags=flags, device=device,
            slot_save_path="{slots_dir}",
        )  # fmt: skip
        recipe, parallel, ctx = plan.recipe, server["parallel"], server["ctx_size"]
        specs.append(
            InstanceSpec(
                name=f"{plan.name}-{i}", model=plan.name, argv=argv, slots=parallel,
                ctx_tokens=ctx if server.get("kv_unified") else ctx // parallel, memory_bytes=memory,
                build=build.id if build else "", files=model.all, restart=recipe.restart, health=recipe.health,
                lifecycle=recipe.lifecycle,
                may_shrink="ctx_size" not in settings_by_hand(plan),
            )
        )  # fmt: skip
    return shown, specs


def _replicas(plan: Plan, app: App) -> int:
    wanted = plan.recipe.lifecycle.replicas
    if wanted == "auto":
        return max(1, len(app.machine.gpus))
    return int(wanted)


def _devices(plan: Plan, app: App) -> tuple[str, ...]:
    """llama-server device names, one per replica in turn; none where llama-server is to choose."""
    lifecycle = plan.recipe.lifecycle
    if lifecycle.devices or lifecycle.replicas != "auto" or len(app.machine.gpus) < 2:
        return lifecycle.devices
    from nemotron_ops.memory.machine import device_name

    return tuple(device_name(g, i) for i, g in enumerate(app.machine.gpus))


def _view(plan: Plan) -> ModelView:
    """How the gateway is to treat requests for this model."""
    requests = plan.recipe.requests
    return ModelView(
        name=plan.name,
        names=public_names(plan),
        profiles={name: request_fields(p) for name, p in plan.recipe.profiles.items()},
        defaults={"max_tokens": requests.max_tokens} if requests.max_tokens else {},
        fixed=requests.fixed,
        capped=requests.capped,
        queue_length=requests.queue_length,
        queue_wait_s=requests.queue_wait_s,
        lost_in_thought=requests.lost_in_thought,
        on_demand=plan.recipe.lifecycle.on_demand,
    )
