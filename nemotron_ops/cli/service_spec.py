"""What `service install` was asked for, completed from recipes, settings and this machine, and made ready. Disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.errors import BuildError, GatewayError, ServiceError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.service.place import Place
    from nemotron_ops.service.spec import Scope, ServiceSpec

# fields of `serve` that the service itself decides: the socket, the way it is started
DECIDED = {"host": "--host", "port": "--port", "profile": "--profile"}
MEANINGLESS = {"detach": "--detach", "dry_run": "--dry-run", "as_json": "--json"}
JETSON = Path("/dev/nvgpu")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words of `service install`; `port` None and empty words mean what recipes and settings say."""

    recipes: tuple[str, ...]
    profile: str = ""
    host: str = ""
    port: int | None = None
    gpu: str = "auto"
    allow_from: tuple[str, ...] = ()
    memory_max: str = ""
    device_policy: bool = True
    options: tuple[str, ...] = ()
    keys: str = ""  # file of API keys; a system service gets a copy


def asked_before(spec: ServiceSpec) -> Asked:
    """What an installed service was asked for."""
    return Asked(
        recipes=spec.recipes, profile=spec.profile, host=spec.host, port=spec.port, gpu=spec.gpu_asked,
        allow_from=spec.allow_from, memory_max=spec.memory_max, device_policy=spec.device_policy,
        options=spec.options, keys=spec.key_file,
    )  # fmt: skip


def composed(app: App, scope: Scope, asked: Asked) -> ServiceSpec:
    """The whole ServiceSpec. Raises UsageError, RecipeError, and GatewayError for an open door without keys."""
    from nemotron_ops.cli.compose import endpoint_of
    from nemotron_ops.recipes.load import load_settings, recipe_for
    from nemotron_ops.recipes.resolve import resolve
    from nemotron_ops.service.spec import CREDENTIALS, Scope, ServiceSpec
    from nemotron_ops.service.words import check_address, check_networks

    system = scope is Scope.SYSTEM
    said = serve_flags(asked.recipes, asked.options)
    credential = Path(CREDENTIALS, "api-keys")
    has_credential = system and (bool(asked.keys) or credential.exists())
    keys = asked.keys or (str(credential) if has_credential else said.get("api_key_file"))
    flags = {"host": asked.host or None, "port": asked.port, "prio": said.get("prio"), "api_key_file": keys}
    settings = load_settings(app.layout)
    plans = [
        resolve(recipe_for(r, app.layout), profile=asked.profile, settings=settings, env=app.env, flags=flags)
        for r in asked.recipes
    ]
    host = plans[0].value("host")
    check_address(host)
    check_networks(asked.allow_from)
    if asked.allow_from and not system:
        raise UsageError(
            "cannot narrow a user service to networks: a user's service manager cannot filter",
            hint="install a system service, or listen on 127.0.0.1",
        )
    try:
        endpoint_of(plans[0], settings, app.layout)
    except GatewayError as exc:
        raise GatewayError(
            exc.message, hint="nemotron-ops keys create NAME --file FILE, and then --api-keys FILE here"
        ) from exc
    return ServiceSpec(
        scope=scope,
        program=program(),
        recipes=asked.recipes,
        host=host,
        port=plans[0].value("port"),
        profile=asked.profile,
        options=asked.options,
        prio=max(int(p.value("prio") or 0) for p in plans),
        mlock=any("mlock" in str(p.value("load_mode") or "") for p in plans),
        gpu=gpu_kind(app, asked.gpu),
        gpu_asked=asked.gpu,
        api_keys=has_credential,
        key_file="" if system else asked.keys,
        hub_token=system and Path(CREDENTIALS, "hub-token").exists(),
        device_policy=asked.device_policy and not JETSON.exists(),  # its nodes have no names that a pattern could match
        allow_from=asked.allow_from,
        memory_max=asked.memory_max,
    )


def serve_flags(recipes: tuple[str, ...], options: tuple[str, ...]) -> Mapping[str, Any]:
    """What `serve` will make of the words given with --serve-option; it reads them here as it will read them there.

    Raises UsageError for words that it would refuse, or that belong to the service itself.
    """
    from nemotron_ops.cli.serve import serve

    try:
        read = serve.make_context("serve", [*recipes, *options])
    except click.ClickException as exc:
        raise UsageError(f"cannot use --serve-option: {exc.format_message()}") from exc
    given = {k: v for k, v in read.params.items() if v not in (None, "", (), False)}
    for name, flag in {**DECIDED, **MEANINGLESS}.items():
        if name in given:
            hint = f"say {flag} to `service install` itself" if name in DECIDED else None
            raise UsageError(f"cannot use --serve-option {flag}: the service decides that", hint=hint)
    if given.get("targets") != recipes:
        raise UsageError("cannot use --serve-option: a word of it would be taken for a recipe", hint="one option each")
    return given


def gpu_kind(app: App, asked: str) -> str:
    """The kind of GPU the service is for, or ""."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.service.gpu import kind_for

    build = store.current(app.layout)
    machine = [] if asked != "auto" or build else [g.kind for g in app.machine.gpus]
    return kind_for(asked, backend=build.backend if build else "", machine=machine)


def program() -> str:
    """The path of this very program, as a unit has to name it: through `current`, where a deploy installed it."""
    path = Path(shutil.which(sys.argv[0]) or "").absolute()
    if path.name != "nemotron-ops" or not path.exists():
        path = Path(sys.executable).parent / "nemotron-ops"
    if not path.exists():
        raise UsageError("cannot tell which program the service shall run: nemotron-ops is not installed as a command")
    return str(path)


def build_first(app: App, spec: ServiceSpec, place: Place, *, may_build: bool) -> None:
    """Have a build that fits before the service starts, because the service itself builds nothing."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.commands import build_words, lacks_build

    def lacking() -> str:
        now = store.current(app.layout)
        return lacks_build(spec, now.backend if now else "")

    if (lack := lacking()) and may_build:
        app.ui.say(f"{lack}: making one")
        installing.build(spec, place, report=app.ui.report)
        app.ui.end_bars()
        lack = lacking()
    if lack:
        raise BuildError(
            f"cannot install the service: {lack}", hint=f"run `nemotron-ops {' '.join(build_words(spec))}` first"
        )


def fetch_first(app: App, spec: ServiceSpec, place: Place) -> None:
    """Have the models before the service starts, because it has no way out: as the service's user, or as this one."""
    from nemotron_ops.proc import run_lines
    from nemotron_ops.service import install as installing

    if spec.system:
        installing.prepare(spec, place, report=app.ui.report)
        return
    for recipe in spec.recipes:
        done = run_lines([spec.program, "fetch", recipe], on_line=app.ui.say)
        if not done.ok:
            raise ServiceError(
                f"cannot fetch {recipe}: exit code {done.returncode}", log_tail=tuple(done.stdout.splitlines()[-10:])
            )


def with_absolute_keys(asked: Asked) -> Asked:
    """`asked` with the keys' path as the service will see it. Raises UsageError if there is no such file."""
    if not asked.keys:
        return asked
    path = Path(asked.keys).absolute()
    if not path.is_file():
        raise UsageError(f"cannot take API keys from {path}: there is no such file", hint="nemotron-ops keys create")
    return replace(asked, keys=str(path))
