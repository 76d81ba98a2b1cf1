"""Completes a service request from recipes, settings and this machine, and prepares its build and models. Disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import BuildError, GatewayError, ServiceError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.progress import remark

if TYPE_CHECKING:
    from nemotron_ops.recipes.resolve import Plan
    from nemotron_ops.service.place import Place
    from nemotron_ops.service.spec import Scope, ServiceSpec

JETSON = Path("/dev/nvgpu")


@dataclass(frozen=True, kw_only=True)
class ServiceRequest:
    """What `service install` is asked for; `port` None and empty words mean the value of recipes and settings."""

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


def request_again(spec: ServiceSpec) -> ServiceRequest:
    """The request that an installed service came from."""
    return ServiceRequest(
        recipes=spec.recipes, profile=spec.profile, host=spec.host, port=spec.port, gpu=spec.gpu_asked,
        allow_from=spec.allow_from, memory_max=spec.memory_max, device_policy=spec.device_policy,
        options=spec.options, keys=spec.key_file,
    )  # fmt: skip


def service_spec(
    request: ServiceRequest, scope: Scope, here: Installation, *, serve_flags: Mapping[str, Any]
) -> ServiceSpec:
    """The whole ServiceSpec. `serve_flags` are the values of `request.options`, by name, as `serve` reads them.

    Raises UsageError, RecipeError, and GatewayError for an address beyond loopback without keys.
    """
    from nemotron_ops.service.spec import CREDENTIALS, Scope, ServiceSpec
    from nemotron_ops.service.words import check_address, check_networks

    system = scope is Scope.SYSTEM
    credential = Path(CREDENTIALS, "api-keys")
    has_credential = system and (bool(request.keys) or credential.exists())
    keys = request.keys or (str(credential) if has_credential else serve_flags.get("api_key_file"))
    flags = {"host": request.host or None, "port": request.port, "prio": serve_flags.get("prio"), "api_key_file": keys}
    plans = _plans(request, here, flags)
    host = plans[0].value("host")
    check_address(host)
    check_networks(request.allow_from)
    if request.allow_from and not system:
        raise UsageError(
            "cannot narrow a user service to networks: a user's service manager cannot filter",
            hint="install a system service, or listen on 127.0.0.1",
        )
    _check_keys(plans[0], here)
    return ServiceSpec(
        scope=scope,
        program=program(),
        recipes=request.recipes,
        host=host,
        port=plans[0].value("port"),
        profile=request.profile,
        options=request.options,
        prio=max(int(p.value("prio") or 0) for p in plans),
        mlock=any("mlock" in str(p.value("load_mode") or "") for p in plans),
        gpu=gpu_kind(here, request.gpu),
        gpu_asked=request.gpu,
        api_keys=has_credential,
        key_file="" if system else request.keys,
        hub_token=system and Path(CREDENTIALS, "hub-token").exists(),
        device_policy=request.device_policy and not JETSON.exists(),  # no pattern matches the names of its nodes
        allow_from=request.allow_from,
        memory_max=request.memory_max,
    )


def _plans(request: ServiceRequest, here: Installation, flags: Mapping[str, Any]) -> list[Plan]:
    from nemotron_ops.recipes.load import load_settings, recipe_for
    from nemotron_ops.recipes.resolve import resolve

    settings = load_settings(here.layout)
    return [
        resolve(
            recipe_for(r, here.layout, here.env), profile=request.profile, settings=settings, env=here.env, flags=flags
        )
        for r in request.recipes
    ]


def _check_keys(plan: Plan, here: Installation) -> None:
    """Raises GatewayError if the service would listen beyond loopback without keys."""
    from nemotron_ops.operations.wish import endpoint_of
    from nemotron_ops.recipes.load import load_settings

    try:
        endpoint_of(plan, load_settings(here.layout), here.layout)
    except GatewayError as exc:
        raise GatewayError(
            exc.message, hint="nemotron-ops keys create NAME --file FILE, and then --api-keys FILE here"
        ) from exc


def gpu_kind(here: Installation, asked: str) -> str:
    """The kind of GPU the service is for, or ""."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.service.gpu import kind_for

    build = store.current(here.layout)
    machine = [] if asked != "auto" or build else [g.kind for g in here.machine.gpus]
    return kind_for(asked, backend=build.backend if build else "", machine=machine)


def program() -> str:
    """The path of this program for the unit file: through `current`, where a deploy installed it."""
    path = Path(shutil.which(sys.argv[0]) or "").absolute()
    if path.name != "nemotron-ops" or not path.exists():
        path = Path(sys.executable).parent / "nemotron-ops"
    if not path.exists():
        raise UsageError("cannot tell which program the service is to run: nemotron-ops is not installed as a command")
    return str(path)


def build_first(spec: ServiceSpec, place: Place, here: Installation, *, may_build: bool) -> None:
    """Have a build that suits the service before its start: the service itself builds nothing. Raises BuildError."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.commands import build_words, lacks_build

    def lacking() -> str:
        now = store.current(here.layout)
        return lacks_build(spec, now.backend if now else "")

    if (lack := lacking()) and may_build:
        remark(here.report, f"{lack}: making one")
        installing.build(spec, place, report=here.report)
        lack = lacking()
    if lack:
        raise BuildError(
            f"cannot install the service: {lack}", hint=f"run `nemotron-ops {' '.join(build_words(spec))}` first"
        )


def fetch_first(spec: ServiceSpec, place: Place, here: Installation) -> None:
    """Have the models before the service starts: its sandbox has no network.

    A system service's models are fetched as its own user. Raises ServiceError.
    """
    from nemotron_ops.proc import run_lines
    from nemotron_ops.service import install as installing

    if spec.system:
        installing.prepare(spec, place, report=here.report)
        return
    for recipe in spec.recipes:
        done = run_lines([spec.program, "fetch", recipe], on_line=lambda line: remark(here.report, line))
        if not done.ok:
            raise ServiceError(
                f"cannot fetch {recipe}: exit code {done.returncode}", log_tail=tuple(done.stdout.splitlines()[-10:])
            )


def with_absolute_keys(request: ServiceRequest) -> ServiceRequest:
    """`request` with the absolute path of its keys. Raises UsageError if there is no such file."""
    if not request.keys:
        return request
    path = Path(request.keys).absolute()
    if not path.is_file():
        raise UsageError(f"cannot take API keys from {path}: there is no such file", hint="nemotron-ops keys create")
    return replace(request, keys=str(path))
